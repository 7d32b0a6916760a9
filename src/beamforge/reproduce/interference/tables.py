"""ITNet and DualNet on every number of base stations and SNR of the paper's Table 1, beside what knows all channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from beamforge.bench.statistics import Estimate, percent_of_mean
from beamforge.bench.timing import interleaved, one_thread
from beamforge.classical.duality.power_limited import PowerLimitedMaxMin
from beamforge.classical.linear import MRT, RZF, ZF
from beamforge.classical.sum_rate.wmmse import MulticellWMMSE
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.problem import Problem
from beamforge.core.solver import Solver
from beamforge.learned.interference.centralised import SIZE, DirectBeamLearning, NaiveFeatureLearning
from beamforge.learned.interference.itnet_dualnet import ITNetDualNet, MaxMinITNet, SumRateITNet
from beamforge.registry import configure
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Table
from beamforge.scenarios.base import TEST_SEEDS
from beamforge.scenarios.interference import Interference

COUNT, QUICK = 3000, 200
"""Instances a cell."""

SIZES = ((2, 8), (3, 8), (4, 8), (5, 8), (6, 8), (2, 2))
"""Base stations, and antennas of each; the paper's Table 1 has those with eight."""

SNRS_DB = (-5, 0, 5, 10, 15, 20, 25)

SUM_RATE = 99.5
"""Percent of converged WMMSE that is wanted in every cell."""

MIN_RATE: Mapping[int, Mapping[int, float]] = {
    2: dict(zip(SNRS_DB, (99.7, 99.3, 99.3, 99.3, 99.2, 99.2, 99.1), strict=True)),
    3: dict(zip(SNRS_DB, (99.6, 99.2, 99.2, 98.9, 98.9, 98.7, 98.5), strict=True)),
    4: dict(zip(SNRS_DB, (99.3, 98.8, 98.7, 98.7, 98.4, 98.4, 97.9), strict=True)),
    5: dict(zip(SNRS_DB, (98.2, 98.2, 97.8, 97.4, 97.4, 96.9, 96.7), strict=True)),
    6: dict(zip(SNRS_DB, (97.5, 97.3, 96.9, 96.7, 96.6, 96.4, 96.3), strict=True)),
}
"""Percent of the largest least rate in the paper's Table 1 (b), by the number of base stations and SNR."""

METHODS: tuple[type[ITNetDualNet], ...] = (SumRateITNet, MaxMinITNet)
OURS, BEST = "itnet-dualnet", {"sum-rate": "wmmse from zf", "max-min": "duality"}

RACED = (6, 8)
"""Base stations and antennas of the instances that are timed."""

BATCH = 1000
"""Instances that are timed together, in single precision."""

FASTER = {"sum-rate": 5.0, "max-min": 50.0}
"""Times that ours is wanted to be faster than the best."""


def interference(options: Options) -> Iterator[Exhibit]:
    """Percent of the best, the duality gap, and milliseconds for a batch."""
    goals: list[Goal] = []
    with torch.no_grad(), one_thread():
        for kind in METHODS:
            ours = configure(kind, options.settings)
            assert isinstance(ours, ITNetDualNet)
            yield from percents(ours, options, goals)
            yield race(ours, options, goals)
    yield Goal.table(goals)


