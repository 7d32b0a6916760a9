"""Newton's method for the weighted sum rate within power limits, on dual uplink powers and multipliers together.

The users have uplink powers ``q = e^x``, and the limits have multipliers ``lambda = e^z``, which act as noise at the
antennas or transmitters (units). The errors of linear MMSE receivers at the transmitter t that serves user k are ::

    B_t = (I + Q^1/2 H_t Lambda_t^-1 H_t^H Q^1/2)^-1,    e_k = (B_t(k))_kk

Stationary points of the weighted sum rate within the limits are the stationary points, in x and z, of ::

    F = -sum_k a_k log e_k - sum_k q_k + sum_g lambda_g limit_g

where q are WMMSE's ``a w |u|^2`` and lambda the multipliers of its beam update. At a local optimum, F has a maximum in
x and a minimum in z.

Source: W. Yu, T. Lan, "Transmitter optimization for the multi-antenna downlink with per-antenna power constraints",
IEEE Trans. Signal Process. 55 (2007), Theorem 1, for the duality; the derivatives are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.structure import loaded_inverse
from beamforge.classical.sum_rate.power_duals import Limits
from beamforge.core import batching
from beamforge.core.network import own, squared_magnitude

STEPS = 60
"""Maximum number of Newton steps; usually 5 to 20."""

LONGEST_STEP = 2.0
"""Largest change of a logarithm in one step."""

INACTIVE = 1e-6
"""Share of the total power below which users, and limits, whose gradient is negative are removed from the equations."""

LEAST_USER, LEAST_LIMIT = 1e-20, 1e-9
"""Shares at which removed users and limits stay; those of users must be negligible beside the noise of an antenna."""

RESIDUAL = 1e-14
"""Squared residual, as a share of the powers, at which an instance has converged."""


class NewtonData(NamedTuple):
    """Data: channels [B, T, K, N] in units of the noise, weights [B, K], limits, and which t serves k [B, T, K]."""

    H: Tensor
    weights: Tensor
    limits: Limits
    serves: Tensor


class Point(NamedTuple):
    """Logarithms of uplink powers [B, K] and of the limits' multipliers [B, G]."""

    x: Tensor
    z: Tensor


class Terms(NamedTuple):
    """Derivatives at a point: gradient [B, K + G] and Hessian [B, K + G, K + G] of F, their natural scale [B, K + G],
    and the errors of the receivers [B, K]."""

    gradient: Tensor
    hessian: Tensor
    scale: Tensor
    error: Tensor


def antenna_multipliers(data: NewtonData, z: Tensor) -> Tensor:
    """Multipliers [B, T, N] of the antennas from the logarithms [B, G] of the limits' multipliers."""
    B, T, _, N = data.H.shape
    noise = data.limits.spread(z.exp()).reshape(B, T, -1)
    return noise.expand(B, T, N)


def terms(data: NewtonData, at: Point) -> Terms:
    """The derivatives of F (see the docstring of this module)."""
    B, T = data.H.shape[:2]
    q, price, a = at.x.exp(), at.z.exp(), data.weights
    noise = antenna_multipliers(data, at.z)
    A = q.sqrt()[:, None, :, None] * data.H * noise.rsqrt().unsqueeze(-2)
    gram = A @ A.mH
    inverse = loaded_inverse(gram, 1 + 4 * torch.finfo(q.dtype).eps * own(gram).real)
    mine = data.serves.to(q.dtype)
    rows = (inverse * mine.unsqueeze(-1)).sum(1)  # row k at the transmitter of user k
    error = own(rows).real
    R = squared_magnitude(rows) / error.unsqueeze(-1)
    U = inverse @ A
    Q = squared_magnitude(U) / error[:, None, :, None] * mine.unsqueeze(-1)
    aQ, aR, c = a[:, None, :, None] * Q, a.unsqueeze(-1) * R, (a / error).unsqueeze(1) * mine
    cost = aQ.sum(-2)  # [B, T, N]
    gx = a * (1 - error) - torch.diagonal_scatter(aR, torch.zeros_like(error), 0, -2, -1).sum(-2)
    CB = c.unsqueeze(-1) * inverse
    hxx = torch.diag_embed(aR.sum(-2)) + R.mT @ aR - 2 * (inverse.mT * (inverse @ CB)).real.sum(1) - torch.diag_embed(q)
    UCB = U.mH @ CB  # [B, T, N, K]
    hxu = R.mT.unsqueeze(1) @ aQ - 2 * (U * UCB.mT).real
    V, UCU = A.mH @ U, U.mH @ (c.unsqueeze(-1) * U)
    huu = torch.diag_embed(cost) + Q.mT @ aQ - 2 * (V.mT * UCU).real
    G = data.limits.groups
    share = G * price.unsqueeze(-1) / data.limits.spread(price).unsqueeze(-2)  # d log unit / d log limit
    if data.limits.groups.shape[-1] == T:  # units are whole transmitters
        cost, hxu, huu = cost.sum(-1, keepdim=True), hxu.sum(-1, keepdim=True), huu.sum((-2, -1))[..., None, None]
    fu = -cost.flatten(1)
    hxz = hxu.transpose(1, 2).flatten(2) @ share.mT
    n = huu.shape[-1]
    by_transmitter = share.reshape(B, -1, T, n)
    pulled = torch.einsum("bgtn,btnm->bgtm", by_transmitter, huu).flatten(2)
    fz = (share @ fu.unsqueeze(-1)).squeeze(-1)
    paid = price * data.limits.bound
    hzz = (pulled - share * fu.unsqueeze(1)) @ share.mT + torch.diag_embed(fz + paid)
    hessian = torch.cat([torch.cat([hxx, hxz], -1), torch.cat([hxz.mT, hzz], -1)], -2)
    return Terms(torch.cat([gx - q, fz + paid], -1), hessian, torch.cat([q, paid], -1), error)


