"""Newton's method for the weighted sum rate within power limits, on dual uplink powers and multipliers together.

With uplink powers ``q = e^x`` of the users and multipliers ``lambda = e^z`` of the limits, which are noise at the
units, errors of linear MMSE receivers at the transmitter t that serves user k ::

    B_t = (I + Q^1/2 H_t Lambda_t^-1 H_t^H Q^1/2)^-1,    e_k = (B_t(k))_kk

a stationary point of the weighted sum rate within the limits is one, in x and z, of ::

    F = -sum_k a_k log e_k - sum_k q_k + sum_g lambda_g limit_g

where q are WMMSE's ``a w |u|^2`` and lambda the multipliers of its inner problem. F is highest in x, lowest in z.

Source: W. Yu, T. Lan, "Transmitter optimization for the multi-antenna downlink with per-antenna power constraints",
IEEE Trans. Signal Process. 55 (2007), Theorem 1, for the duality; the derivatives are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.structure import lifted_inverse
from beamforge.classical.sum_rate.power_duals import Limits
from beamforge.core import batching
from beamforge.core.network import own, squared_magnitude

STEPS = 60
"""Newton steps at most; 5 to 20 are usual."""

LONGEST = 2.0
"""Largest change of a logarithm in one step."""

SMALL = 1e-6
"""Share of all that is paid below which users or limits that want still less are off, and out of the equations."""

LEAST_USER, LEAST_LIMIT = 1e-20, 1e-9
"""Shares at which they stay: what an antenna's noise is, users that are off must not be seen in."""

CLOSE = 1e-14
"""Of the squared residual, as a share of the powers, where it ends."""


class Scene(NamedTuple):
    """Data: channels [B, T, K, N] in units of the noise, weights [B, K], limits, and who serves whom [B, T, K]."""

    H: Tensor
    weights: Tensor
    limits: Limits
    serves: Tensor


class Point(NamedTuple):
    """Logarithms of uplink powers [B, K] and of the limits' multipliers [B, G]."""

    x: Tensor
    z: Tensor


class Terms(NamedTuple):
    """At a point: gradient [B, K + G] and Hessian [B, K + G, K + G] of F, its natural scale [B, K + G], and the
    receivers' errors [B, K]."""

    gradient: Tensor
    hessian: Tensor
    scale: Tensor
    error: Tensor


def units(scene: Scene, z: Tensor) -> Tensor:
    """Multipliers [B, T, N] of the antennas from the logarithms [B, G] of the limits'."""
    B, T, _, N = scene.H.shape
    noise = scene.limits.spread(z.exp()).reshape(B, T, -1)
    return noise.expand(B, T, N)


def terms(scene: Scene, at: Point) -> Terms:
    """F's derivatives; see the head of this file."""
    B, T = scene.H.shape[:2]
    q, price, a = at.x.exp(), at.z.exp(), scene.weights
    noise = units(scene, at.z)
    A = q.sqrt()[:, None, :, None] * scene.H * noise.rsqrt().unsqueeze(-2)
    gram = A @ A.mH
    inverse = lifted_inverse(gram, 1 + 4 * torch.finfo(q.dtype).eps * own(gram).real)
    mine = scene.serves.to(q.dtype)
    rows = (inverse * mine.unsqueeze(-1)).sum(1)  # of each user, at its own transmitter
    error = own(rows).real
    R = squared_magnitude(rows) / error.unsqueeze(-1)
    U = inverse @ A
    Q = squared_magnitude(U) / error[:, None, :, None] * mine.unsqueeze(-1)
    aQ, aR, c = a[:, None, :, None] * Q, a.unsqueeze(-1) * R, (a / error).unsqueeze(1) * mine
    toll = aQ.sum(-2)  # [B, T, N]
    gx = a * (1 - error) - torch.diagonal_scatter(aR, torch.zeros_like(error), 0, -2, -1).sum(-2)
    CB = c.unsqueeze(-1) * inverse
    hxx = torch.diag_embed(aR.sum(-2)) + R.mT @ aR - 2 * (inverse.mT * (inverse @ CB)).real.sum(1) - torch.diag_embed(q)
    UCB = U.mH @ CB  # [B, T, N, K]
    hxu = R.mT.unsqueeze(1) @ aQ - 2 * (U * UCB.mT).real
    V, UCU = A.mH @ U, U.mH @ (c.unsqueeze(-1) * U)
    huu = torch.diag_embed(toll) + Q.mT @ aQ - 2 * (V.mT * UCU).real
    G = scene.limits.groups
    share = G * price.unsqueeze(-1) / scene.limits.spread(price).unsqueeze(-2)  # d log unit / d log limit
    if scene.limits.groups.shape[-1] == T:  # units are whole transmitters
        toll, hxu, huu = toll.sum(-1, keepdim=True), hxu.sum(-1, keepdim=True), huu.sum((-2, -1))[..., None, None]
    fu = -toll.flatten(1)
    hxz = hxu.transpose(1, 2).flatten(2) @ share.mT
    n = huu.shape[-1]
    slim = share.reshape(B, -1, T, n)
    pulled = torch.einsum("bgtn,btnm->bgtm", slim, huu).flatten(2)
    fz = (share @ fu.unsqueeze(-1)).squeeze(-1)
    paid = price * scene.limits.bound
    hzz = (pulled - share * fu.unsqueeze(1)) @ share.mT + torch.diag_embed(fz + paid)
    hessian = torch.cat([torch.cat([hxx, hxz], -1), torch.cat([hxz.mT, hzz], -1)], -2)
    return Terms(torch.cat([gx - q, fz + paid], -1), hessian, torch.cat([q, paid], -1), error)


