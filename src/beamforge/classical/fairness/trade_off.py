"""Sum rate under a prescribed fairness: methods with one scalar parameter that trades sum rate for fairness.

The parameter may be a setting. Otherwise it is found: for `MeanJainAtLeast` the least value with which the whole batch
meets the constraint, for `JainAtLeast` the least value for each instance. Then every instance is solved independently.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from beamforge.core import batching
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import Constraint, Jain, JainAtLeast, MeanJainAtLeast, jain_index
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.core.utilities import SumRate

HALVINGS = 8
"""Number of times that the step around the best grid point is halved if no grid point is fair enough."""

STEPS = 60
"""Maximum number of evaluations to find the parameter in a bracket; usually 4 to 8."""

SAMPLE = 128
"""Number of instances, evenly spaced in a batch, from which a first estimate of the parameter is found."""

NEAR = (0.93, 1.07)
"""The bracket that is tried first, relative to that estimate."""

CHUNK = 1024
"""Instances solved at once during the search."""


def fairness_capabilities(*powers: type[Constraint]) -> tuple[Capability, ...]:
    """Capabilities for the sum rate on one transmitter, for each of these power constraints and both of fairness."""
    kinds = (MeanJainAtLeast, JainAtLeast)
    return tuple(Capability(SumRate, (Form.BROADCAST,), needs=(power, kind)) for power in powers for kind in kinds)


def equal_weights(problem: Problem, network: Network) -> bool:
    """Whether the problem has no fairness constraint or equal weights; `ShapeError` for weights that do not fit."""
    if problem.find(Jain) is None or not isinstance(problem.maximise, SumRate):
        return True
    weights = problem.maximise.bind(network).weights
    return bool((weights == weights.reshape(-1)[0]).all())


class FairnessSolver(Solver):
    """Base of the methods with a scalar parameter that trades the sum rate for fairness.

    A method supplies `solve_at`, an attribute (and setting) with the name `parameter` (None: to be found), and

    parameter  the name of the parameter, also in ``Solution.info``, [...].
    grid       values of the parameter in ascending order, tried in turn until one is fair enough.
    neutral    its value for a problem without a fairness constraint.
    accuracy   largest excess of the fairness over the required one; it is never below.

    Raises `ConfigError` if no value reaches the required mean, with the largest mean that can be met. An instance that
    cannot reach its own limit is infeasible.
    """

    parameter: ClassVar[str]
    grid: ClassVar[Sequence[float]]
    neutral: ClassVar[float] = 0.0
    accuracy: ClassVar[float] = 1e-4

    def solve_at(self, problem: Problem, observation: Observation, parameter: Tensor, start: Tensor | None) -> Solution:
        """Solve [B, ...] instances independently, with parameters [B]."""
        raise NotImplementedError

    def fitted(self, problem: Problem, instance: Instance | Observation | Network) -> Solver:
        if getattr(self, self.parameter) is not None or problem.find(MeanJainAtLeast) is None:
            return self
        fixed = copy.copy(self)
        setattr(fixed, self.parameter, self.solve(problem, instance).info[self.parameter].reshape(-1)[0].item())
        return fixed

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        like, setting = observation.network.noise[:, 0], getattr(self, self.parameter)
        flaw = torch.full_like(like, int(Status.CONVERGED), dtype=torch.long)
        if setting is not None:
            parameter = torch.full_like(like, setting)
        elif mean := problem.find(MeanJainAtLeast):
            parameter = self.for_the_mean(mean.limit, problem, observation, start).expand_as(like)
        elif each := problem.find(JainAtLeast):
            found = least_parameter(
                lambda parameter: self.jain(problem, observation, parameter, start),
                each.limit,
                self.grid,
                self.accuracy,
            )
            parameter = found.parameter
            unmet = torch.where(found.best.isnan(), int(Status.NUMERICAL_FAILURE), int(Status.INFEASIBLE))
            flaw = torch.where(found.met, flaw, unmet)
        else:
            parameter = torch.full_like(like, self.neutral)
        solution = self.solve_at(problem, observation, parameter, start)
        return replace(
            solution, status=solution.status.maximum(flaw), info={**solution.info, self.parameter: parameter}
        )

    def for_the_mean(self, limit: Tensor, problem: Problem, observation: Observation, start: Tensor | None) -> Tensor:
        """The least parameter [1] with which the mean fairness over all instances is at least the limit [B].

        Instances without a channel or with NaN rates do not count.
        """
        if (limit != limit[0]).any():
            least_of, largest = (each.item() for each in limit.aminmax())
            came = f"numbers from {least_of:g} to {largest:g}"
            raise ConfigError(f"jain must be one number for the mean over a batch, got {came}")
        heard = observation.network.H.flatten(1).ne(0).any(-1)
        if not heard.any():
            return limit.new_full((1,), self.grid[0])
        problem, observation = batching.take((problem, observation), heard)
        start = None if start is None else start[heard]

        def search(grid: Sequence[float], every: int = 1, accuracy: float = self.accuracy) -> Found:
            """Search with all instances, or with one of `every` instances."""
            some = slice(None, None, every)
            asked, given = batching.take((problem, observation), some)
            begun = None if start is None else start[some]
            size = len(given.network.noise)

            def mean(parameter: Tensor) -> Tensor:
                return self.jain(asked, given, parameter.expand(size), begun).double().nanmean().to(limit).unsqueeze(0)

            return least_parameter(mean, limit[:1], grid, accuracy)

        every = -(-int(heard.sum()) // SAMPLE)
        rough = search(self.grid, every, 20 * self.accuracy).parameter.item() if every > 1 else self.grid[0]
        near = [limit.new_tensor(rough * share).item() for share in NEAR]  # rounded to the precision
        near = [value for value in near if self.grid[0] < value < self.grid[-1]]
        found = [search([*near, *(point for point in self.grid if point > max(near))])] if near else []
        if not (found and found[0].met.all() and found[0].parameter.item() > 1.001 * min(near)):  # wrong estimate
            found.insert(0, search(self.grid))
        for each in found:
            if each.met.all():
                return each.parameter
        best = max(each.best.item() for each in found)
        if math.isnan(best):
            return limit.new_full((1,), self.grid[0])
        most = math.floor(1e5 * best) / 1e5
        name = f"the largest mean that {type(self).__name__} reaches on these channels"
        raise ConfigError(f"jain must be at most {most:g}, {name}, got {limit[0].item():g}")

    def jain(self, problem: Problem, observation: Observation, parameter: Tensor, start: Tensor | None) -> Tensor:
        """Jain's index [B] of the solutions with the parameters [B]."""
        found = []
        for first in range(0, len(parameter), CHUNK):
            piece = slice(first, first + CHUNK)
            part = batching.take((problem, observation, parameter), piece)
            W = self.solve_at(*part, None if start is None else start[piece]).W
            found.append(jain_index(part[1].network.rate(W)))
        return torch.cat(found)


