"""Newton's method for the weighted sum rate of a broadcast network, in the K powers of its dual uplink.

Source: uplink-downlink duality, P. Viswanath, D. Tse, "Sum capacity of the vector Gaussian broadcast channel and
uplink-downlink duality", IEEE Trans. Inf. Theory 49 (2003), section IV, for linear receivers; damping as in
K. Levenberg, Q. Appl. Math. 2 (1944). The derivatives are ours.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.structure import loaded_inverse
from beamforge.core import batching
from beamforge.core.network import own, squared_magnitude

STEPS = 100
"""Maximum number of Newton steps; usually 0 to 10, more if users are switched off."""

LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e12
"""Damping after the first rejected step, and damping at which an instance stops (rounding forbids a better step)."""

LONGEST_STEP = 4.0
"""Largest change of a logarithm in one step."""

LEAST_SHARE = 1e-14
"""Share of the power from which a user that is switched off starts."""

INACTIVE, RESTART = 1e-4, 1e-3
"""Share below which a step in a user's logarithm does not show its benefit, and the share from which it restarts."""

RESTART_GAIN = 0.05
"""A user is restarted if the marginal rate of its power exceeds the price of power by this share."""

PERTURBATION = 0.3
"""Size, in nats, of the step that leaves a stationary point that is not a maximum."""


class DualUplink(NamedTuple):
    """Result of each instance: shares of the uplink power [B, K], ``1/MSE`` [B, K], their weighted sum rate [B],
    whether Newton's method converged [B], and the number of steps [B]."""

    shares: Tensor
    inverse_error: Tensor
    rate: Tensor
    converged: Tensor
    steps: Tensor


class RateDerivatives(NamedTuple):
    """At logarithms of shares [B, K]: the rate [B] in nats, ``1/MSE`` [B, K], the gradient [B, K], minus the Hessian
    [B, K, K] and its natural scale [B, K]."""

    logarithms: Tensor
    rate: Tensor
    inverse_error: Tensor
    gradient: Tensor
    curvature: Tensor
    scale: Tensor


def rate_derivatives(gram: Tensor, weights: Tensor, logarithms: Tensor) -> RateDerivatives:
    """The rate and its derivatives in the logarithms x of the powers, for powers that are scaled to a sum of one.

    With shares ``s = softmax(x)`` and ``B = (I + S^1/2 H H^H S^1/2)^-1``, the errors of the linear MMSE receivers are
    the diagonal of B, and the rate is ``-sum a_k log B_kk``. Derivatives in log s, with ``R_kj = |B_kj|^2 / B_kk``::

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
    return RateDerivatives(logarithms, rate, error.reciprocal(), gradient - shares * price, curvature, scale)


def errors(gram: Tensor, shares: Tensor) -> Tensor:
    """``B = (I + S^1/2 H H^H S^1/2)^-1`` [B, K, K] at shares [B, K] of the power; its diagonal has the MMSE errors."""
    root = shares.sqrt()
    scaled = gram * (root.unsqueeze(-1) * root.unsqueeze(-2))
    return loaded_inverse(scaled, 1 + 4 * torch.finfo(root.dtype).eps * own(scaled).real)


def newton(gram: Tensor, weights: Tensor, shares: Tensor, tolerance: float = 1e-8) -> DualUplink:
    """A local maximum of the weighted sum rate from shares [B, K] of the uplink power, in double precision.

    gram     ``H H^H`` [B, K, K] in units of noise over power.
    weights  [B, K].
    shares   [B, K], scaled to a sum of one; users that are off start with `LEAST_SHARE`.

    Newton steps never decrease the rate. An instance has converged when the expected gain of the next step (which is
    still taken) is at most the share `tolerance` of its rate, and the Hessian is that of a maximum. Saddle points,
    where users have equal channels, are left by a perturbation in favour of the first of them. Users that were switched
    off too early get power again. Slow progress is not taken for convergence, because the expected gain is that of a
    whole Newton step.
    """
    gram, weights, shares = gram.to(torch.complex128), weights.double(), shares.double()
    shares = shares / shares.sum(-1, keepdim=True)
    where, K = torch.arange(len(gram), device=gram.device), gram.shape[-1]
    found = DualUplink(shares, torch.ones_like(shares), shares[:, 0] * 0, where < 0, torch.zeros_like(where))
    here = rate_derivatives(gram, weights, shares.clamp_min(LEAST_SHARE).log())
    damping = torch.zeros_like(here.rate)
    perturbation = PERTURBATION * torch.linspace(1, -1, K, dtype=weights.dtype, device=gram.device)
    for count in range(STEPS + 1):
        step, convex = ascent(here, damping)
        expected = (step * here.gradient).sum(-1)
        flat = ~(expected.abs() > tolerance * here.rate)
        stuck = flat & ~convex & (damping < MOST_DAMPING) & (here.rate > 0)  # a saddle point
        more, restarts = restart_step(here)
        restarts = restarts & flat & (damping < MOST_DAMPING)
        stuck = stuck | restarts
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
            more, restarts = more[left], restarts[left]
        step = torch.where(stuck.unsqueeze(-1), perturbation, step)
        step = torch.where(restarts.unsqueeze(-1), more, step)
        tried = rate_derivatives(gram, weights, here.logarithms + step)
        better = tried.rate >= here.rate - 1e-13 * here.rate.abs()
        here = batching.where(better | stuck, tried, here)
        relaxed = torch.where(damping > LEAST_DAMPING, damping / 10, 0)
        damping = torch.where(better | stuck, relaxed, (10 * damping).clamp_min(LEAST_DAMPING))
    return found


def restart_step(here: RateDerivatives) -> tuple[Tensor, Tensor]:
    """The step [B, K] that gives power to the inactive user with the greatest gain, and whether it should be taken."""
    log_share = torch.log_softmax(here.logarithms, -1)
    excess = torch.where(log_share < math.log(INACTIVE), here.gradient / here.scale, -torch.inf)
    which = torch.nn.functional.one_hot(excess.argmax(-1), excess.shape[-1])
    return which * (math.log(RESTART) - log_share), excess.amax(-1) > RESTART_GAIN


def ascent(here: RateDerivatives, damping: Tensor) -> tuple[Tensor, Tensor]:
    """The damped Newton step [B, K], and whether the damped curvature is positive definite [B] (else it is shifted)."""
    root = here.scale.sqrt()
    normal = here.curvature / (root.unsqueeze(-1) * root.unsqueeze(-2)) + 1  # 1: a common shift changes nothing
    eye = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
    factor, failed = torch.linalg.cholesky_ex(normal + (damping + 1e-12)[:, None, None] * eye)
    convex = failed == 0
    if not convex.all():
        least = torch.linalg.eigvalsh(torch.where(torch.isfinite(normal), normal, 0))[:, 0]
        increased = torch.where(convex, damping + 1e-12, damping - 1.5 * least.clamp_max(0) + 1e-3)
        factor, _ = torch.linalg.cholesky_ex(normal + increased[:, None, None] * eye)
    step = torch.cholesky_solve((here.gradient / root).unsqueeze(-1), factor).squeeze(-1) / root
    off = torch.log_softmax(here.logarithms, -1) < math.log(LEAST_SHARE)  # only rounding is left there
    return torch.where(off, 0, step.clamp(-LONGEST_STEP, LONGEST_STEP)), convex