def percents(ours: ITNetDualNet, options: Options, goals: list[Goal]) -> Iterator[Table]:
    """Tables of percents of the best and of ours' inner figures, one row a cell."""
    count = QUICK if options.quick else COUNT
    others: dict[str, Solver] = {"slnr": RZF(), "zf": ZF(), "mrt": MRT()}
    fixed: dict[str, Solver] = {"nfl": NaiveFeatureLearning(), "dbl": DirectBeamLearning()}
    rows: list[list[Any]] = []
    inner: list[list[Any]] = []
    for cells, antennas in SIZES:
        for snr_db in SNRS_DB:
            options.report(f"{ours.problem}, {cells} base stations, {antennas} antennas, {snr_db} dB")
            instance = sample(cells, antennas, snr_db, count)
            problem = build_problem(ours.problem, instance.context).bind(instance.truth)
            best = utility(problem, instance, strongest(ours.problem, problem, instance))

            def percent(
                solver: Solver, problem: Problem = problem, instance: Instance = instance, best: Tensor = best
            ) -> Estimate:
                found = utility(problem, instance, solver.solve(problem, instance).W)
                return percent_of_mean(found.numpy(), best.numpy())

            reached = percent(ours)
            learned = [percent(solver) if (cells, antennas) == SIZE else None for solver in fixed.values()]
            rows.append(
                [cells, antennas, snr_db, reached, *(percent(solver).value for solver in others.values()), *learned]
            )
            figures = ours.loss(instance, torch.Generator())[1]
            rate = float(figures["rate_within"])
            inner.append(
                [cells, antennas, snr_db, *(100 * float(figures[name]) / rate for name in ("gap", "gap_size"))]
                + [100 * float(figures[name]) for name in ("projected", "excess_power")]
            )
            if antennas == 8:
                wanted = SUM_RATE if ours.problem == "sum-rate" else MIN_RATE[cells][snr_db]
                goals.append(Goal(f"{ours.problem}, K = {cells}, {snr_db} dB: percent", reached, wanted))
    title = f"{ours.problem}: percent of {BEST[ours.problem]} ({count} instances a cell)"
    yield Table(ours.problem, title, ["K", "N", "SNR (dB)", OURS, *others, *fixed], rows, heads=3)
    gap = sum(row[4] for row in inner) / len(inner)
    if ours.problem == "sum-rate":
        goals.append(Goal(f"{ours.problem}: size of the duality gap, percent of the rate", gap, 1.0, at_most=True))
    columns = ["K", "N", "SNR (dB)", "Gap (%)", "Size of gap (%)", "Projected (%)", "Excess power (%)"]
    yield Table(f"{ours.problem}-duality", f"{ours.problem}: duality gap, beams projected", columns, inner, heads=3)


def race(ours: ITNetDualNet, options: Options, goals: list[Goal]) -> Table:
    """Microseconds an instance, ours and the best; ours has to be as quick at any SNR."""
    batch, repeats = (BATCH // 4, 1) if options.quick else (BATCH, 3)
    rows: list[Sequence[Any]] = []
    for snr_db in (SNRS_DB[0], 10, SNRS_DB[-1]):
        options.report(f"time, {ours.problem}, {snr_db} dB")
        instance = sample(*RACED, snr_db, batch, torch.complex64)
        problem = build_problem(ours.problem, instance.context).bind(instance.truth)
        tasks: dict[str, Callable[[int], object]] = {
            OURS: partial(answer, ours, problem, instance),
            BEST[ours.problem]: partial(again, ours.problem, problem, instance),
        }
        seconds = interleaved(tasks, repeats)
        rows += [[snr_db, name, 1e6 * taken / batch] for name, taken in seconds.items()]
        ratio = seconds[BEST[ours.problem]] / seconds[OURS]
        goals.append(Goal(f"{ours.problem}, {snr_db} dB: times faster", ratio, FASTER[ours.problem]))
    title = (
        f"{ours.problem}: time, K = {RACED[0]}, batches of {batch}, single precision, one thread (medians of {repeats})"
    )
    return Table(f"{ours.problem}-time", title, ["SNR (dB)", "Method", "Time an instance (us)"], rows, heads=1)


def sample(cells: int, antennas: int, snr_db: float, count: int, dtype: torch.dtype = torch.complex128) -> Instance:
    """Held-out instances."""
    scenario = Interference(cells=cells, antennas=antennas, snr_db=float(snr_db))
    return scenario.sample(count, seed=TEST_SEEDS[0], dtype=dtype)


def strongest(name: str, problem: Problem, instance: Instance) -> Tensor:
    """Beams of the best for all channels known: by WMMSE from zero forcing, to 1e-6; or of the largest least rate."""
    if name == "max-min":
        return PowerLimitedMaxMin().solve(problem, instance).W
    start = ZF().solve(problem, instance).W
    return MulticellWMMSE(tolerance=1e-6).solve(problem, instance, start=start).W


def answer(ours: Solver, problem: Problem, instance: Instance, repeat: int) -> Tensor:
    """Beams of ours, as a task that is timed."""
    return ours.solve(problem, instance).W


def again(name: str, problem: Problem, instance: Instance, repeat: int) -> Tensor:
    """The best beams, likewise."""
    return strongest(name, problem, instance)


def utility(problem: Problem, instance: Instance, W: Tensor) -> Tensor:
    """The utility [B]."""
    return problem.value(instance.truth, W)
