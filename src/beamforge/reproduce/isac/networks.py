"""Learned methods beside the classical ones at the size of the shipped weights: Figs. 10 and 11."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

from beamforge.bench.timing import one_thread
from beamforge.classical.isac.null_space import NullSpaceSensing
from beamforge.classical.isac.sdr import SensingSDR
from beamforge.classical.isac.wmmse import SensingWMMSE
from beamforge.core.instance import Instance
from beamforge.core.solver import Solver
from beamforge.learned.isac.dnn import IsacDNN
from beamforge.learned.isac.sao import SAOIsac
from beamforge.plot.style import png
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Picture, Table
from beamforge.reproduce.isac.figures import curves
from beamforge.reproduce.isac.runs import BEST, Results, first_targets, percent_of_best, points, run
from beamforge.reproduce.isac.score import TOLERANCE
from beamforge.scenarios import Isac
from beamforge.scenarios.base import TEST_SEEDS

SIZE = 16
"""Number of users and of antennas."""

SNRS, QUICK_SNRS = (0.0, 5.0, 10.0, 15.0, 20.0), (0.0, 20.0)
"""SNRs of the users in dB."""

TARGETS, QUICK_TARGETS = (1, 3, 5, 8), (2, 5)
"""Numbers of targets."""

LEVELS, QUICK_LEVELS = (0.0, 5.0, 10.0), (5.0,)
"""Required sensing SNRs in dB."""

COUNT, QUICK = 40, 4
"""Number of instances per SNR; a quarter of it per number of targets."""

OURS, DNN = "sao-isac", "isac-dnn"
BASELINES = ("isac-sdr", DNN, "rzf-null-space")
"""The baselines of the paper."""

METHODS: Mapping[str, Callable[[], Solver]] = {
    BEST: SensingWMMSE,
    "isac-wmmse, 3 iterations": lambda: SensingWMMSE(max_iterations=3),
    "isac-wmmse, 1 iteration": lambda: SensingWMMSE(max_iterations=1),
    OURS: SAOIsac,
    "sao-isac, untrained": lambda: SAOIsac(checkpoint="random"),
    "isac-sdr": SensingSDR,
    DNN: IsacDNN,
    "rzf-null-space": NullSpaceSensing,
}
"""Compared methods. WMMSE with one iteration at each weight of its barrier comes closest to the time of `sao-isac`."""

FEASIBLE = 95.0
"""Percent of instances that are to be solved."""


def isac_networks(options: Options) -> Iterator[Exhibit]:
    """Figs. 10 and 11 of the masked-transformer paper at the size of the shipped weights, with the learned methods."""
    with torch.no_grad(), one_thread():
        yield from exhibits(options)


def exhibits(options: Options) -> Iterator[Exhibit]:
    """Tables and figures by SNR and by targets, and the goals."""
    count = QUICK if options.quick else COUNT
    by_snr: Results = {}
    for snr_db in QUICK_SNRS if options.quick else SNRS:
        instance = held_out(count, snr_db=snr_db)
        for name, create in METHODS.items():
            options.report(f"{name}, {SIZE}×{SIZE}, {snr_db:g} dB")
            by_snr[name, snr_db] = run(create(), instance)
    yield snr_table(by_snr, count)
    lines = points(by_snr, lambda one: one.mean)
    rate = "Mean sum rate of solved instances (bit/s/Hz)"
    yield Picture("figure-11-snr", png(curves(lines, "SNR of the users (dB)", rate)))
    fewer = max(QUICK, count // 4)
    by_targets = {
        level: against_targets(options, fewer, level) for level in (QUICK_LEVELS if options.quick else LEVELS)
    }
    yield targets_table(by_targets, fewer)
    yield Goal.table([*goals(by_snr)])


def held_out(count: int, **fields: Any) -> Instance:
    """Held-out instances of the scenario."""
    return Isac(users=SIZE, antennas=SIZE, **fields).sample(count, seed=TEST_SEEDS[0], dtype=torch.complex128)


def against_targets(options: Options, count: int, level: float) -> Results:
    """Fig. 10: `sao-isac` and `isac-wmmse` at 15 dB by the number of targets, for one required sensing SNR in dB."""
    results: Results = {}
    numbers = QUICK_TARGETS if options.quick else TARGETS
    instance = held_out(count, targets=max(numbers), sensing_snr_db=level)
    for targets in numbers:
        options.report(f"{targets} targets, {SIZE}×{SIZE}, sensing SNR {level:g} dB")
        for name in (BEST, OURS):
            results[name, targets] = run(METHODS[name](), first_targets(instance, targets))
    return results


def targets_table(found: Mapping[float, Results], count: int) -> Table:
    """Fig. 10 as a table."""
    rows = [
        [f"{level:g} dB", f"{x:g}", one.mean, 100 * one.share, 100 * results[BEST, x].share, ratio(results, x)]
        for level, results in found.items()
        for (name, x), one in results.items()
        if name == OURS
    ]
    title = f"Fig. 10: `{OURS}` by targets, {SIZE}×{SIZE}, 15 dB ({count} instances; rates of those solved)"
    percent = f"Percent of {BEST}, both met"
    columns = ["Sensing SNR", "Targets", "Sum rate (bit/s/Hz)", "Met (%)", f"Met by {BEST} (%)", percent]
    return Table("figure-10-targets", title, columns, rows, heads=2)


def ratio(results: Results, x: float) -> Any:
    """Percent of the sum rate of `isac-wmmse`."""
    return percent_of_best(results, OURS, x)


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


def goals(results: Results) -> Iterator[Goal]:
    """Goals: the paper's claims for its network, and feasibility of all reported solutions."""
    violated = sum(int(one.violated.sum()) for one in results.values())
    name = f"{SIZE}×{SIZE}: constraints violated by more than {TOLERANCE:g}, by NumPy"
    yield Goal(name, violated, 0.0, at_most=True)
    snrs = sorted({x for _, x in results})
    for baseline in BASELINES:
        least = min(map(partial(percent_of, results, baseline), snrs))
        yield Goal(f"{OURS}: percent of {baseline}, least over the SNRs", least, 100.0)
    ours, best, dnn = ([results[name, x] for x in snrs] for name in (OURS, BEST, DNN))
    met = min(one.share for one in ours)
    yield Goal(f"{OURS}: percent met of all instances, least over the SNRs", 100 * met, FEASIBLE)
    pairs = [(one.solved, other.solved) for one, other in zip(ours, best, strict=True) if other.solved.any()]
    met = min((float(solved[feasible].mean()) for solved, feasible in pairs), default=1.0)
    yield Goal(f"{OURS}: percent met of the feasible instances, least over the SNRs", 100 * met, FEASIBLE)
    margin = min(one.share - other.share for one, other in zip(ours, dnn, strict=True))
    yield Goal(f"{OURS}: percentage points met above {DNN}, least over the SNRs", 100 * margin, 0.0)


def percent_of(results: Results, baseline: str, x: float) -> float:
    """Percent of the sum rate of a baseline, on the instances that both solve; infinite if there is none."""
    ours, other = results[OURS, x], results[baseline, x]
    both = ours.solved & other.solved
    return 100 * float(ours.rate[both].sum() / other.rate[both].sum()) if both.any() else float("inf")
