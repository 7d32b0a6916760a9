"""Sum rate under a prescribed fairness: methods with one scalar, the more of which the fairer.

The scalar may be a setting. Else it is found: for a `MeanJainAtLeast` the one least value with which a whole batch
meets it, for a `JainAtLeast` the least value of each instance by itself. Every instance is then solved alone with it.
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

ZOOM = 8
"""Times that the steps around the best point of a grid are halved where no point is enough."""

STEPS = 60
"""Evaluations at most between two values that enclose what is looked for; 4 to 8 are usual."""

SAMPLE = 128
"""Instances, evenly spaced in a batch, on which the scalar is roughly found before all of them are asked."""

NEAR = (0.93, 1.07)
"""Shares of that between which it is looked for first."""

PIECE = 1024
"""Instances solved at once while the scalar is looked for."""


def fair(*powers: type[Constraint]) -> tuple[Capability, ...]:
    """Sum rate on one transmitter under each of these power constraints and either constraint on fairness."""
    kinds = (MeanJainAtLeast, JainAtLeast)
    return tuple(Capability(SumRate, (Form.BROADCAST,), needs=(power, kind)) for power in powers for kind in kinds)


def alike(problem: Problem, network: Network) -> bool:
    """Whether no fairness is asked for, or all rates weigh the same; `ShapeError` for weights that cannot be."""
    if problem.find(Jain) is None or not isinstance(problem.maximise, SumRate):
        return True
    weights = problem.maximise.bind(network).weights
    return bool((weights == weights.reshape(-1)[0]).all())


class FairnessSolver(Solver):
    """Base of the methods with a scalar that trades the sum rate for fairness.

    A method supplies `solve_at`, the attribute (and setting) named by `parameter`, None where it is to be found, and

    parameter  the scalar's name, under which ``Solution.info`` has it, [...].
    grid       values of the parameter from the least to the largest, tried in turn until one is fair enough.
    neutral    its value where a problem asks for no fairness.
    accuracy   of the fairness found, which is never below what is asked for.

    Raises `ConfigError` for a mean that no value reaches, with the largest that can be met. An instance that cannot
    reach a limit of its own is infeasible.
    """

    parameter: ClassVar[str]
    grid: ClassVar[Sequence[float]]
    neutral: ClassVar[float] = 0.0
    accuracy: ClassVar[float] = 1e-4

    def solve_at(self, problem: Problem, observation: Observation, parameter: Tensor, start: Tensor | None) -> Solution:
        """Solve [B, ...] instances with the scalar [B], each alone."""
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
            found = least(
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
        """The least scalar [1] with which the mean over the instances that have a channel is at least the limit [B].

        An instance whose rates are no numbers does not count either.
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
            """Over all instances, or one in so many."""
            some = slice(None, None, every)
            asked, given = batching.take((problem, observation), some)
            begun = None if start is None else start[some]
            size = len(given.network.noise)

            def mean(parameter: Tensor) -> Tensor:
                return self.jain(asked, given, parameter.expand(size), begun).double().nanmean().to(limit).unsqueeze(0)

            return least(mean, limit[:1], grid, accuracy)

        every = -(-int(heard.sum()) // SAMPLE)
        rough = search(self.grid, every, 20 * self.accuracy).parameter.item() if every > 1 else self.grid[0]
        near = [limit.new_tensor(rough * share).item() for share in NEAR]  # numbers that this precision has
        near = [value for value in near if self.grid[0] < value < self.grid[-1]]
        found = [search([*near, *(point for point in self.grid if point > max(near))])] if near else []
        if not (found and found[0].met.all() and found[0].parameter.item() > 1.001 * min(near)):  # the sample misled
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
        """Jain's index [B] of what is found with the scalar [B]."""
        found = []
        for first in range(0, len(parameter), PIECE):
            piece = slice(first, first + PIECE)
            part = batching.take((problem, observation, parameter), piece)
            W = self.solve_at(*part, None if start is None else start[piece]).W
            found.append(jain_index(part[1].network.rate(W)))
        return torch.cat(found)


class Found(NamedTuple):
    """The scalar [M]; whether it is enough [M]; and the largest fairness that was seen [M]."""

    parameter: Tensor
    met: Tensor
    best: Tensor


def least(fairness: Callable[[Tensor], Tensor], target: Tensor, grid: Sequence[float], accuracy: float) -> Found:
    """The least scalar [M], nearly, with which the fairness [M] is at least the target [M].

    Up the grid until it is, or, where no point is enough, closer and closer to the best of them; then false position
    between the last two values, halving the weight of an end that stays (the Illinois rule) and the interval where that
    is slow. Each entry is looked for by itself, and the derivatives are those of the root.

    >>> least(lambda x: x**2, torch.tensor([0.25, 2.0]), (0.0, 1.0), 1e-6).met
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
        between = ~(above >= target) & (best > above + accuracy)  # and not at the last point
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
    """A place [M] on a grid, counted in points, where the fairness is largest, and that; or where it is enough.

    place, best  the best point, and how fair it is.
    """
    for halved in range(1, ZOOM + 1):
        for side in (-1, 1):
            guess = (place + side / 2**halved).clamp(0, len(grid) - 1)
            value = fairness(grid_at(grid, guess))
            better = (value > best) & ~(best >= target)
            place, best = torch.where(better, guess, place), torch.where(better, value, best)
    return place, best


def grid_at(grid: Sequence[float], place: Tensor) -> Tensor:
    """Values [M] at places [M] on a grid, evenly spaced between two points."""
    points, lower = place.new_tensor(grid), place.floor().clamp(0, len(grid) - 2)
    return torch.lerp(points[lower.long()], points[lower.long() + 1], place - lower)


def with_derivatives(fairness: Callable[[Tensor], Tensor], root: Tensor, active: Tensor) -> Tensor:
    """A root [M] with the derivatives it has as one, where it is `active`: ``d root = -d fairness / slope``."""
    value = fairness(root)
    if not value.requires_grad:
        return root
    step = torch.finfo(root.dtype).eps ** (1 / 3) * root.abs().clamp_min(1)
    with torch.no_grad():
        slope = (fairness(root + step) - fairness(root - step)) / (2 * step)
    change = (value.detach() - value) / torch.where(slope > 0, slope, torch.inf)
    return root + torch.where(active, change, 0)
