"""Concave maximisation over the probability simplex, with a certificate, by a primal-dual interior-point method.

``max f(x)  subject to  x >= 0, sum x = 1``. A concave f lies below its tangents, so at any point x, optimal or not,

    max f  <=  f(x) + max_k g_k - sum_k x_k g_k,        g = grad f(x).

This bound is returned; it is valid wherever the iteration stops.

Source: S. Boyd, L. Vandenberghe, "Convex Optimization" (2004), Sec. 11.7 (the iteration), Sec. 5.5.1 (the certificate).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from beamforge.core import batching

CENTRING = 0.1
"""Centring parameter: each step aims at this share of the current mean complementarity product."""


class Maximum(NamedTuple):
    """An upper bound [n] on the maximum, and the point x [n, K] whose tangent proves it."""

    bound: Tensor
    x: Tensor


Concave = Callable[[Any, Tensor], tuple[Tensor, Tensor, Tensor]]
"""A concave function: (data, x [n, K]) -> value [n], gradient [n, K], curvature [n, K, K] (minus the Hessian)."""


def simplex_maximum(function: Concave, data: Any, x: Tensor, tolerance: Tensor, max_iterations: int = 50) -> Maximum:
    """Upper bounds on n maxima, each within `tolerance` [n] unless `max_iterations` or the precision is reached first.

    function   the concave functions of x and `data`, a tree of [n, ...] tensors; finished ones are dropped.
    x          the start [n, K], positive with sum one.

    >>> linear = lambda data, x: ((data * x).sum(-1), data, torch.zeros(1, 2, 2))
    >>> found = simplex_maximum(linear, torch.tensor([[1.0, 3.0]]), torch.full((1, 2), 0.5), torch.tensor([1e-6]))
    >>> torch.round(found.bound, decimals=4), bool(found.x.sum() == 1)
    (tensor([3.]), True)
    """
    value, gradient, curvature = function(data, x)
    gap = duality_gap(x, gradient)
    out = Maximum(value + gap, x)
    slack = gradient.amax(-1, keepdim=True) - gradient + gap.clamp_min(torch.finfo(x.dtype).tiny).unsqueeze(-1)
    where = torch.arange(len(x), device=x.device)
    for _ in range(max_iterations):
        running = gap > tolerance
        if not running.any():
            break
        if 4 * running.sum() <= 3 * len(running):
            rest = (data, where, tolerance, x, slack, gradient, curvature)
            data, where, tolerance, x, slack, gradient, curvature = batching.take(rest, running)
            running = running[running]
        x, slack = newton(x, slack, gradient, curvature)
        value, gradient, curvature = function(data, x)
        gap = duality_gap(x, gradient)
        better = running & (value + gap < out.bound[where])
        out = batching.put(out, where[better], Maximum((value + gap)[better], x[better]))
    return out


def duality_gap(x: Tensor, gradient: Tensor) -> Tensor:
    """Maximum of the tangent at x over the simplex, minus its value at x [n]: ``max_k g_k - sum_k x_k g_k``."""
    return (gradient.amax(-1) - (x * gradient).sum(-1)).clamp_min(0)


def newton(x: Tensor, slack: Tensor, gradient: Tensor, curvature: Tensor) -> tuple[Tensor, Tensor]:
    """One damped Newton step on ``gradient + slack = level``, ``x slack = CENTRING mean(x slack)``, ``sum x = 1``."""
    target = CENTRING * (x * slack).mean(-1, keepdim=True)
    root = x.sqrt()
    system = root.unsqueeze(-1) * curvature * root.unsqueeze(-2) + torch.diag_embed(slack)
    factor, _ = torch.linalg.cholesky_ex(system)
    right = torch.stack([root * gradient + target / root, root], -1)
    free, along = (torch.cholesky_solve(right, factor) * root.unsqueeze(-1)).unbind(-1)
    step = free - along * (free.sum(-1, keepdim=True) / along.sum(-1, keepdim=True))
    slack_step = (target - slack * step) / x - slack
    x = x + step_length(x, step) * step
    return x / x.sum(-1, keepdim=True), slack + step_length(slack, slack_step) * slack_step


def step_length(x: Tensor, step: Tensor) -> Tensor:
    """The largest multiple of a step, at most one, that leaves at least five percent of every entry of x."""
    return (0.95 * torch.where(step < 0, -x / step, torch.inf).amin(-1, keepdim=True)).clamp_max(1)