class Ending(NamedTuple):
    """Where each instance ended, the receivers' errors [B, K], whether it is stationary [B], and steps taken [B]."""

    point: Point
    error: Tensor
    converged: Tensor
    steps: Tensor


def newton(scene: Scene, start: Point, tolerance: float = CLOSE) -> Ending:
    """A stationary point near a start, maximal in the users' powers and minimal in the limits' multipliers.

    Steps are damped where F is not concave in x or not convex in z, and where the residual grows.
    """
    where = torch.arange(len(start.x), device=start.x.device)
    K = start.x.shape[-1]
    first = terms(scene, start)
    rise = (first.gradient[:, :K] + start.x.exp()).sum(-1) / start.x.exp().sum(-1)  # F's scale, which is free
    here = Point(start.x + rise.log().unsqueeze(-1), start.z + rise.log().unsqueeze(-1))
    found = Ending(here, first.error, where < 0, torch.zeros_like(where))
    now = terms(scene, here)
    damping = torch.zeros_like(rise)
    for count in range(STEPS + 1):
        free, floor = in_play(now, scene.limits.bound)
        size = residual(now, free)
        converged = size <= tolerance * now.scale.sum(-1)
        if count == STEPS or converged.any():
            converged = converged & saddle(now, free, K)
        ended = converged | (damping > 1e8) | ~torch.isfinite(size)
        if count == STEPS:
            ended = torch.ones_like(ended)
        if ended.any():
            places = where[ended]
            last = Ending(
                batching.take(here, ended), now.error[ended], converged[ended], torch.full_like(places, count)
            )
            found = batching.put(found, places, last)
            if ended.all():
                break
            left = ~ended
            where, damping, size, free, floor = where[left], damping[left], size[left], free[left], floor[left]
            scene, here, now = batching.take((scene, here, now), left)
        y = torch.where(free, torch.cat(here, -1) + saddle_step(now, free, K, damping), floor)
        candidate = Point(y[:, :K], y[:, K:])
        tried = terms(scene, candidate)
        better = residual(tried, free) < size * (1 - 1e-3)
        here, now = batching.where(better, (candidate, tried), (here, now))
        damping = torch.where(better, torch.where(damping > 1e-3, damping / 5, 0), (5 * damping).clamp_min(1e-2))
    return found


def in_play(now: Terms, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Which users and limits are on, boolean [B, K + G], and the logarithms [B, K + G] of those that are not."""
    users = now.scale.shape[-1] - bound.shape[-1]
    total = now.scale[:, :users].sum(-1, keepdim=True)
    wants_less = torch.cat([now.gradient[:, :users] < 0, now.gradient[:, users:] > 0], -1)
    least = torch.cat([torch.full_like(now.scale[:, :users], LEAST_USER), LEAST_LIMIT / bound], -1)
    return ~(wants_less & (now.scale < SMALL * total)), (least * total).log()


def residual(now: Terms, free: Tensor) -> Tensor:
    """The gradient's squares over the scale [B]."""
    parts = now.gradient.square() / now.scale.clamp_min(torch.finfo(now.scale.dtype).tiny)
    return torch.where(free, parts, 0).sum(-1)


def scaled(now: Terms, free: Tensor, users: int) -> tuple[Tensor, Tensor, Tensor]:
    """The Hessian in units of its scale, an identity with its sign where not free; roots of the scale; signs."""
    root = torch.where(free, now.scale.clamp_min(torch.finfo(now.scale.dtype).tiny), 1).sqrt()
    sign = torch.ones_like(root)
    sign[:, :users] = -1
    both = free.unsqueeze(-1) & free.unsqueeze(-2)
    hessian = torch.where(both, now.hessian / (root.unsqueeze(-1) * root.unsqueeze(-2)), 0)
    return hessian + torch.diag_embed(torch.where(free, 0, sign)), root, sign


def saddle(now: Terms, free: Tensor, users: int) -> Tensor:
    """Whether F has as many directions of descent as there are users [B]: else the rate has no maximum there."""
    hessian, _, _ = scaled(now, free, users)
    finite = torch.isfinite(hessian).all(-1).all(-1)
    values = torch.linalg.eigvalsh(torch.where(finite[:, None, None], hessian, 0))
    return finite & ((values < 0).sum(-1) == users)


def saddle_step(now: Terms, free: Tensor, users: int, damping: Tensor) -> Tensor:
    """A damped Newton step [B, K + G] towards a saddle."""
    hessian, root, sign = scaled(now, free, users)
    raised = hessian + torch.diag_embed(sign * (damping + 1e-12).unsqueeze(-1))
    right = -(torch.where(free, now.gradient, 0) / root).unsqueeze(-1)
    step = torch.linalg.solve_ex(raised, right)[0].squeeze(-1) / root
    return step.clamp(-LONGEST, LONGEST)


def beams(scene: Scene, at: Point, error: Tensor) -> Tensor:
    """WMMSE's beams [B, N, K] at a point: ``Lambda^-1 H^H Q^1/2 B diag(sqrt(a / e))``."""
    noise = units(scene, at.z)
    A = at.x.exp().sqrt()[:, None, :, None] * scene.H * noise.rsqrt().unsqueeze(-2)
    gram = A @ A.mH
    inverse = lifted_inverse(gram, 1 + 4 * torch.finfo(error.dtype).eps * own(gram).real)
    W = noise.rsqrt().unsqueeze(-1) * (A.mH @ inverse) * (scene.weights / error).sqrt()[:, None, None, :]
    return (W * scene.serves.unsqueeze(-2)).sum(1)
