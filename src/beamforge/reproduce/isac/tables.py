"""Sum rate and share of feasible instances by number of targets, sensing SNR and SNR of the users, all methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from beamforge.api import solve
from beamforge.bench.statistics import Estimate, Values, percent_of_mean
from beamforge.bench.timing import one_thread
from beamforge.classical.isac.null_space import NullSpaceSensing
from beamforge.classical.isac.sdr import SensingSDR
from beamforge.classical.isac.wmmse import SensingWMMSE
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.solver import Solver
from beamforge.learned.isac.multipliers import SensingMultipliers
from beamforge.plot.pattern import beam_pattern
from beamforge.plot.style import png
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Picture, Table
from beamforge.reproduce.isac.figures import curves
from beamforge.reproduce.isac.runs import BEST, Results, Run, first_targets, percent_of_best, points, run
from beamforge.reproduce.isac.score import TOLERANCE
from beamforge.scenarios import Isac
from beamforge.scenarios.base import TEST_SEEDS

SIZE = 32
"""Number of users and of antennas."""

TARGETS, QUICK_TARGETS = (1, 2, 3, 4, 5, 6, 8, 10), (2, 5, 8)
"""Numbers of targets."""

LEVELS = (0.0, 5.0, 10.0)
"""Required sensing SNRs in dB."""

SNRS, QUICK_SNRS = (0.0, 5.0, 10.0, 15.0, 20.0), (0.0, 10.0, 20.0)
"""SNRs of the users in dB."""

COUNT, QUICK = 20, 4
"""Number of instances per point."""

LEARNED = "multipliers"
METHODS: Mapping[str, Callable[[], Solver]] = {
    BEST: SensingWMMSE,
    "isac-wmmse, 3 iterations": lambda: SensingWMMSE(max_iterations=3),
    LEARNED: SensingMultipliers,
    "isac-sdr": SensingSDR,
    "rzf-null-space": NullSpaceSensing,
}
"""Compared methods; 3 iterations are for each weight of the barrier. Learned methods are compared in `networks`."""


def isac(options: Options) -> Iterator[Exhibit]:
    """Figs. 10 and 11 of the masked-transformer paper, with the methods of this library."""
    count = QUICK if options.quick else COUNT
    with torch.no_grad(), one_thread():
        by_targets, unconstrained = against_targets(options, count)
        yield targets_table(by_targets, unconstrained)
        lines = points(by_targets, lambda one: percent_of_unconstrained(one, unconstrained))
        yield Picture(
            "figure-10-targets", png(curves(lines, "Number of targets", "Percent of the rate without targets"))
        )
        by_snr = against_snr(options, count)
        yield snr_table(by_snr, count)
        lines = points(by_snr, lambda one: one.mean)
        rate = "Mean sum rate of solved instances (bit/s/Hz)"
        yield Picture("figure-11-snr", png(curves(lines, "SNR of the users (dB)", rate)))
        yield pattern(options)
    yield Goal.table([*goals(by_targets, by_snr)])


def held_out(count: int, **fields: Any) -> Instance:
    """Held-out instances of the scenario."""
    return Isac(users=SIZE, antennas=SIZE, **fields).sample(count, seed=TEST_SEEDS[0], dtype=torch.complex128)


def against_targets(options: Options, count: int) -> tuple[Results, Values]:
    """Fig. 10: `isac-wmmse` at 15 dB, and the sum rates [B] of `wmmse` without targets."""
    results: Results = {}
    numbers = QUICK_TARGETS if options.quick else TARGETS
    for level in LEVELS:
        instance = held_out(count, targets=max(numbers), sensing_snr_db=level)
        for targets in numbers:
            options.report(f"{targets} targets, sensing SNR {level:g} dB")
            results[f"sensing SNR {level:g} dB", targets] = run(SensingWMMSE(), first_targets(instance, targets))
    truth = instance.truth
    unconstrained = solve(truth.channel, noise=truth.noise, p_max=instance.context["p_max"], method="wmmse")
    return results, unconstrained.utility.cpu().numpy()


def against_snr(options: Options, count: int) -> Results:
    """Fig. 11: all methods for 5 targets and a required sensing SNR of 5 dB."""
    results: Results = {}
    for snr_db in QUICK_SNRS if options.quick else SNRS:
        instance = held_out(count, snr_db=snr_db)
        for name, create in METHODS.items():
            options.report(f"{name}, {snr_db:g} dB")
            results[name, snr_db] = run(create(), instance)
    return results


def percent_of_unconstrained(one: Run, unconstrained: Values) -> Estimate | None:
    """Percent of the sum rate without targets, on the solved instances."""
    return percent_of_mean(one.rate[one.solved], unconstrained[one.solved]) if one.solved.any() else None


def targets_table(results: Results, unconstrained: Values) -> Table:
    """Fig. 10 as a table."""
    rows = [
        [name, f"{x:g}", one.mean, 100 * one.share, percent_of_unconstrained(one, unconstrained)]
        for (name, x), one in results.items()
    ]
    count = len(unconstrained)
    title = f"Fig. 10: `isac-wmmse` by targets, {SIZE}×{SIZE}, 15 dB ({count} instances; rates of those solved)"
    columns = ["", "Targets", "Sum rate (bit/s/Hz)", "Met (%)", "Percent of the rate without targets"]
    return Table("figure-10-targets", title, columns, rows, heads=2)


def snr_table(results: Results, count: int) -> Table:
    """Fig. 11 as a table, with times."""
    rows = [
        [name, f"{x:g}", one.mean, 100 * one.share, percent_of_best(results, name, x), 1e3 * one.seconds]
        for (name, x), one in results.items()
    ]
    size = f"{SIZE}×{SIZE}, 5 targets, sensing SNR 5 dB"
    title = f"Fig. 11: methods by SNR, {size} ({count} instances; rates of those solved)"
    columns = ["", "SNR (dB)", "Sum rate (bit/s/Hz)", "Met (%)", f"Percent of {BEST}, both met", "ms per instance"]
    return Table("figure-11-snr", title, columns, rows, heads=2)


def pattern(options: Options) -> Picture:
    """Beam pattern of the first solved instance."""
    options.report("beam pattern")
    instance = held_out(4, sensing_snr_db=10.0)
    problem = build_problem("isac", instance.context).bind(instance.truth)
    solution = SensingWMMSE().solve(problem, instance)
    place = int(np.argmax(solution.solved.cpu().numpy()))
    return Picture("beam-pattern", png(beam_pattern(problem, instance.truth, solution.W, place)))


def goals(by_targets: Results, by_snr: Results) -> Iterator[Goal]:
    """Goals: the paper's claims for its network, applied to `isac-wmmse`, and feasibility of all reported solutions."""
    violated = sum(int(one.violated.sum()) for one in [*by_targets.values(), *by_snr.values()])
    solved = sum(int(one.solved.sum()) for one in [*by_targets.values(), *by_snr.values()])
    name = f"constraints violated by more than {TOLERANCE:g} in {solved} solutions, by NumPy"
    yield Goal(name, violated, 0.0, at_most=True)
    for name in dict.fromkeys(name for name, _ in by_snr):
        if name == BEST:
            continue
        percents = [
            ratio.value for one, x in by_snr if one == name and (ratio := percent_of_best(by_snr, name, x)) is not None
        ]
        if percents and name != LEARNED:
            yield Goal(f"{name}: percent of {BEST}, largest over the SNRs", max(percents), 100.0, at_most=True)
        margin = max(by_snr[name, x].share - by_snr[BEST, x].share for one, x in by_snr if one == name)
        yield Goal(
            f"{name}: percentage points met above {BEST}, largest over the SNRs", 100 * margin, 0.0, at_most=True
        )
    learned = [(one, by_snr[BEST, x], x) for (name, x), one in by_snr.items() if name == LEARNED]
    percents = [ratio.value for *_, x in learned if (ratio := percent_of_best(by_snr, LEARNED, x)) is not None]
    if percents:
        yield Goal(f"{LEARNED}: percent of {BEST}, smallest over the SNRs", min(percents), 99.0)
    times = [100 * one.seconds / best.seconds for one, best, _ in learned]
    yield Goal(f"{LEARNED}: time in percent of that of {BEST}, largest over the SNRs", max(times), 10.0, at_most=True)
    for name, steps in points(by_targets, lambda one: one.mean).items():
        fall = max(later[2] - former[2] for former, later in pairwise(steps))
        yield Goal(f"{name}: percentage points met, largest increase with more targets", 100 * fall, 0.0, at_most=True)