class NewtonResult(NamedTuple):
    """The final point of each instance, the errors of the receivers [B, K], whether it converged [B], and steps [B]."""

    point: Point
    error: Tensor
    converged: Tensor
    steps: Tensor


def newton(data: NewtonData, start: Point, tolerance: float = RESIDUAL) -> NewtonResult:
    """A stationary point near a start, a maximum in the users' powers and a minimum in the limits' multipliers.

    Steps are damped where the residual would grow.
    """
    where = torch.arange(len(start.x), device=start.x.device)
    K = start.x.shape[-1]
    first = terms(data, start)
    rise = (first.gradient[:, :K] + start.x.exp()).sum(-1) / start.x.exp().sum(-1)  # the scale of q and lambda is free
    here = Point(start.x + rise.log().unsqueeze(-1), start.z + rise.log().unsqueeze(-1))
    found = NewtonResult(here, first.error, where < 0, torch.zeros_like(where))
    now = terms(data, here)
    damping = torch.zeros_like(rise)
    for count in range(STEPS + 1):
        free, floor = active(now, data.limits.bound)
        size = residual(now, free)
        converged = size <= tolerance * now.scale.sum(-1)
        if count == STEPS or converged.any():
            converged = converged & saddle(now, free, K)
        ended = converged | (damping > 1e8) | ~torch.isfinite(size)
        if count == STEPS:
            ended = torch.ones_like(ended)
        if ended.any():
            places = where[ended]
            last = NewtonResult(
                batching.take(here, ended), now.error[ended], converged[ended], torch.full_like(places, count)
            )
            found = batching.put(found, places, last)
            if ended.all():
                break
            left = ~ended
            where, damping, size, free, floor = where[left], damping[left], size[left], free[left], floor[left]
            data, here, now = batching.take((data, here, now), left)
        y = torch.where(free, torch.cat(here, -1) + saddle_step(now, free, K, damping), floor)
        candidate = Point(y[:, :K], y[:, K:])
        tried = terms(data, candidate)
        better = residual(tried, free) < size * (1 - 1e-3)
        here, now = batching.where(better, (candidate, tried), (here, now))
        damping = torch.where(better, torch.where(damping > 1e-3, damping / 5, 0), (5 * damping).clamp_min(1e-2))
    return found


def active(now: Terms, bound: Tensor) -> tuple[Tensor, Tensor]:
    """The users and limits that are in the equations, boolean [B, K + G], and the logarithms of removed ones."""
    users = now.scale.shape[-1] - bound.shape[-1]
    total = now.scale[:, :users].sum(-1, keepdim=True)
    wants_less = torch.cat([now.gradient[:, :users] < 0, now.gradient[:, users:] > 0], -1)
    least = torch.cat([torch.full_like(now.scale[:, :users], LEAST_USER), LEAST_LIMIT / bound], -1)
    return ~(wants_less & (now.scale < INACTIVE * total)), (least * total).log()


def residual(now: Terms, free: Tensor) -> Tensor:
    """Sum of the squared gradient entries over their scale [B]."""
    parts = now.gradient.square() / now.scale.clamp_min(torch.finfo(now.scale.dtype).tiny)
    return torch.where(free, parts, 0).sum(-1)


def scaled(now: Terms, free: Tensor, users: int) -> tuple[Tensor, Tensor, Tensor]:
    """The Hessian in units of its scale, with rows of a signed identity where not free; roots of the scale; signs."""
    root = torch.where(free, now.scale.clamp_min(torch.finfo(now.scale.dtype).tiny), 1).sqrt()
    sign = torch.ones_like(root)
    sign[:, :users] = -1
    both = free.unsqueeze(-1) & free.unsqueeze(-2)
    hessian = torch.where(both, now.hessian / (root.unsqueeze(-1) * root.unsqueeze(-2)), 0)
    return hessian + torch.diag_embed(torch.where(free, 0, sign)), root, sign


def saddle(now: Terms, free: Tensor, users: int) -> Tensor:
    """Whether the Hessian of F has as many negative eigenvalues as there are users [B]; else it is no maximum."""
    hessian, _, _ = scaled(now, free, users)
    finite = torch.isfinite(hessian).all(-1).all(-1)
    values = torch.linalg.eigvalsh(torch.where(finite[:, None, None], hessian, 0))
    return finite & ((values < 0).sum(-1) == users)


def saddle_step(now: Terms, free: Tensor, users: int, damping: Tensor) -> Tensor:
    """A damped Newton step [B, K + G] towards a saddle."""
    hessian, root, sign = scaled(now, free, users)
    damped = hessian + torch.diag_embed(sign * (damping + 1e-12).unsqueeze(-1))
    right = -(torch.where(free, now.gradient, 0) / root).unsqueeze(-1)
    step = torch.linalg.solve_ex(damped, right)[0].squeeze(-1) / root
    return step.clamp(-LONGEST_STEP, LONGEST_STEP)


def beams(data: NewtonData, at: Point, error: Tensor) -> Tensor:
    """The beams of WMMSE [B, N, K] at a point: ``Lambda^-1 H^H Q^1/2 B diag(sqrt(a / e))``."""
    noise = antenna_multipliers(data, at.z)
    A = at.x.exp().sqrt()[:, None, :, None] * data.H * noise.rsqrt().unsqueeze(-2)
    gram = A @ A.mH
    inverse = loaded_inverse(gram, 1 + 4 * torch.finfo(error.dtype).eps * own(gram).real)
    W = noise.rsqrt().unsqueeze(-1) * (A.mH @ inverse) * (data.weights / error).sqrt()[:, None, None, :]
    return (W * data.serves.unsqueeze(-2)).sum(1)
