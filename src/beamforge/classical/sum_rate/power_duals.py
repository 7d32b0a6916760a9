"""Dual variables (prices) of power limits, for problems with a cost that is quadratic in the beams.

The dual problem is to minimise, over prices ``lambda >= 0`` of the limits ::

    value(G^T lambda) + sum_g lambda_g limit_g

where `value` is convex in the prices of the units (antennas or transmitters); its gradient is minus their powers.

Source: Newton's method on power^-1/2 as for trust regions, J. Moré, D. Sorensen, SIAM J. Sci. Stat. Comput. 4 (1983),
section 3, projected as by D. Bertsekas, SIAM J. Control Optim. 20 (1982); the barrier method of Y. Nesterov,
A. Nemirovskii, "Interior-point polynomial algorithms in convex programming", SIAM, 1994, chapter 5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.power_limits import limit_groups
from beamforge.core import batching
from beamforge.core.constraints import PerAntennaPower
from beamforge.core.problem import Problem

STEPS = 100
"""Maximum number of Newton steps; usually 3 to 15."""

LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e12
"""Damping after the first rejected step, and damping at which an instance stops (rounding forbids a better step)."""

GAP = 1e-10
"""Final weight of the barrier (slack times price), as a share of the mean over the limits of price times limit."""

LATE = 6
"""Maximum number of barrier steps at the final weight: rounding may forbid more accuracy."""


class Limits(NamedTuple):
    """Power limits on groups of units: groups [B, G, U] of zeros and ones, bound [B, G] watts.

    The U units are the T transmitters, or their T N antennas if there are limits on antennas.
    """

    groups: Tensor
    bound: Tensor

    @classmethod
    def of(cls, problem: Problem, transmitters: int, antennas: int) -> Limits:
        """The limits of a bound problem; the units are transmitters if no antenna is limited."""
        finest = antennas if problem.find(PerAntennaPower) else 1
        groups, bound = limit_groups(problem, transmitters, finest)
        return cls(groups.flatten(1).expand(len(bound), -1, -1), bound)

    @property
    def separate(self) -> bool:
        """Whether there is one limit for each unit, in order."""
        G, U = self.groups.shape[-2:]
        return G == U and bool((self.groups == torch.eye(U, device=self.groups.device)).all())

    def load(self, power: Tensor) -> Tensor:
        """Power of each group [B, G] from the powers of the units [B, U]."""
        return (self.groups @ power.unsqueeze(-1)).squeeze(-1)

    def spread(self, prices: Tensor) -> Tensor:
        """Price of each unit [B, U]: the sum of the prices [B, G] of its groups."""
        return (self.groups.mT @ prices.unsqueeze(-1)).squeeze(-1)

    def curvature(self, slope: Tensor) -> Tensor:
        """Second derivatives [B, G, G] of the value in the prices of groups, from those in the prices of units."""
        return self.groups @ slope @ self.groups.mT


class PowerResponse(NamedTuple):
    """The optimum at given prices of the units: value [B], power [B, U], and ``-d power / d price`` [B, U, U]."""

    value: Tensor
    power: Tensor
    slope: Tensor


class PowerDuals(NamedTuple):
    """Optimal prices [B, G], and data for their derivatives: ``curvature d price = d load`` on the `active` limits."""

    prices: Tensor
    target: Tensor
    curvature: Tensor
    active: Tensor

    def corrected(self, load: Tensor, bound: Tensor) -> Tensor:
        """A Newton step [B, G] of the prices: zero up to rounding, with the derivatives of the solution."""
        right = torch.where(self.active, load - bound - (self.target - bound).detach(), 0)
        return torch.linalg.solve_ex(self.curvature, right.unsqueeze(-1))[0].squeeze(-1)


ResponseTo = Callable[[Tensor], PowerResponse]


def projected_newton(at: ResponseTo, limits: Limits, prices: Tensor) -> PowerDuals:
    """Optimal prices [B, G] from a guess, in few steps; beams must be bounded at zero prices.

    Undamped steps are Newton steps for ``load^-1/2``, which is nearly linear in the price. After a step that increases
    the cost, the step for the load itself is tried with more and more damping (in the limit a gradient step).
    """
    tolerance = torch.finfo(prices.dtype).eps ** 0.5  # `corrected` adds one more step, which squares the error
    rounding = 8 * torch.finfo(prices.dtype).eps
    response = at(limits.spread(prices))
    cost = response.value + (prices * limits.bound).sum(-1)
    damping = torch.zeros_like(cost)
    for _ in range(STEPS):
        load = limits.load(response.power)
        excess = load / limits.bound - 1
        free = (prices > 0) | (excess > 0)
        worst = torch.where(prices > 0, excess.abs(), excess).amax(-1)
        going = (worst > tolerance) & (damping < MOST_DAMPING)  # false for NaN
        if not going.any():
            break
        undamped = 2 * load * (torch.where(free, load / limits.bound, 1).sqrt() - 1)
        right = torch.where((damping > 0).unsqueeze(-1), load - limits.bound, undamped)
        curvature = restricted(limits.curvature(response.slope), free, damping)
        step = torch.linalg.solve_ex(curvature, torch.where(free, right, 0).unsqueeze(-1))[0].squeeze(-1)
        candidate = (prices + step).clamp_min(0)
        tried = at(limits.spread(candidate))
        tried_cost = tried.value + (candidate * limits.bound).sum(-1)
        better = going & (tried_cost <= cost + rounding * cost.abs())
        prices, response, cost = batching.where(better, (candidate, tried, tried_cost), (prices, response, cost))
        relaxed = torch.where(damping > LEAST_DAMPING, damping / 10, 0)
        damping = torch.where(better, relaxed, torch.where(going, (10 * damping).clamp_min(LEAST_DAMPING), damping))
    active = prices > 0
    curvature = restricted(limits.curvature(response.slope), active, torch.zeros_like(cost))
    return PowerDuals(prices, limits.bound, curvature, active)


def separate_newton(at: ResponseTo, limits: Limits, prices: Tensor) -> PowerDuals:
    """Optimal prices [B, U] of separate limits on units whose powers do not depend on each other's prices.

    Newton's method for ``power_u^-1/2 = limit_u^-1/2``, whose left side is concave in the price: from the second step
    on, prices increase to the solution, so no step has to be tested.
    """
    tolerance = torch.finfo(prices.dtype).eps ** 0.5  # as in `projected_newton`
    for _ in range(STEPS):
        response = at(prices)
        ratio = response.power / limits.bound
        going = torch.where(prices > 0, (ratio - 1).abs(), ratio - 1) > tolerance  # false for NaN
        if not going.any():
            break
        slope = torch.diagonal(response.slope, dim1=-2, dim2=-1)
        step = 2 * response.power * (ratio.sqrt() - 1) / torch.where(slope > 0, slope, 1)
        candidate = torch.where(slope > 0, prices + step, 0)  # 0 for a unit that has nothing to send
        prices = torch.where(going, candidate.clamp_min(0), prices)
    active = prices > 0
    return PowerDuals(prices, limits.bound, restricted(response.slope, active, torch.zeros_like(prices[:, 0])), active)


def restricted(curvature: Tensor, free: Tensor, damping: Tensor) -> Tensor:
    """The curvature of the `free` limits alone (identity for the others), with its diagonal scaled by 1 + `damping`."""
    curvature = curvature * (free.unsqueeze(-1) & free.unsqueeze(-2))
    diagonal = torch.diagonal(curvature, dim1=-2, dim2=-1)
    added = diagonal * (damping.unsqueeze(-1) + 16 * torch.finfo(diagonal.dtype).eps)
    return curvature + torch.diag_embed(torch.where(diagonal > 0, added, 1))


def barrier(at: ResponseTo, limits: Limits, prices: Tensor, least: Tensor) -> PowerDuals:
    """Prices [B, G] from a guess, also if beams are unbounded at zero prices; `least` [B, G] is far below all prices.

    Newton's method on ``value + sum lambda limit - tau sum log lambda``, which is self-concordant, with tau decreasing
    as fast as the steps allow. Beams are strictly within the limits; their cost exceeds the optimum by at most G tau.
    For a limit that is not reached, the curvature of its term is taken as ``(limit - load) / lambda``, as in
    primal-dual methods: then its price ``tau / (limit - load)`` is reached in one step.
    """
    prices = prices.maximum(least).maximum(1e-6 * prices.amax(-1, keepdim=True))
    worth = (prices * limits.bound).mean(-1)
    tau, end = worth / 10, torch.maximum(GAP * worth, (least * limits.bound).amax(-1))
    tau = torch.maximum(tau, end)
    tolerance = torch.finfo(prices.dtype).eps ** 0.5
    late = torch.zeros_like(tau)
    for _ in range(STEPS):
        response = at(limits.spread(prices))
        load = limits.load(response.power)
        slack = tau.unsqueeze(-1) / prices
        spare = (limits.bound - load).maximum(slack)
        curvature = limits.curvature(response.slope) + torch.diag_embed(spare / prices)
        scaled = curvature * prices.unsqueeze(-1) * prices.unsqueeze(-2)
        right = (load - limits.bound + slack) * prices
        step = torch.linalg.solve_ex(scaled, right.unsqueeze(-1))[0].squeeze(-1)
        step = step.clamp_min(-0.999)
        follows = (spare > 2 * slack) & (step < 0)
        size = torch.where(follows, 0, step.abs()).amax(-1)
        ended = tau <= end
        late = late + ended
        going = ~(ended & ((step.abs().amax(-1) < tolerance) | (late > LATE))) & torch.isfinite(size)
        if not going.any():
            break
        length = torch.where(size < 0.5, 1, 1 / (1 + size))
        prices = torch.where(going.unsqueeze(-1), prices * (1 + length.unsqueeze(-1) * step), prices)
        shrink = torch.where(size < 0.5, size.clamp(1e-4, 0.1), 1)
        tau = torch.where(going, torch.maximum(tau * shrink, end), tau)
    return PowerDuals(prices, limits.bound - slack, curvature, torch.ones_like(prices, dtype=torch.bool))
