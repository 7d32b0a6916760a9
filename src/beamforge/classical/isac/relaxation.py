"""Least power for SINR targets and sensing SNRs: a convex relaxation that is exact, by its dual.

In units of the noise, with a covariance W_k for each user and S of all that is sent::

    minimise  tr S   subject to   h_k^H W_k h_k >= s_k (h_k^H S h_k + 1),   c_m^H S c_m >= level_m,   S >= sum_k W_k

where ``s_k = Gamma_k / (1 + Gamma_k)`` for a target SINR Gamma_k, and every W_k is positive semidefinite, of any rank.
Its dual has a number t_k for each user and mu_m for each target::

    maximise  sum_k s_k t_k + sum_m mu_m level_m
    subject to  X = I + sum_k s_k t_k h_k h_k^H - sum_m mu_m c_m c_m^H >= 0,   X - t_k h_k h_k^H >= 0

The second is ``u_k = 1 - t_k h_k^H X^-1 h_k >= 0`` beside the first, so a barrier ``e ((K + 1) log det X +
sum log u_k + sum log t_k + sum log mu_m)`` and its derivatives need X^-1 alone. At its optimum W_k is
``e (X - t_k h_k h_k^H)^-1`` and what S has beyond them ``e X^-1``: all targets are met, and the power exceeds the least
by e times the number of the barrier's logarithms, eigenvalues of matrices counted one by one.

A covariance of any rank is as good as ``w_k = W_k h_k / (h_k^H W_k h_k)^1/2``: the user hears the same of it, and
``W_k - w_k w_k^H`` is positive semidefinite, so that sensing streams send the rest.

Source: X. Liu, T. Huang, N. Shlezinger, Y. Liu, J. Zhou, Y. C. Eldar, "Joint transmit beamforming for multiuser MIMO
communications and MIMO radar", IEEE Trans. Signal Process. 68 (2020), Theorem 1; the dual's barrier is ours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.isac.dual import climb
from beamforge.core.network import own, squared_magnitude

EDGE = 1e-2
"""Least u to begin Newton's method with, as a multiple of the barrier's weight in the power: nearer it is slow."""


class Targets(NamedTuple):
    """H [B, K, r] rows h^H, C [B, r, M] columns c, share s [B, K], level [B, M], barrier e [B]."""

    H: Tensor
    C: Tensor
    share: Tensor
    level: Tensor
    barrier: Tensor


class Point(NamedTuple):
    """At the dual's numbers z [B, K + M]: X^-1 V, Gram V^H X^-1 V for V = [h.., c..], log det X, u [B, K], trace X^-1.

    sound [B]: X and all u are positive.
    """

    TV: Tensor
    gram: Tensor
    logdet: Tensor
    u: Tensor
    inverse: Tensor
    sound: Tensor


def first(data: Targets) -> Tensor:
    """Numbers z [B, K + M] inside the dual's limits."""
    size = squared_magnitude(data.H).sum(-1)
    t = 1 / torch.where(size > 0, 4 * size, 1)
    strongest = squared_magnitude(data.C).sum(-2).amax(-1, keepdim=True)
    return torch.cat([t, (0.5 / (data.C.shape[-1] * strongest)).expand_as(data.level)], -1)


def signs(data: Targets) -> Tensor:
    """Factors [B, K + M] of z in X."""
    return torch.cat([data.share, -torch.ones_like(data.level)], -1)


def at(data: Targets, z: Tensor) -> Point:
    """What value and derivatives are made of."""
    V = torch.cat([data.H.mH, data.C], -1)
    eye = torch.eye(V.shape[-2], dtype=V.dtype, device=V.device)
    factor, failed = torch.linalg.cholesky_ex(eye + (V * (signs(data) * z).unsqueeze(-2)) @ V.mH)
    sound = (failed == 0) & (z > 0).all(-1)
    factor = torch.where(sound[:, None, None], factor, eye)
    T = torch.cholesky_inverse(factor)
    TV = T @ V
    gram = V.mH @ TV
    K = data.H.shape[-2]
    u = 1 - z[:, :K] * own(gram).real[:, :K]
    logdet = 2 * own(factor).real.log().sum(-1)
    return Point(TV, gram, logdet, u, T, sound & (u > 0).all(-1))


