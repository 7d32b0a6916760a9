"""Minimum power for SINR and sensing SNR targets: an exact semidefinite relaxation, solved by its dual.

In units of the noise, with a covariance W_k for each user and the transmit covariance S::

    minimise  tr S   subject to   h_k^H W_k h_k >= s_k (h_k^H S h_k + 1),   c_m^H S c_m >= level_m,   S >= sum_k W_k

where ``s_k = Gamma_k / (1 + Gamma_k)`` for a SINR target Gamma_k, and every W_k is positive semidefinite, of any rank.
The dual has a multiplier t_k for each user and mu_m for each target::

    maximise  sum_k s_k t_k + sum_m mu_m level_m
    subject to  X = I + sum_k s_k t_k h_k h_k^H - sum_m mu_m c_m c_m^H >= 0,   X - t_k h_k h_k^H >= 0

Given the first constraint, the second is ``u_k = 1 - t_k h_k^H X^-1 h_k >= 0``, so the barrier
``e ((K + 1) log det X + sum log u_k + sum log t_k + sum log mu_m)`` and its derivatives need X^-1 only. At its
optimum W_k is ``e (X - t_k h_k h_k^H)^-1``, and the sensing streams have the covariance ``e X^-1``. All targets are
met, and the power exceeds the minimum by e times the number of logarithms in the barrier, one for each eigenvalue.

A covariance W_k of any rank can be replaced by the beam ``w_k = W_k h_k / (h_k^H W_k h_k)^1/2``: user k receives the
same signal power, and ``W_k - w_k w_k^H`` is positive semidefinite and can be added to the sensing streams.

Source: X. Liu, T. Huang, N. Shlezinger, Y. Liu, J. Zhou, Y. C. Eldar, "Joint transmit beamforming for multiuser MIMO
communications and MIMO radar", IEEE Trans. Signal Process. 68 (2020), Theorem 1. New here: the barrier method.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.isac.dual import newton_ascent
from beamforge.core.network import own, squared_magnitude

MIN_U = 1e-2
"""Smallest initial u, as a multiple of the barrier's weight relative to the power; Newton's method is slow for less."""


class PowerProblem(NamedTuple):
    """Data: H [B, K, r] with rows h^H, C [B, r, M] with columns c, share s [B, K], level [B, M], barrier e [B]."""

    H: Tensor
    C: Tensor
    share: Tensor
    level: Tensor
    barrier: Tensor


class DualTerms(NamedTuple):
    """Terms of the dual at z: X^-1 V and ``V^H X^-1 V`` for ``V = [h.., c..]``, log det X, u [B, K], and X^-1.

    inside [B]: X, z and all u are positive.
    """

    TV: Tensor
    gram: Tensor
    logdet: Tensor
    u: Tensor
    inverse: Tensor
    inside: Tensor


def initial_multipliers(data: PowerProblem) -> Tensor:
    """Initial multipliers z = [t.., mu..], [B, K + M], inside the feasible set of the dual."""
    size = squared_magnitude(data.H).sum(-1)
    t = 1 / torch.where(size > 0, 4 * size, 1)
    strongest = squared_magnitude(data.C).sum(-2).amax(-1, keepdim=True)
    return torch.cat([t, (0.5 / (data.C.shape[-1] * strongest)).expand_as(data.level)], -1)


def signs(data: PowerProblem) -> Tensor:
    """Factors [B, K + M] of z in X."""
    return torch.cat([data.share, -torch.ones_like(data.level)], -1)


def dual_terms(data: PowerProblem, z: Tensor) -> DualTerms:
    """Terms that the value and the derivatives at z have in common."""
    V = torch.cat([data.H.mH, data.C], -1)
    eye = torch.eye(V.shape[-2], dtype=V.dtype, device=V.device)
    factor, failed = torch.linalg.cholesky_ex(eye + (V * (signs(data) * z).unsqueeze(-2)) @ V.mH)
    inside = (failed == 0) & (z > 0).all(-1)
    factor = torch.where(inside[:, None, None], factor, eye)
    T = torch.cholesky_inverse(factor)
    TV = T @ V
    gram = V.mH @ TV
    K = data.H.shape[-2]
    u = 1 - z[:, :K] * own(gram).real[:, :K]
    logdet = 2 * own(factor).real.log().sum(-1)
    return DualTerms(TV, gram, logdet, u, T, inside & (u > 0).all(-1))


def coefficients(data: PowerProblem) -> Tensor:
    """Coefficients [B, K + M] of z in the dual objective; negative for a user without SINR target: t_k is finite."""
    idle = torch.where(data.share > 0, data.share, -data.barrier.unsqueeze(-1))
    return torch.cat([idle, data.level], -1)


def dual(data: PowerProblem, z: Tensor) -> Tensor:
    """Dual objective [B], a lower bound on the power."""
    return (torch.cat([data.share, data.level], -1) * z).sum(-1)


def value(data: PowerProblem, z: Tensor) -> Tensor:
    """Dual objective with barrier [B]; -inf outside the feasible set."""
    here = dual_terms(data, z)
    logs = (data.H.shape[-2] + 1) * here.logdet + here.u.clamp_min(1e-300).log().sum(-1)
    logs = logs + z.clamp_min(1e-300).log().sum(-1)
    return torch.where(here.inside, (coefficients(data) * z).sum(-1) + data.barrier * logs, -torch.inf)


def derivatives(data: PowerProblem, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value [B], gradient [B, K + M] and Hessian of `value` at a feasible z."""
    here, e, D, K = dual_terms(data, z), data.barrier, signs(data), data.H.shape[-2]
    G, u = here.gram, here.u
    size, diagonal = squared_magnitude(G), own(G).real
    slopes = D.unsqueeze(-2) * size[:, :K]  # minus the derivatives of h^H X^-1 h, [B, K, K + M]
    u_gradient = z[:, :K, None] * slopes
    own(u_gradient[..., :K]).sub_(diagonal[:, :K])
    slope = (u_gradient / u.unsqueeze(-1)).sum(-2)
    gradient = coefficients(data) + e.unsqueeze(-1) * ((K + 1) * D * diagonal + slope + 1 / z)
    weighted = G[..., :K] * (z[:, :K] / u).unsqueeze(-2) @ G[:, :K]
    hessian = -(K + 1) * size - 2 * (G * weighted.mT).real
    hessian = hessian * D.unsqueeze(-1) * D.unsqueeze(-2)
    cross = slopes / u.unsqueeze(-1)
    hessian[:, :K] += cross
    hessian[..., :K] += cross.mT
    log_u_gradient = u_gradient / u.unsqueeze(-1)
    hessian = hessian - log_u_gradient.mT @ log_u_gradient - torch.diag_embed(z.square().reciprocal())
    return value(data, z), gradient, e[:, None, None] * hessian


