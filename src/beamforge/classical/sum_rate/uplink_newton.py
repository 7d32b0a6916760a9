"""Newton's method for the weighted sum rate of a broadcast network, on the K powers of its dual uplink.

Source: uplink-downlink duality, P. Viswanath, D. Tse, "Sum capacity of the vector Gaussian broadcast channel and
uplink-downlink duality", IEEE Trans. Inf. Theory 49 (2003), section IV, for linear receivers; damping as in
K. Levenberg, Q. Appl. Math. 2 (1944). The derivatives are ours.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.structure import lifted_inverse
from beamforge.core import batching
from beamforge.core.network import own, squared_magnitude

STEPS = 100
"""Newton steps at most; 0 to 10 are usual, more where users are switched off."""

LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e12
"""Of a step that failed at first, and where rounding allows no further step."""

LONGEST = 4.0
"""Largest change of a logarithm in one step."""

LEAST_SHARE = 1e-14
"""Of the power, from which a user that is switched off starts."""

ASLEEP, AWAKE = 1e-4, 1e-3
"""Share of a user below which its logarithm hides what more power is worth to it, and where it starts anew."""

WORTH = 0.05
"""By which share more than its price power must be worth to wake a user."""

PUSH = 0.3
"""Change in nats that leaves a stationary point which is not a maximum."""


class DualUplink(NamedTuple):
    """Where each instance ended: shares of the uplink power [B, K], ``1/MSE`` [B, K], their weighted sum rate [B],
    whether Newton's method converged [B], and steps taken [B]."""

    shares: Tensor
    inverse_error: Tensor
    rate: Tensor
    converged: Tensor
    steps: Tensor


class Slope(NamedTuple):
    """Rate [B] in nats at logarithms of shares [B, K], ``1/MSE`` [B, K], the gradient [B, K], minus the Hessian
    [B, K, K] and its natural scale [B, K]."""

    logarithms: Tensor
    rate: Tensor
    inverse_error: Tensor
    gradient: Tensor
    curvature: Tensor
    scale: Tensor


def slope(gram: Tensor, weights: Tensor, logarithms: Tensor) -> Slope:
    """The rate and its derivatives by the logarithms x of the powers, which are scaled to a sum of one.

    With shares ``s = softmax(x)`` and ``B = (I + S^1/2 H H^H S^1/2)^-1`` the errors of the linear MMSE receivers are
    the diagonal of B, and the rate is ``-sum a_k log B_kk``. With ``R_kj = |B_kj|^2 / B_kk``, by log s ::

        g_j = a_j - sum_k a_k R_kj
        h_jl = delta_jl sum_k a_k R_kj + sum_k a_k R_kj R_kl - 2 Re B_lj (B diag(a_k / B_kk) B)_jl
    """
    shares = torch.softmax(logarithms, -1)
    B = errors(gram, shares)
    error = own(B).real
    R = squared_magnitude(B) / error.unsqueeze(-1)
    weighted = weights.unsqueeze(-1) * R
    gradient = weights * (1 - error) - torch.diagonal_scatter(weighted, torch.zeros_like(error), 0, -2, -1).sum(-2)
    second = B.mT * (B * (weights / error).unsqueeze(-2) @ B)
    hessian = torch.diag_embed(weighted.sum(-2)) + R.mT @ weighted - 2 * second.real
    price = gradient.sum(-1, keepdim=True)  # of power
    centred = hessian - shares.unsqueeze(-1) * hessian.sum(-2, keepdim=True)
    centred = centred - centred.sum(-1, keepdim=True) * shares.unsqueeze(-2)
    scale = (shares * price).clamp_min(torch.finfo(shares.dtype).tiny)
    curvature = torch.diag_embed(scale) - scale.unsqueeze(-1) * shares.unsqueeze(-2) - centred
    rate = -(weights * error.log()).sum(-1)
    return Slope(logarithms, rate, error.reciprocal(), gradient - shares * price, curvature, scale)


def errors(gram: Tensor, shares: Tensor) -> Tensor:
    """``B = (I + S^1/2 H H^H S^1/2)^-1`` [B, K, K], the errors of linear MMSE receivers of shares [B, K] of power."""
    root = shares.sqrt()
    scaled = gram * (root.unsqueeze(-1) * root.unsqueeze(-2))
    return lifted_inverse(scaled, 1 + 4 * torch.finfo(root.dtype).eps * own(scaled).real)