def cost(data: Targets) -> Tensor:
    """Factors [B, K + M] of z in the dual; a user of whom nothing is asked has one that keeps its number finite."""
    idle = torch.where(data.share > 0, data.share, -data.barrier.unsqueeze(-1))
    return torch.cat([idle, data.level], -1)


def dual(data: Targets, z: Tensor) -> Tensor:
    """The dual [B]: no beams need less."""
    return (torch.cat([data.share, data.level], -1) * z).sum(-1)


def value(data: Targets, z: Tensor) -> Tensor:
    """The dual with its barrier [B]; -inf outside."""
    here = at(data, z)
    logs = (data.H.shape[-2] + 1) * here.logdet + here.u.clamp_min(1e-300).log().sum(-1)
    logs = logs + z.clamp_min(1e-300).log().sum(-1)
    return torch.where(here.sound, (cost(data) * z).sum(-1) + data.barrier * logs, -torch.inf)


def derivatives(data: Targets, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value [B], gradient [B, K + M] and Hessian at z inside the limits."""
    here, e, D, K = at(data, z), data.barrier, signs(data), data.H.shape[-2]
    G, u = here.gram, here.u
    size, diagonal = squared_magnitude(G), own(G).real
    heard = D.unsqueeze(-2) * size[:, :K]  # minus the derivatives of h^H X^-1 h, [B, K, K + M]
    moved = z[:, :K, None] * heard  # of u
    own(moved[..., :K]).sub_(diagonal[:, :K])
    slope = (moved / u.unsqueeze(-1)).sum(-2)
    gradient = cost(data) + e.unsqueeze(-1) * ((K + 1) * D * diagonal + slope + 1 / z)
    weighted = G[..., :K] * (z[:, :K] / u).unsqueeze(-2) @ G[:, :K]
    bent = -(K + 1) * size - 2 * (G * weighted.mT).real
    bent = bent * D.unsqueeze(-1) * D.unsqueeze(-2)
    cross = heard / u.unsqueeze(-1)
    bent[:, :K] += cross
    bent[..., :K] += cross.mT
    steep = moved / u.unsqueeze(-1)
    bent = bent - steep.mT @ steep - torch.diag_embed(z.square().reciprocal())
    return value(data, z), gradient, e[:, None, None] * bent


def solve(data: Targets, z: Tensor, power: Tensor) -> Tensor:
    """The dual's numbers [B, K + M] from given ones, shrunk as little as brings them inside.

    They are not followed beyond where they prove that a power [B] is not enough.
    """
    begun, weight = z, (data.barrier / power).unsqueeze(-1)
    for place in range(60):
        here = at(data, z)
        outside = ~here.sound | (here.u < EDGE * weight).any(-1)
        if not outside.any():
            break
        less = 1 - (weight * 2.0 ** (place - 4)).clamp_max(0.5) if place < 40 else torch.full_like(weight, 0.5)
        z = torch.where(outside.unsqueeze(-1), (begun if place < 40 else z) * less, z)
    return climb(
        lambda x: value(data, x),
        lambda x: derivatives(data, x),
        z,
        data.barrier,
        lambda x: dual(data, x) > power,
    )


def covariance(data: Targets, z: Tensor) -> tuple[Tensor, Tensor]:
    """Data beams [B, r, K] and the covariance S [B, r, r] of all that is sent."""
    here, K = at(data, z), data.H.shape[-2]
    e, heard = data.barrier, own(here.gram).real[:, :K]
    rows = here.TV[..., :K]
    S = (K + 1) * here.inverse + (rows * (z[:, :K] / here.u).unsqueeze(-2)) @ rows.mH
    each = e.unsqueeze(-1) / (torch.where(heard > 0, heard, 1) * here.u)
    return rows * each.sqrt().unsqueeze(-2), e[:, None, None] * S
