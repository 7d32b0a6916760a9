"""Run a suite: every method on the same instances, scored by `evaluate` and timed in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from torch import Tensor

from beamforge import registry
from beamforge.bench import statistics
from beamforge.bench.suites import Candidate, Suite
from beamforge.bench.timing import Machine, interleaved
from beamforge.classical.bounds import bound
from beamforge.core import batching
from beamforge.core.errors import BeamforgeError
from beamforge.core.evaluate import Report, evaluate
from beamforge.core.instance import Instance
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver

ROUNDS = 3
"""Timed rounds of the whole batch; instances are timed alone in four times as many."""


@dataclass(frozen=True)
class Run:
    """One method on all instances: its solution, the report on it, and seconds per instance."""

    solution: Solution
    report: Report
    seconds_single: float
    seconds_batched: float

    @property
    def valid(self) -> np.ndarray:
        """Boolean [B]: solved, and every constraint holds. Means are over these instances only."""
        return (self.solution.solved & self.report.feasible).cpu().numpy()

    @property
    def utility(self) -> np.ndarray:
        """[B] in the problem's unit, NaN where the instance has no valid solution."""
        return self._kept(self.report.utility)

    @property
    def rate(self) -> np.ndarray:
        """[B, K] bit/s/Hz, NaN where the instance has no valid solution."""
        return self._kept(self.report.rate)

    @property
    def jain(self) -> np.ndarray:
        """[B], NaN where the instance has no valid solution."""
        return self._kept(self.report.jain)

    def _kept(self, values: Tensor) -> np.ndarray:
        array = values.double().cpu().numpy()
        return np.where(self.valid.reshape(-1, *(1,) * (array.ndim - 1)), array, np.nan)


@dataclass(frozen=True)
class Row:
    """A method's row of the table: utilities in the problem's unit, rates in bit/s/Hz, milliseconds per instance.

    utility_p5  utility that 95 % of the instances reach: the 5th percentile, or the 95th where less is better.
    rate_p5     5th percentile of the users' rates over all instances.
    difference  to the baseline, paired, more is better, with its 95 % confidence interval (low, high).
    violated    instances reported as solved although a constraint does not hold; excluded from all means.
    error       why the method failed, or empty; a row with an error has no other values.
    """

    method: str
    instances: int = 0
    utility_mean: float = nan
    utility_p5: float = nan
    rate_mean: float = nan
    rate_p5: float = nan
    jain_mean: float = nan
    difference_mean: float = nan
    difference_low: float = nan
    difference_high: float = nan
    difference_pairs: int = 0
    percent_of_bound: float = nan
    iterations_median: float = nan
    single_ms: float = nan
    batched_ms: float = nan
    converged: int = 0
    max_iterations: int = 0
    infeasible: int = 0
    numerical_failure: int = 0
    violated: int = 0
    error: str = ""