def newton(gram: Tensor, weights: Tensor, shares: Tensor, tolerance: float = 1e-8) -> DualUplink:
    """A local maximum of the weighted sum rate from shares [B, K] of the uplink power, in double precision.

    gram     ``H H^H`` [B, K, K] in units of noise over power.
    weights  [B, K].
    shares   [B, K], scaled to a sum of one; users that are off start with very little.

    The rate never falls. An instance has converged when the next step, which is still taken, promises at most
    `tolerance` of its rate, and the curvature there is that of a maximum: a saddle, where users are exactly alike, is
    left by favouring the first of them. A user who was given up too early is given power anew. No slowness can be taken
    for convergence, for a step leads all the way.
    """
    gram, weights, shares = gram.to(torch.complex128), weights.double(), shares.double()
    shares = shares / shares.sum(-1, keepdim=True)
    where, K = torch.arange(len(gram), device=gram.device), gram.shape[-1]
    found = DualUplink(shares, torch.ones_like(shares), shares[:, 0] * 0, where < 0, torch.zeros_like(where))
    here = slope(gram, weights, shares.clamp_min(LEAST_SHARE).log())
    damping = torch.zeros_like(here.rate)
    unequal = PUSH * torch.linspace(1, -1, K, dtype=weights.dtype, device=gram.device)
    for count in range(STEPS + 1):
        step, convex = ascent(here, damping)
        promised = (step * here.gradient).sum(-1)
        flat = ~(promised.abs() > tolerance * here.rate)
        stuck = flat & ~convex & (damping < MOST_DAMPING) & (here.rate > 0)  # a saddle
        more, wakes = worth(here)
        wakes = wakes & flat & (damping < MOST_DAMPING)
        stuck = stuck | wakes
        converged = flat & ~stuck
        ended = converged | (damping >= MOST_DAMPING)
        if count == STEPS:
            ended = torch.ones_like(ended)
        if ended.any():
            places = where[ended]
            last = torch.where((flat & convex).unsqueeze(-1), here.logarithms + step, here.logarithms)[ended]
            shares = torch.softmax(last, -1)
            inverse_error = errors(gram[ended], shares).diagonal(dim1=-2, dim2=-1).real.reciprocal()
            rate = (weights[ended] * inverse_error.log()).sum(-1) / math.log(2)
            end = DualUplink(shares, inverse_error, rate, converged[ended], torch.full_like(places, count))
            found = batching.put(found, places, end)
            if ended.all():
                break
            left = ~ended
            where, gram, weights, damping = where[left], gram[left], weights[left], damping[left]
            here, step, stuck = batching.take(here, left), step[left], stuck[left]
            more, wakes = more[left], wakes[left]
        step = torch.where(stuck.unsqueeze(-1), unequal, step)
        step = torch.where(wakes.unsqueeze(-1), more, step)
        tried = slope(gram, weights, here.logarithms + step)
        better = tried.rate >= here.rate - 1e-13 * here.rate.abs()
        here = batching.where(better | stuck, tried, here)
        relaxed = torch.where(damping > LEAST_DAMPING, damping / 10, 0)
        damping = torch.where(better | stuck, relaxed, (10 * damping).clamp_min(LEAST_DAMPING))
    return found


def worth(here: Slope) -> tuple[Tensor, Tensor]:
    """The step [B, K] that gives power to the one user without any to whom it is worth most, and whether it is [B]."""
    log_share = torch.log_softmax(here.logarithms, -1)
    excess = torch.where(log_share < math.log(ASLEEP), here.gradient / here.scale, -torch.inf)
    which = torch.nn.functional.one_hot(excess.argmax(-1), excess.shape[-1])
    return which * (math.log(AWAKE) - log_share), excess.amax(-1) > WORTH


def ascent(here: Slope, damping: Tensor) -> tuple[Tensor, Tensor]:
    """The damped Newton step [B, K], and whether it needed no more damping [B] than it was given."""
    root = here.scale.sqrt()
    normal = here.curvature / (root.unsqueeze(-1) * root.unsqueeze(-2)) + 1  # the direction in which nothing changes
    eye = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
    factor, failed = torch.linalg.cholesky_ex(normal + (damping + 1e-12)[:, None, None] * eye)
    convex = failed == 0
    if not convex.all():
        least = torch.linalg.eigvalsh(torch.where(torch.isfinite(normal), normal, 0))[:, 0]
        raised = torch.where(convex, damping + 1e-12, damping - 1.5 * least.clamp_max(0) + 1e-3)
        factor, _ = torch.linalg.cholesky_ex(normal + raised[:, None, None] * eye)
    step = torch.cholesky_solve((here.gradient / root).unsqueeze(-1), factor).squeeze(-1) / root
    off = torch.log_softmax(here.logarithms, -1) < math.log(LEAST_SHARE)  # all that is left there is rounding
    return torch.where(off, 0, step.clamp(-LONGEST, LONGEST)), convex
