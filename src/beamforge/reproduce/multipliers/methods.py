"""Sum-rate methods with a common count of steps: beams after a given number of steps from the channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from beamforge.classical.sum_rate.reduced_wmmse import (
    HEAT,
    Multipliers,
    ReducedWMMSE,
    WhitenedChannel,
    annealed,
    from_ridge,
)
from beamforge.core.instance import Instance
from beamforge.core.problem import Problem
from beamforge.learned.multipliers.sum_rate import SumRateMultipliers

RIDGES: Mapping[str, float] = {"RZF": 1.0, "10 × ridge": 10.0, "30 × ridge": 30.0, "MRT": math.inf}
"""Classical starts of WMMSE: regularised zero forcing with a multiple of the usual ridge."""

ANNEALED = "annealed start"
"""This library's own start: 10 × ridge, then annealing, whose steps are counted."""


class SteppedMethod:
    """A method whose steps are counted; a step is an update of receivers, weights and beams."""

    @property
    def min_steps(self) -> int:
        """Least number of steps that the method can take."""
        raise NotImplementedError

    def beams(self, problem: Problem, instance: Instance, steps: int) -> Tensor:
        """W [B, N, K] after `steps` steps; the problem is bound to the instance."""
        raise NotImplementedError


@dataclass(frozen=True)
class Wmmse(SteppedMethod):
    """Reduced WMMSE from one of `RIDGES` or `ANNEALED`, plain or accelerated."""

    start: str
    acceleration: str = "none"

    @property
    def min_steps(self) -> int:
        return 1 + (self.acceleration != "none") + self.annealing_steps

    @property
    def annealing_steps(self) -> int:
        """Steps that the start takes."""
        return len(HEAT) if self.start == ANNEALED else 0

    def beams(self, problem: Problem, instance: Instance, steps: int) -> Tensor:
        left = steps - 1 - self.annealing_steps  # computing the beams is the last step
        solver = ReducedWMMSE(tolerance=0.0, max_iterations=max(1, left), acceleration=self.acceleration)
        data = solver.prepare(problem, instance.observation)
        state = self.initial_state(data)
        if self.acceleration != "none":
            return solver.beams(data, solver.run(data, state).state)
        for _ in range(left):
            state, _ = solver.step(data, state)
        return solver.beams(data, state)

    def initial_state(self, data: WhitenedChannel) -> Multipliers:
        """The state at the start."""
        return (
            annealed(data, from_ridge(data, 10.0)) if self.start == ANNEALED else from_ridge(data, RIDGES[self.start])
        )


@dataclass(frozen=True)
class Learned(SteppedMethod):
    """`SumRateMultipliers` with its safeguards, as `solve` uses it."""

    solver: SumRateMultipliers

    @property
    def min_steps(self) -> int:
        return 0

    def beams(self, problem: Problem, instance: Instance, steps: int) -> Tensor:
        self.solver.steps = steps
        return self.solver.solve_batch(problem, instance.observation, None, None).W