def solve(data: PowerProblem, z: Tensor, power: Tensor) -> Tensor:
    """Optimal multipliers [B, K + M] from given ones, which are first scaled down until they are feasible.

    An instance stops as soon as the dual objective exceeds `power` [B], which proves that this power is too small.
    """
    initial, weight = z, (data.barrier / power).unsqueeze(-1)
    for place in range(60):
        here = dual_terms(data, z)
        outside = ~here.inside | (here.u < MIN_U * weight).any(-1)
        if not outside.any():
            break
        scale = 1 - (weight * 2.0 ** (place - 4)).clamp_max(0.5) if place < 40 else torch.full_like(weight, 0.5)
        z = torch.where(outside.unsqueeze(-1), (initial if place < 40 else z) * scale, z)
    return newton_ascent(
        lambda x: value(data, x),
        lambda x: derivatives(data, x),
        z,
        data.barrier,
        lambda x: dual(data, x) > power,
    )


def covariance(data: PowerProblem, z: Tensor) -> tuple[Tensor, Tensor]:
    """Data beams [B, r, K] and the transmit covariance S [B, r, r]."""
    here, K = dual_terms(data, z), data.H.shape[-2]
    e, received = data.barrier, own(here.gram).real[:, :K]
    rows = here.TV[..., :K]
    S = (K + 1) * here.inverse + (rows * (z[:, :K] / here.u).unsqueeze(-2)) @ rows.mH
    each = e.unsqueeze(-1) / (torch.where(received > 0, received, 1) * here.u)
    return rows * each.sqrt().unsqueeze(-2), e[:, None, None] * S
