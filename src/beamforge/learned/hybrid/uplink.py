"""Uplink powers for virtual channels of rank one plus a floor: everything is computed from K-by-K Gram matrices.

With an orthonormal basis U of the analog beams, ``v_k = U^H h_k`` and radiated power, the matrices are
``wanted_k v_k v_k^H + wanted_floor_k I`` and ``interfering_k v_k v_k^H + interfering_floor_k I``. The receivers are
combinations of the v_k, so the number of RF chains does not matter. All tensors end in the batch, n instances or
candidates; `beamforge.classical.hybrid.digital` solves the same problem for any matrices.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.network import squared_magnitude
from beamforge.learned.hybrid.elimination import eliminated
from beamforge.learned.hybrid.virtual_channels import Virtual

LONGEST_STEP = 3.0
"""Largest change of log q in a step while the receivers cannot meet the targets."""

LEAST_SHIFT = 0.05
"""Least value of the identity's factor in the matrix of a receiver, positive at the fixed point."""

RANGE = (1e-12, 1e8)
"""Range of uplink powers, relative to the noise."""


class Question(NamedTuple):
    """Virtual channels: Gram matrix ``v_k^H v_j`` [K, K, n], their levels and SINR targets [K, n]."""

    gram: Tensor
    levels: Virtual
    targets: Tensor


def receivers(asked: Question, q: Tensor) -> Tensor:
    """Coefficients X [j, k, n] of the receivers ``u_k = sum_j X_jk v_j`` for uplink powers q [K, n].

    ``u_k = (Q_k - q_k wanted_floor_k / target_k I)^-1 v_k`` up to scale, with ``Q_k = I + sum_{i != k} q_i
    (interfering_i v_i v_i^H + interfering_floor_i I)``: at the fixed point the principal eigenvector.
    """
    K = len(q)
    others = 1 - torch.eye(K, dtype=q.dtype, device=q.device)
    levels, shift = asked.levels, shifts(asked, q)
    t = others.unsqueeze(-1) * (q * levels.interfering).sqrt()  # [k, i, n]
    eye = torch.eye(K, dtype=q.dtype, device=q.device)
    t = t.transpose(0, 1)  # [i, k, n]
    M = (t.unsqueeze(1) * t.unsqueeze(0)) * asked.gram.unsqueeze(2) + eye[:, :, None, None] * shift
    z, _ = eliminated(M, t * asked.gram)  # gram[i, k]
    return eye.unsqueeze(-1) - t * z


def shifts(asked: Question, q: Tensor) -> Tensor:
    """``1 + sum_{j != k} q_j interfering_floor_j - q_k wanted_floor_k / target_k`` [K, n], at least `LEAST_SHIFT`."""
    others = 1 - torch.eye(len(q), dtype=q.dtype, device=q.device)
    shift = 1 + others @ (q * asked.levels.interfering_floor) - q * asked.levels.wanted_floor / asked.targets
    return shift.clamp_min(LEAST_SHIFT)


class Links(NamedTuple):
    """What receivers u_k of norm one receive: `own` [K, n] is ``u_k^H wanted_k u_k / target_k``, `crossed` [k, j, n] is
    ``u_k^H interfering_j u_k``, zero for j = k."""

    own: Tensor
    crossed: Tensor


def links(asked: Question, X: Tensor) -> Links:
    """The links of receivers with coefficients X."""
    levels = asked.levels
    heard = torch.einsum("ijn,jkn->ikn", asked.gram, X)  # v_i^H u_k
    norm = (X.conj() * heard).sum(0).real
    norm = torch.where(norm > 0, norm, 1)
    power = squared_magnitude(heard) / norm  # [i, k, n]
    own = (levels.wanted * power.diagonal(dim1=0, dim2=1).mT + levels.wanted_floor) / asked.targets
    crossed = (levels.interfering.unsqueeze(1) * power + levels.interfering_floor.unsqueeze(1)).transpose(0, 1)
    others = 1 - torch.eye(len(own), dtype=own.dtype, device=own.device)
    return Links(own, crossed * others.unsqueeze(-1))


def powers(found: Links) -> tuple[Tensor, Tensor]:
    """Uplink powers q [K, n] with which these receivers meet the targets, and whether they can [n]."""
    usable = torch.where(found.own > 0, found.own, 1)
    eye = torch.eye(len(usable), dtype=usable.dtype, device=usable.device)
    q, pivots = eliminated(eye.unsqueeze(-1) - found.crossed / usable.unsqueeze(1), 1 / usable)
    met = (pivots > 0).all(0) & (q > 0).all(0) & (found.own > 0).all(0) & torch.isfinite(q).all(0)
    return q, met


def newton_step(asked: Question, q: Tensor) -> tuple[Tensor, Tensor]:
    """A step on the uplink powers q [K, n], and whether the receivers at q meet the targets [n].

    Where they do, the new powers are those with which they do, an upper bound on the least ones that falls with
    quadratic convergence; else it is a step of the fixed-point iteration in log q, made longer.
    """
    found = links(asked, receivers(asked, q))
    step, met = powers(found)
    usable = torch.where(found.own > 0, found.own, 1)
    needed = (1 + torch.einsum("kjn,jn->kn", found.crossed, q)) / usable
    grown = q * (2 * (needed / q).log()).clamp(-LONGEST_STEP, LONGEST_STEP).exp()
    return torch.where(met, step, grown), met


def least_powers(asked: Question, iterations: int = 16) -> tuple[Tensor, Tensor]:
    """The least uplink powers q [K, n] without a start, and whether there are any [n]."""
    alone = asked.targets / (
        asked.levels.wanted * asked.gram.diagonal(dim1=0, dim2=1).mT.real + asked.levels.wanted_floor
    )
    q = 2 * torch.where(torch.isfinite(alone), alone, 1)
    met = torch.zeros_like(q[0], dtype=torch.bool)
    for _ in range(iterations):
        q, met = newton_step(asked, q.clamp(*RANGE))
    return q, met