class Found(NamedTuple):
    """The parameter [M]; whether it meets the target [M]; and the largest fairness found [M]."""

    parameter: Tensor
    met: Tensor
    best: Tensor


def least_parameter(
    fairness: Callable[[Tensor], Tensor], target: Tensor, grid: Sequence[float], accuracy: float
) -> Found:
    """The (nearly) least parameter [M] with which the fairness [M] is at least the target [M].

    The grid is searched in ascending order; if no point meets the target, around its best point with smaller and
    smaller steps. Then false position between the last two values, with the Illinois rule, and bisection where that is
    slow. The search is independent for each entry, and the derivatives are those of the root.

    >>> least_parameter(lambda x: x**2, torch.tensor([0.25, 2.0]), (0.0, 1.0), 1e-6).met
    tensor([ True, False])
    """
    with torch.no_grad():
        low = high = torch.full_like(target, grid[0])
        below = above = best = fairness(low)
        place = torch.zeros_like(low)
        for step, point in enumerate(grid[1:], 1):
            short = ~(above >= target)
            if not short.any():
                break
            low, below = torch.where(short, high, low), torch.where(short, above, below)
            high = torch.where(short, point, high)
            above = torch.where(short, fairness(high), above)
            place, best = torch.where(above > best, step, place), best.maximum(above)
        between = ~(above >= target) & (best > above + accuracy)  # the best point is not the last one
        if between.any():
            place, best = largest_fairness(fairness, target, grid, place, best)
            found = between & (best >= target)
            foot = grid_at(grid, place.ceil() - 1)
            low, below = torch.where(found, foot, low), torch.where(found, fairness(foot), below)
            high, above = torch.where(found, grid_at(grid, place), high), torch.where(found, best, above)
        met, inside = above >= target, high > low
        rounding = 4 * torch.finfo(target.dtype).eps
        narrow = max(rounding, accuracy / 100)
        aim = target + accuracy / 2
        light_low, light_high, width = torch.ones_like(low), torch.ones_like(low), high - low
        for step in range(STEPS):
            going = met & (above > target + max(accuracy, rounding)) & (high - low > narrow * high)
            if not going.any():
                break
            lift, drop = light_high * (above - aim).abs(), light_low * (below - aim).abs()
            guess = low + (high - low) * (drop / (lift + drop)).nan_to_num(0.5).clamp(0.01, 0.99)
            slow = (step % 3 == 2) & (high - low > width / 4)
            if step % 3 == 2:
                width = high - low
            guess = torch.where(going, torch.where(slow, (low + high) / 2, guess), high)
            value = fairness(guess)
            enough = value >= target
            light_low = torch.where(enough, light_low / 2, 1)
            light_high = torch.where(enough, 1, light_high / 2)
            high, above = (torch.where(going & enough, new, old) for new, old in ((guess, high), (value, above)))
            low, below = (torch.where(going & ~enough, new, old) for new, old in ((guess, low), (value, below)))
    if torch.is_grad_enabled():
        high = with_derivatives(fairness, high, met & inside)
    return Found(high, met, best)


