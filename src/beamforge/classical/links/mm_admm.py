"""Weighted sum rate of links under one total power, by majorisation-minimisation and ADMM.

Source: S. Chen, C. W. Tan, "Neural sum rate maximization for AI-native wireless networks", NetAISys (2024), Algorithm 1
and Eqs. 5 to 11, in nats and powers. Here rates are bit/s/Hz, and powers shares of the total.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.links.starts import spread
from beamforge.classical.links.wmmse import CAPABILITIES, SharedPower, attached
from beamforge.core import batching
from beamforge.core.errors import ConfigError
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.optim.iterate import Outcome
from beamforge.optim.starts import SeveralStarts

POWER, LINKS = 1.85, 3
"""Total power and number of links for which the penalty is stated, those of the source's example."""

MOST = 10_000
"""Steps of an inner loop at most."""

SLACK = 0.1
"""A loop is solved to this share of what the loop around it moved last, and not further."""


class Splitting(NamedTuple):
    """State: shares p, their copies z that keep the limit, scaled multipliers mu [B, L]; how far p moved last [B].

    And how many steps of ADMM and of the fixed point there have been [B].
    """

    p: Tensor
    z: Tensor
    mu: Tensor
    moved: Tensor
    admm: Tensor
    inner: Tensor


class Subproblem(NamedTuple):
    """Data of ADMM: links, weights that sum to one and ``b_l = sum_i w_i alpha_il`` [B, L], the rate there was and the
    distance between p, z and the z before at which to stop [B]."""

    links: SharedPower
    weights: Tensor
    b: Tensor
    rate: Tensor
    goal: Tensor


class MMADMM(SeveralStarts):
    """Three nested loops; O(L^2) a step of the innermost.

    Outside, with ``alpha_lj = G_lj p_j / (sum_i G_li p_i + n_l)``, the rate is replaced by a bound below it that
    touches it at p, whose maximum never has a lower rate. That is found by ADMM on ``p = z``, z within the limit::

        p  <- argmin sum_l w_l log(sum_{j != l} G_lj p_j + n_l) - sum_j b_j log p_j + beta/2 |p - z + mu|^2
        z  <- p + mu - (sum_l (p_l + mu_l) - P)+ / L
        mu <- mu + p - z

    and inside each p is the fixed point of ``p_l = b_l / (beta (p_l - z_l + mu_l) + sum_{i != l} w_i G_il / I_i)``, I
    the interference and noise at p. Both sides have p_l: it is the positive root of a quadratic, so that no denominator
    can turn negative on the way. Powers are scaled down where they exceed the limit, and ADMM goes on while their rate
    is below what it was. How fast that is depends on the penalty: a hundred times the source's is often faster.

    beta             penalty of ADMM for three links with a total power of 1.85 and weights that sum to one, as in the
                     source's example; for others scaled with the number of links over the power squared.
    starts           how many of equal powers, then `spread`'s; each instance keeps its best. A `start` replaces them.
    tolerance        of the outer loop: relative change of the rate.   max_iterations   outer steps.
    admm_tolerance   change of z and distance from p at which ADMM ends at the latest, as shares of the total power.
    inner_tolerance  change of p at which the fixed-point iteration does.

    ``info`` has the number of steps of either inner loop, ``admm_iterations`` and ``inner_iterations`` [...].

    >>> from beamforge.core.named_problems import build_problem
    >>> from beamforge.scenarios.power_control import ThreeLinks
    >>> instance = ThreeLinks().sample(1, dtype=torch.complex128)
    >>> solution = MMADMM().solve(build_problem("sum-rate", instance.context), instance)
    >>> solution.W.abs().square().squeeze(-2).round(decimals=3)
    tensor([[0.7420, 0.1910, 0.9170]], dtype=torch.float64)
    """

    capabilities = CAPABILITIES

    def __init__(
        self,
        beta: float = 0.01,
        starts: int = 1,
        tolerance: float = 1e-8,
        max_iterations: int = 1000,
        admm_tolerance: float = 1e-6,
        inner_tolerance: float = 1e-8,
    ) -> None:
        super().__init__(tolerance, max_iterations, "none", starts, "implicit")
        if not beta > 0:
            raise ConfigError(f"beta must be positive, got {beta:g}")
        if not min(admm_tolerance, inner_tolerance) >= 0:
            came = f"{admm_tolerance:g} and {inner_tolerance:g}"
            raise ConfigError(f"admm_tolerance and inner_tolerance must not be negative, got {came}")
        self.beta = beta
        self.admm_tolerance = admm_tolerance
        self.inner_tolerance = inner_tolerance

    def prepare(self, problem: Problem, observation: Observation) -> SharedPower:
        return SharedPower.of(problem, observation.network)

    def init(self, data: SharedPower, start: Tensor | None, generator: torch.Generator | None) -> Iterator[Splitting]:
        points = spread(data, self.starts, generator) if start is None else data.shares(start).unsqueeze(1)
        nothing = torch.zeros_like(data.power)
        for p in points.unbind(1):
            yield Splitting(p, p, torch.zeros_like(p), torch.ones_like(nothing), nothing, nothing)

    def step(self, data: SharedPower, state: Splitting) -> tuple[Splitting, Tensor]:
        p = state.p
        total = data.weights.sum(-1, keepdim=True)
        weights = data.weights / torch.where(total > 0, total, 1)
        b = attributed(data, weights, p)
        goal = (SLACK * state.moved).clamp_min(rounded(self.admm_tolerance, p))
        rate = rate_within(data, p)
        after = self.split(Subproblem(data, weights, b, rate, goal), state)
        return after._replace(moved=distance(after.p, p)), rate

    def split(self, data: Subproblem, state: Splitting) -> Splitting:
        """ADMM from a state, each instance to its own end."""
        out, where = state, torch.arange(len(data.b), device=data.b.device)
        goal = torch.ones_like(data.goal)
        for _ in range(MOST):
            p, count = self.fixed_point(data, state, SLACK * goal)
            z = kept(p + state.mu)
            goal = torch.maximum(distance(z, state.z), distance(p, z))
            state = Splitting(p, z, state.mu + p - z, state.moved, state.admm + 1, state.inner + count)
            fallen = rate_within(data.links, p) < data.rate
            going = (goal > data.goal) | (fallen & (goal > rounded(self.admm_tolerance, p)))  # not where it is NaN
            if not going.all():
                out = batching.put(out, where[~going], batching.take(state, ~going))
                where, data, state, goal = batching.take((where, data, state, goal), going)
            if not len(where):
                return out
        return batching.put(out, where, state)

    def fixed_point(self, data: Subproblem, state: Splitting, goal: Tensor) -> tuple[Tensor, Tensor]:
        """The powers of one step of ADMM, to within `goal` [B], and in how many steps [B]."""
        goal = goal.clamp_min(rounded(self.inner_tolerance, goal))
        beta = self.beta * POWER**2 * data.b.shape[-1] / LINKS  # like the curvature of what is split
        p, going, count = state.p, torch.ones_like(goal, dtype=torch.bool), torch.zeros_like(goal)
        for _ in range(MOST):
            price = penalised(data.links, data.weights, received_power(data.links, p))
            root = positive_root(beta, price - beta * (state.z - state.mu), data.b)
            change = distance(root, p)
            p = torch.where(going.unsqueeze(-1), root, p)
            count = count + going
            going = going & (change > goal)
            if not going.any():
                break
        return p, count

    def run(self, data: SharedPower, state: Splitting) -> Outcome:
        with torch.no_grad():
            outcome = super().run(data, state)
        p = attached(data, within(outcome.state.p))
        return outcome._replace(state=outcome.state._replace(p=p))

    def beams(self, data: SharedPower, state: Splitting) -> Tensor:
        return data.beams(within(state.p))

    def info(self, data: SharedPower, outcome: Outcome) -> dict[str, Tensor]:
        return {"admm_iterations": outcome.state.admm.long(), "inner_iterations": outcome.state.inner.long()}


