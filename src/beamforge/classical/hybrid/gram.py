"""Least power for SINR targets from Gram matrices of the channels alone.

With channels h_k of rank one and power weighted by D, all that matters is ``C_kj = h_k^H D^-1 h_j``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.hybrid.uplink import LONGEST_STEP


class Step(NamedTuple):
    """Result of `newton_step`.

    q        powers after the step [n, K].
    reached  whether they meet all targets [n]; then their sum is an upper bound on the least power.
    lower    a lower bound on the least power [n].
    moved    largest relative change [n]; infinite where not `reached`.
    """

    q: Tensor
    reached: Tensor
    lower: Tensor
    moved: Tensor


def newton_step(gram: Tensor, targets: Tensor, q: Tensor) -> Step:
    """One Newton step on ``q_k = I_k(q)``, the power that user k needs if the others send with powers q.

    ::

        X = (I + diag(sqrt q) C diag(sqrt q))^-1,    I_k(q) = target_k q_k X_kk / (1 - X_kk)

    With the receivers of least squared error at q, powers ``y_k q_k`` meet the targets if ``y_k (1 - X_kk)^2/target_k =
    sum_{j != k} y_j |X_kj|^2 + m_k``, where m_k is the noise received. Where this has no positive solution, the step is
    taken in log q.

    gram     C, complex [n, K, K].
    targets  positive [n, K].
    q        positive [n, K].
    """
    root = q.sqrt()
    eye = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    X = torch.linalg.inv_ex(root.unsqueeze(2) * gram * root.unsqueeze(1) + eye)[0]
    own = X.diagonal(dim1=1, dim2=2).real
    heard = 1 - own
    cross = (X.real.square() + X.imag.square()) * (1 - eye)
    noise = heard * own - cross.sum(2)
    strength = heard.square() / targets
    y = torch.linalg.solve_ex(torch.diag_embed(strength) - cross, noise)[0]
    reached = ((y > 0) & (noise > 0) & torch.isfinite(y)).all(1)  # an M-matrix: it takes y > 0 to noise > 0
    lower = least(targets / gram.diagonal(dim1=1, dim2=2).real, targets * q * own / heard, q, 1)
    moved = torch.where(reached, (y - 1).abs().amax(1), torch.inf)
    if not reached.all():
        received = cross.sum(2) + noise
        balance = torch.diag_embed(received) - cross  # the Jacobian of log q - log I(q), times the power received
        climb = torch.linalg.solve_ex(balance, received * (received / strength).log())[0]
        mean = climb.mean(1, keepdim=True)  # the matrix is almost singular here: the common level increases most
        climb = mean.abs().clamp_max(LONGEST_STEP) + (climb - mean).clamp(-LONGEST_STEP, LONGEST_STEP)
        y = torch.where(reached.unsqueeze(1), y, climb.exp())
    return Step(q * y, reached, lower, moved)


def least(alone: Tensor, needed: Tensor, q: Tensor, dim: int) -> Tensor:
    """A lower bound on the least power, from powers q of the users on axis `dim`, by weak duality.

    I is concave, so ``t q <= I(t q)`` for ``t = min_k I_k(0) / (I_k(0) + q_k - I_k(q))`` (at most 1), and the least
    power is at least ``sum_k t I_k(q) + (1 - t) I_k(0)``.

    alone   I(0), the powers without interference.
    needed  I(q).
    """
    t = (alone / (alone + (q - needed).clamp_min(0))).amin(dim, keepdim=True)
    return (alone + t * (needed - alone)).sum(dim)
