"""Sum rate and share of feasible instances by targets, sensing SNR and communication SNR, all methods side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from beamforge.api import solve
from beamforge.bench.statistics import Estimate, Values, paired_difference, percent_of_mean
from beamforge.bench.timing import one_thread
from beamforge.classical.isac.null_space import NullSpaceSensing
from beamforge.classical.isac.sdr import SensingSDR
from beamforge.classical.isac.wmmse import SensingWMMSE
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.solver import Solver
from beamforge.plot.beam_pattern import beam_pattern
from beamforge.plot.style import png
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Picture, Table
from beamforge.reproduce.isac.figures import Point, curves
from beamforge.reproduce.isac.score import TOLERANCE, score
from beamforge.scenarios import Isac
from beamforge.scenarios.base import TEST_SEEDS

SIZE = 32
"""Users, and antennas."""

TARGETS, QUICK_TARGETS = (1, 2, 3, 4, 5, 6, 8, 10), (2, 5, 8)
LEVELS = (0.0, 5.0, 10.0)
"""Sensing SNRs in dB."""

SNRS, QUICK_SNRS = (0.0, 5.0, 10.0, 15.0, 20.0), (0.0, 10.0, 20.0)
COUNT, QUICK = 20, 4
"""Instances a point."""

BEST = "isac-wmmse"
WAYS: Mapping[str, Callable[[], Solver]] = {
    BEST: SensingWMMSE,
    "isac-wmmse, 3 iterations": lambda: SensingWMMSE(max_iterations=3),
    "isac-sdr": SensingSDR,
    "rzf-null-space": NullSpaceSensing,
}
"""At convergence, and with few iterations at each weight of its barrier; the paper's own network is not among them."""


Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """A method on some instances: rates [B] by NumPy, which it says it has solved [B], and which of these break a limit
    [B]; seconds an instance.
    """

    rate: Values
    solved: Flags
    broken: Flags
    seconds: float

    @property
    def share(self) -> float:
        """Of the instances, solved."""
        return float(self.solved.mean())

    @property
    def mean(self) -> Estimate | None:
        """Rate over those that are solved."""
        if not self.solved.any():
            return None
        values = self.rate[self.solved]
        found = paired_difference(values, 0 * values)
        return Estimate(float(values.mean()), (found.high - found.low) / 2)


def run(solver: Solver, instance: Instance) -> Run:
    """A method on instances, scored by NumPy."""
    problem = build_problem("isac", instance.context)
    before = time.perf_counter()
    solution = solver.solve(problem, instance)
    seconds = (time.perf_counter() - before) / len(solution.status)
    rate, excess = score(instance, solution.W.resolve_conj().cpu().numpy())
    solved = solution.solved.cpu().numpy()
    return Run(rate, solved, solved & ~(excess <= TOLERANCE), seconds)


def isac(options: Options) -> Iterator[Exhibit]:
    """Figs. 10 and 11 of the masked-transformer paper for the methods of this library."""
    count = QUICK if options.quick else COUNT
    with torch.no_grad(), one_thread():
        by_targets, free = against_targets(options, count)
        yield targets_table(by_targets, free)
        lines = points(by_targets, lambda one: of_free(one, free))
        yield Picture("figure-10-targets", png(curves(lines, "Sensing targets", "Percent of the rate without targets")))
        by_snr = against_snr(options, count)
        yield snr_table(by_snr, count)
        lines = points(by_snr, lambda one: one.mean)
        rate = "Mean sum rate where met (bit/s/Hz)"
        yield Picture("figure-11-snr", png(curves(lines, "SNR of the users (dB)", rate)))
        yield pattern(options)
    yield Goal.table([*wanted(by_targets, by_snr)])


Found = dict[tuple[str, float], Run]
"""By curve and its x."""


def drawn(count: int, **fields: Any) -> Instance:
    """Held-out instances."""
    return Isac(users=SIZE, antennas=SIZE, **fields).sample(count, seed=TEST_SEEDS[0], dtype=torch.complex128)


def first_targets(instance: Instance, targets: int) -> Instance:
    """The same with the first of the targets alone, so that more of them never ask for less."""
    kept = {name: instance.context[name][:, :targets] for name in ("target_angles", "target_gain")}
    return Instance.perfect(instance.truth, **{**instance.context, **kept})


def against_targets(options: Options, count: int) -> tuple[Found, Values]:
    """Fig. 10: `isac-wmmse` at 15 dB; and the sum rates [B] of `wmmse` where there are no targets."""
    found: Found = {}
    asked = QUICK_TARGETS if options.quick else TARGETS
    for level in LEVELS:
        instance = drawn(count, targets=max(asked), sensing_snr_db=level)
        for targets in asked:
            options.report(f"{targets} targets, sensing SNR {level:g} dB")
            found[f"sensing SNR {level:g} dB", targets] = run(SensingWMMSE(), first_targets(instance, targets))
    truth = instance.truth
    free = solve(truth.channel, noise=truth.noise, p_max=instance.context["p_max"], method="wmmse")
    return found, free.utility.cpu().numpy()