def attributed(data: SharedPower, weights: Tensor, p: Tensor) -> Tensor:
    """``b_l = sum_i w_i alpha_il`` [B, L], Eq. 11: how much of all that is received is due to each link's power p."""
    share = weights / (received_power(data, p) + data.direct * p)
    return p * ((share.unsqueeze(1) @ data.cross).squeeze(1) + data.direct * share)


def received_power(data: SharedPower, p: Tensor) -> Tensor:
    """``I_l = sum_{j != l} A_lj p_j + 1`` [B, L], interference and noise at shares p [B, L]."""
    return data.interference(p.unsqueeze(1)).squeeze(1)


def penalised(data: SharedPower, weights: Tensor, noise: Tensor) -> Tensor:
    """``sum_{i != l} w_i A_il / I_i`` [B, L], Eq. 9: what a little more power of link l costs all others."""
    return ((weights / noise).unsqueeze(1) @ data.cross).squeeze(1)


def kept(p: Tensor) -> Tensor:
    """Shares [B, L], each less the same where they add up to more than one, Eq. 10; some may turn negative."""
    return p - (p.sum(-1, keepdim=True) - 1).clamp_min(0) / p.shape[-1]


def within(p: Tensor) -> Tensor:
    """Shares [B, L] scaled down where they add up to more than one."""
    return p / p.sum(-1, keepdim=True).clamp_min(1)


def rate_within(data: SharedPower, p: Tensor) -> Tensor:
    """Weighted sum rate [B] of shares [B, L] scaled down to the limit."""
    return data.rate(within(p).unsqueeze(1)).squeeze(1)


def distance(one: Tensor, other: Tensor) -> Tensor:
    """Power that two points [B, L] have elsewhere, [B]."""
    return (one - other).abs().sum(-1)


def rounded(tolerance: float, like: Tensor) -> float:
    """A tolerance that rounding allows."""
    return max(tolerance, 8 * torch.finfo(like.dtype).eps)


def positive_root(a: float, b: Tensor, c: Tensor) -> Tensor:
    """The root ``x >= 0`` of ``a x^2 + b x = c`` with a > 0, c >= 0, without cancellation."""
    root = (b.square() + 4 * a * c).sqrt()
    under = torch.where(b > 0, b + root, 1)
    return torch.where(b > 0, 2 * c / under, (root - b) / (2 * a))
