"""Results of methods on instances, scored independently, and their comparison."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beamforge.bench.statistics import Estimate, Values, paired_difference, percent_of_mean
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.solver import Solver
from beamforge.reproduce.isac.figures import Point
from beamforge.reproduce.isac.score import TOLERANCE, score

BEST = "isac-wmmse"
"""The method that the others are compared with; it decides exactly whether an instance is feasible."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """Results of a method on some instances.

    rate      sum rates [B] by `score`.
    solved    instances [B] reported as solved.
    violated  instances [B] reported as solved although a constraint is violated.
    seconds   time per instance.
    """

    rate: Values
    solved: Flags
    violated: Flags
    seconds: float

    @property
    def share(self) -> float:
        """Share of solved instances."""
        return float(self.solved.mean())

    @property
    def mean(self) -> Estimate | None:
        """Mean sum rate of the solved instances, with its confidence interval."""
        if not self.solved.any():
            return None
        values = self.rate[self.solved]
        results = paired_difference(values, 0 * values)
        return Estimate(float(values.mean()), (results.high - results.low) / 2)


def run(solver: Solver, instance: Instance) -> Run:
    """Results of a method on instances."""
    problem = build_problem("isac", instance.context)
    started = time.perf_counter()
    solution = solver.solve(problem, instance)
    seconds = (time.perf_counter() - started) / len(solution.status)
    rate, excess = score(instance, solution.W.resolve_conj().cpu().numpy())
    solved = solution.solved.cpu().numpy()
    return Run(rate, solved, solved & ~(excess <= TOLERANCE), seconds)


Results = dict[tuple[str, float], Run]
"""Results by name of the curve and x."""


def first_targets(instance: Instance, targets: int) -> Instance:
    """The same instances with only the first targets, so that the sets of targets are nested."""
    kept = {name: instance.context[name][:, :targets] for name in ("target_angles", "target_gain")}
    return Instance.perfect(instance.truth, **{**instance.context, **kept})


def points(results: Results, quantity: Callable[[Run], Estimate | None]) -> dict[str, list[Point]]:
    """Curves of the figures."""
    lines: dict[str, list[Point]] = {}
    for (name, x), one in results.items():
        value = quantity(one)
        lines.setdefault(name, []).append((x, None if value is None else value.value, one.share))
    return lines


def percent_of_best(results: Results, name: str, x: float) -> Estimate | None:
    """Percent of the sum rate of `isac-wmmse`, on the instances that both solve."""
    ours, best = results[name, x], results[BEST, x]
    both = ours.solved & best.solved
    return percent_of_mean(ours.rate[both], best.rate[both]) if both.any() else None