def against_snr(options: Options, count: int) -> Found:
    """Fig. 11: all methods for five targets and a sensing SNR of 5 dB."""
    found: Found = {}
    for snr_db in QUICK_SNRS if options.quick else SNRS:
        instance = drawn(count, snr_db=snr_db)
        for name, make in WAYS.items():
            options.report(f"{name}, {snr_db:g} dB")
            found[name, snr_db] = run(make(), instance)
    return found


def points(found: Found, height: Callable[[Run], Estimate | None]) -> dict[str, list[Point]]:
    """Curves for the figures."""
    lines: dict[str, list[Point]] = {}
    for (name, x), one in found.items():
        value = height(one)
        lines.setdefault(name, []).append((x, None if value is None else value.value, one.share))
    return lines


def of_free(one: Run, free: Values) -> Estimate | None:
    """Percent of the rate without targets on the instances that are solved."""
    return percent_of_mean(one.rate[one.solved], free[one.solved]) if one.solved.any() else None


def targets_table(found: Found, free: Values) -> Table:
    """Fig. 10 in numbers."""
    rows = [[name, f"{x:g}", one.mean, 100 * one.share, of_free(one, free)] for (name, x), one in found.items()]
    title = f"Fig. 10: `isac-wmmse` by targets, {SIZE}×{SIZE}, 15 dB ({len(free)} instances; rates where all are met)"
    columns = ["", "Targets", "Sum rate (bit/s/Hz)", "Met (%)", "Percent of no targets, same instances"]
    return Table("figure-10-targets", title, columns, rows, heads=2)


def snr_table(found: Found, count: int) -> Table:
    """Fig. 11 in numbers, and time."""
    rows = [
        [name, f"{x:g}", one.mean, 100 * one.share, of_best(found, name, x), 1e3 * one.seconds]
        for (name, x), one in found.items()
    ]
    title = f"Fig. 11: methods by SNR, {SIZE}×{SIZE}, 5 targets, sensing SNR 5 dB ({count} instances; rates where met)"
    columns = ["", "SNR (dB)", "Sum rate (bit/s/Hz)", "Met (%)", f"Percent of {BEST}, both met", "ms an instance"]
    return Table("figure-11-snr", title, columns, rows, heads=2)


def of_best(found: Found, name: str, x: float) -> Estimate | None:
    """Percent of the rate of `isac-wmmse` on the instances that both solve."""
    ours, best = found[name, x], found[BEST, x]
    both = ours.solved & best.solved
    return percent_of_mean(ours.rate[both], best.rate[both]) if both.any() else None


def pattern(options: Options) -> Picture:
    """Where the power of a solution goes: the first of some instances that has one."""
    options.report("beam pattern")
    instance = drawn(4, sensing_snr_db=10.0)
    problem = build_problem("isac", instance.context).bind(instance.truth)
    solution = SensingWMMSE().solve(problem, instance)
    place = int(np.argmax(solution.solved.cpu().numpy()))
    return Picture("beam-pattern", png(beam_pattern(problem, instance.truth, solution.W, place)))


def wanted(by_targets: Found, by_snr: Found) -> Iterator[Goal]:
    """The paper's claims for its network, asked of `isac-wmmse`; and that nothing claimed to be feasible is not."""
    broken = sum(int(one.broken.sum()) for one in [*by_targets.values(), *by_snr.values()])
    claimed = sum(int(one.solved.sum()) for one in [*by_targets.values(), *by_snr.values()])
    yield Goal(f"limits broken by more than {TOLERANCE:g} in {claimed} solutions, by NumPy", broken, 0.0, at_most=True)
    for name in dict.fromkeys(name for name, _ in by_snr):
        if name == BEST:
            continue
        most = [ratio.value for one, x in by_snr if one == name and (ratio := of_best(by_snr, name, x)) is not None]
        if most:
            yield Goal(f"{name}: largest percent of {BEST} over the SNRs", max(most), 100.0, at_most=True)
        more = max(by_snr[name, x].share - by_snr[BEST, x].share for one, x in by_snr if one == name)
        yield Goal(f"{name}: share met beyond that of {BEST}, at most", 100 * more, 0.0, at_most=True)
    for name, steps in points(by_targets, lambda one: one.mean).items():
        fall = max(later[2] - former[2] for former, later in pairwise(steps))
        yield Goal(f"{name}: rise of the share met with more targets", 100 * fall, 0.0, at_most=True)
