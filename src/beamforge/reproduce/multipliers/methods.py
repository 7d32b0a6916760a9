"""Ways to the largest sum rate that are counted in steps: beams after any number of them, from the channels on."""

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
"""Classical starts of WMMSE: regularised zero forcing with so many times the usual ridge."""

ANNEALED = "annealed start"
"""This library's own start: 10 × ridge, annealed; its steps are counted."""


class Way:
    """A method that is counted in steps, each an update of receivers, weights and beams."""

    @property
    def least(self) -> int:
        """Steps that it takes at least."""
        raise NotImplementedError

    def beams(self, problem: Problem, instance: Instance, steps: int) -> Tensor:
        """W [B, N, K] after `steps` of them; the problem is bound to the instance."""
        raise NotImplementedError


@dataclass(frozen=True)
class Wmmse(Way):
    """Reduced WMMSE from one of `RIDGES` or `ANNEALED`, plain or accelerated."""

    start: str
    acceleration: str = "none"

    @property
    def least(self) -> int:
        return 1 + (self.acceleration != "none") + self.heated

    @property
    def heated(self) -> int:
        """Steps of the start."""
        return len(HEAT) if self.start == ANNEALED else 0

    def beams(self, problem: Problem, instance: Instance, steps: int) -> Tensor:
        left = steps - 1 - self.heated  # the last step is in the beams
        solver = ReducedWMMSE(tolerance=0.0, max_iterations=max(1, left), acceleration=self.acceleration)
        data = solver.prepare(problem, instance.observation)
        state = self.begin(data)
        if self.acceleration != "none":
            return solver.beams(data, solver.run(data, state).state)
        for _ in range(left):
            state, _ = solver.step(data, state)
        return solver.beams(data, state)

    def begin(self, data: WhitenedChannel) -> Multipliers:
        """The state that the start leads to."""
        return (
            annealed(data, from_ridge(data, 10.0)) if self.start == ANNEALED else from_ridge(data, RIDGES[self.start])
        )


@dataclass(frozen=True)
class Learned(Way):
    """`SumRateMultipliers` as it is used, its safeguard and all."""

    solver: SumRateMultipliers

    @property
    def least(self) -> int:
        return 0

    def beams(self, problem: Problem, instance: Instance, steps: int) -> Tensor:
        self.solver.steps = steps
        return self.solver.solve_batch(problem, instance.observation, None, None).W