@dataclass(frozen=True)
class Comparison:
    """A finished suite: a method is in `runs` or, with a reason, in `errors`, which may also have an entry "bound".

    bound  bound [B] on the utility of any method, in the problem's unit; NaN where none is known.
    """

    suite: Suite
    unit: str
    sense: int
    runs: Mapping[str, Run]
    errors: Mapping[str, str]
    bound: np.ndarray
    machine: Machine

    @property
    def rows(self) -> list[Row]:
        """One row per method, in the suite's order."""
        labels = [candidate.label for candidate in self.suite.candidates]
        return [self.row(label) if label in self.runs else Row(label, error=self.errors[label]) for label in labels]

    def row(self, label: str) -> Row:
        """The row of a method in `runs`."""
        run, difference = self.runs[label], self.difference(label)
        counts = np.bincount(run.solution.status.cpu().numpy(), minlength=len(Status)).tolist()
        return Row(
            method=label,
            instances=len(run.utility),
            utility_mean=statistics.mean(run.utility),
            utility_p5=statistics.percentile(run.utility, 5 if self.sense > 0 else 95),
            rate_mean=statistics.mean(run.rate),
            rate_p5=statistics.percentile(run.rate, 5),
            jain_mean=statistics.mean(run.jain),
            difference_mean=difference.mean,
            difference_low=difference.low,
            difference_high=difference.high,
            difference_pairs=difference.pairs,
            percent_of_bound=statistics.percent_of_bound(run.utility, self.bound, self.sense),
            iterations_median=float(run.solution.iterations.double().median()),
            single_ms=1e3 * run.seconds_single,
            batched_ms=1e3 * run.seconds_batched,
            converged=counts[Status.CONVERGED],
            max_iterations=counts[Status.MAX_ITERATIONS],
            infeasible=counts[Status.INFEASIBLE],
            numerical_failure=counts[Status.NUMERICAL_FAILURE],
            violated=int((run.solution.solved & ~run.report.feasible).sum()),
        )

    def difference(self, label: str) -> statistics.Difference:
        """A method against the baseline, paired by instance; NaN if the baseline raised."""
        if self.suite.baseline not in self.runs:
            return statistics.Difference(nan, nan, nan, 0)
        return statistics.paired_difference(
            self.runs[label].utility, self.runs[self.suite.baseline].utility, self.sense
        )


def compare(suite: Suite, progress: Callable[[str], object] = lambda doing: None) -> Comparison:
    """Run every method of a suite on its instances; an exception is recorded and does not stop the other methods.

    Times are medians, of all instances as one batch and of one instance at a time, after a warm-up and interleaved
    between the methods. `progress` is called with a description of the current work.
    """
    instance = suite.instances()
    size = instance.truth.batch_shape[0]
    problem = suite.build(instance.context).bind(instance.truth)
    alone = [batching.take((problem, instance), slice(i, i + 1)) for i in range(min(size, 4 * ROUNDS))]
    errors: dict[str, str] = {}

    def answer(candidate: Candidate) -> tuple[Solver, Solution, Report]:
        solver = registry.create(problem, instance.observation.network, candidate.method, candidate.settings)
        solution = solver.solve(problem, instance)
        return solver, solution, evaluate(problem, instance, solution.beams)

    answers = {}
    for candidate in suite.candidates:
        progress(candidate.label)
        found = attempt(errors, candidate.label, answer)(candidate)
        if found is not None:
            answers[candidate.label] = found

    progress("timing")
    batch, single = {}, {}
    for label, (solver, _, _) in answers.items():
        solve = attempt(errors, label, solver.solve)
        batch[label] = lambda _, solve=solve: solve(problem, instance)
        single[label] = lambda i, solve=solve: solve(*alone[i % len(alone)])
    seconds_batch = interleaved(batch, ROUNDS)
    seconds_single = interleaved(single, 4 * ROUNDS)

    progress("bound")
    runs = {
        label: Run(solution, report, seconds_single[label], seconds_batch[label] / size)
        for label, (_, solution, report) in answers.items()
        if label not in errors
    }
    limit = attempt(errors, "bound", best_bound)(problem, instance)
    limit = np.full(size, nan) if limit is None else limit
    utility = problem.maximise
    return Comparison(suite, utility.unit, utility.sense, runs, errors, limit, Machine.here())


def attempt(errors: dict[str, str], label: str, task: Callable[..., Any]) -> Callable[..., Any]:
    """`task` with exceptions recorded under `label` instead of raised; after one, further calls do nothing."""

    def guarded(*arguments: Any) -> Any:
        if label in errors:
            return None
        try:
            return task(*arguments)
        except BeamforgeError as error:
            errors[label] = str(error)
        except Exception as error:  # any other fault of a method
            errors[label] = f"{type(error).__name__}: {error}"
        return None

    return guarded


def best_bound(problem: Problem, instance: Instance) -> np.ndarray:
    """Bound [B] on the utility of any method on the true networks, NaN where none is known."""
    found = bound(problem, instance.truth).double().cpu().numpy()
    return np.where(np.isfinite(found), found, np.nan)