def largest_fairness(
    fairness: Callable[[Tensor], Tensor], target: Tensor, grid: Sequence[float], place: Tensor, best: Tensor
) -> tuple[Tensor, Tensor]:
    """A fractional index [M] on the grid where the fairness is largest (or meets the target), and this fairness [M].

    place, best  index of the best grid point, and its fairness.
    """
    for halved in range(1, HALVINGS + 1):
        for side in (-1, 1):
            guess = (place + side / 2**halved).clamp(0, len(grid) - 1)
            value = fairness(grid_at(grid, guess))
            better = (value > best) & ~(best >= target)
            place, best = torch.where(better, guess, place), torch.where(better, value, best)
    return place, best


def grid_at(grid: Sequence[float], place: Tensor) -> Tensor:
    """Values [M] at fractional indices [M] of a grid, by linear interpolation."""
    points, lower = place.new_tensor(grid), place.floor().clamp(0, len(grid) - 2)
    return torch.lerp(points[lower.long()], points[lower.long() + 1], place - lower)


def with_derivatives(fairness: Callable[[Tensor], Tensor], root: Tensor, active: Tensor) -> Tensor:
    """A root [M] with its implicit derivatives where it is `active`: ``d root = -d fairness / slope``."""
    value = fairness(root)
    if not value.requires_grad:
        return root
    step = torch.finfo(root.dtype).eps ** (1 / 3) * root.abs().clamp_min(1)
    with torch.no_grad():
        slope = (fairness(root + step) - fairness(root - step)) / (2 * step)
    change = (value.detach() - value) / torch.where(slope > 0, slope, torch.inf)
    return root + torch.where(active, change, 0)
