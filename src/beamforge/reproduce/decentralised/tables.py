"""Decentralised beamforming: the paper's Table 1 and figures, and other comparisons of the same methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from beamforge.bench.statistics import Estimate, Values, percent_of_mean
from beamforge.bench.timing import one_thread
from beamforge.plot.style import png
from beamforge.reproduce.decentralised import figures
from beamforge.reproduce.decentralised.cells import (
    MAX_MIN,
    SNRS_DB,
    SUM_RATE,
    USERS,
    Beamformer,
    Cell,
    Method,
    StoppedWmmse,
    WmmseFromZeroForcing,
    utilities,
)
from beamforge.reproduce.decentralised.duality_gap import duality_gaps
from beamforge.reproduce.decentralised.messages import rate_and_bits
from beamforge.reproduce.decentralised.regions import rate_regions
from beamforge.reproduce.decentralised.running_time import running_times
from beamforge.reproduce.decentralised.training_curves import training_curves
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Picture, Table

COUNT, QUICK = 3000, 100
"""Held-out realisations per cell."""

PAPER: Mapping[str, Sequence[Sequence[float]]] = {
    SUM_RATE: (
        (99.8, 99.8, 99.9, 99.6, 99.4),
        (99.9, 99.8, 99.9, 99.7, 99.5),
        (99.9, 99.8, 99.8, 99.8, 99.7),
        (101.3, 99.9, 99.9, 99.9, 99.8),
        (102.7, 100.2, 99.9, 99.9, 99.8),
        (103.2, 101.1, 100.5, 100.1, 99.8),
        (105.4, 103.2, 101.7, 100.1, 99.9),
    ),
    MAX_MIN: (
        (99.7, 99.6, 99.3, 98.2, 97.5),
        (99.3, 99.2, 98.8, 98.2, 97.3),
        (99.3, 99.2, 98.7, 97.8, 96.9),
        (99.3, 98.9, 98.7, 97.4, 96.7),
        (99.2, 98.9, 98.4, 97.4, 96.6),
        (99.2, 98.7, 98.4, 96.9, 96.4),
        (99.1, 98.5, 97.9, 96.7, 96.3),
    ),
}
"""The paper's Table 1 by SNR and K: percent of WMMSE's sum rate, and of the optimal minimum rate."""

BEST = "wmmse from ZF"
OPTIMUM = "optimum"
REFERENCE = {SUM_RATE: BEST, MAX_MIN: OPTIMUM}
ROUNDS = "multipliers, 4 rounds"
LEARNED = ("itnet-dualnet", "multipliers", ROUNDS)
COMPARED: Mapping[str, Beamformer] = {
    "itnet-dualnet": Method("itnet-dualnet"),
    "multipliers": Method("multipliers"),
    ROUNDS: Method("multipliers", {"rounds": 4}),
    "slnr": Method("slnr"),
    "zf": Method("zf"),
    "mrt": Method("mrt"),
}
METHODS: Mapping[str, Mapping[str, Beamformer]] = {
    SUM_RATE: {BEST: WmmseFromZeroForcing(), **COMPARED},
    MAX_MIN: {OPTIMUM: Method("duality"), **COMPARED},
}
"""The reference is first. A learned method has the same weights in all cells."""

NETWORKS: Mapping[str, Beamformer] = {name: Method(name) for name in ("dbl", "nfl")}
NETWORKS_USERS = 4
"""Centralised networks, and the only number of base stations that their weights serve."""

GOALS = {
    (SUM_RATE, "itnet-dualnet"): 99.5,
    (SUM_RATE, "multipliers"): 99.8,
    (SUM_RATE, ROUNDS): 99.8,
    (MAX_MIN, "multipliers"): 99.0,
    (MAX_MIN, ROUNDS): 99.0,
}
"""Percent of the reference required in every cell; for `itnet-dualnet` and the minimum rate, the paper's values."""

STOPPED = (100, 300, 1000)
STOPPED_COUNT = 100
"""Iterations after which WMMSE from random beams is stopped, and realisations for that comparison."""

Reached = dict[tuple[int, int], dict[str, Values]]
"""Utilities by cell (SNR in dB, K) and method."""


def decentralised(options: Options) -> Iterator[Exhibit]:
    """Table 1, Figs. 2 to 6, and the rate against the bits that are exchanged."""
    goals: list[Goal] = []
    count = QUICK if options.quick else COUNT
    with torch.no_grad(), one_thread():
        reached: dict[str, Reached] = {}
        for problem in (SUM_RATE, MAX_MIN):
            reached[problem] = measured(problem, count, options)
            for method in LEARNED:
                yield percents(problem, method, reached[problem], count)
                goals += cell_goals(problem, method, reached[problem])
            yield without_exchange(problem, reached[problem], count)
            yield two_antennas(problem, count, options)
            gaps, more = duality_gaps(problem, count, options)
            yield gaps
            goals += more
        yield as_stopped(reached[SUM_RATE], options)
        for name, draw in figures.FIGURES.items():
            yield Picture(name, png(draw(reached)))
        with torch.enable_grad():
            yield from training_curves(options)
        options.report("rate regions")
        yield from rate_regions(options)
        options.report("messages")
        exhibits, more = rate_and_bits(options)
        yield from exhibits
        goals += more
        options.report("running time")
        exhibits, more = running_times(options)
        yield from exhibits
        goals += more
    yield Goal.table(goals)


def measured(problem: str, count: int, options: Options) -> Reached:
    """Utilities of every method in every cell."""
    found: Reached = {}
    for snr_db in SNRS_DB:
        for users in USERS:
            options.report(f"{problem}, {users} base stations, {snr_db} dB")
            methods = {**METHODS[problem], **(NETWORKS if users == NETWORKS_USERS else {})}
            found[snr_db, users] = utilities(problem, methods, Cell(users, snr_db), count)
    return found


def without_exchange(problem: str, reached: Reached, count: int) -> Table:
    """Percent of the reference for methods without an exchange, and for centralised networks."""
    methods = [name for name in (*COMPARED, *NETWORKS) if name not in LEARNED]
    rows = [
        [users, snr_db, *(percent(cell, name, problem) if name in cell else None for name in methods)]
        for users in USERS
        for snr_db, cell in ((snr_db, reached[snr_db, users]) for snr_db in SNRS_DB)
    ]
    title = (
        f"{problem}: percent of {REFERENCE[problem]}: methods without exchange, centralised networks ({count} per cell)"
    )
    return Table(f"baselines-{problem}", title, ["K", "SNR (dB)", *methods], rows, heads=2)


def two_antennas(problem: str, count: int, options: Options) -> Table:
    """Percent of the reference for two base stations with two antennas each."""
    rows = []
    for snr_db in SNRS_DB:
        options.report(f"{problem}, two antennas, {snr_db} dB")
        cell = utilities(problem, METHODS[problem], Cell(2, snr_db, antennas=2), count)
        rows.append([snr_db, *(percent(cell, name, problem) for name in COMPARED)])
    title = f"{problem}: percent of {REFERENCE[problem]}, K = 2 with two antennas each ({count} realisations per cell)"
    return Table(f"two-antennas-{problem}", title, ["SNR (dB)", *COMPARED], rows)


def percents(problem: str, method: str, reached: Reached, count: int) -> Table:
    """Half of Table 1 for a method: percent of the reference, beside the paper's value."""
    rows = []
    for snr_db, paper in zip(SNRS_DB, PAPER[problem], strict=True):
        row: list[Any] = [snr_db]
        for users, printed in zip(USERS, paper, strict=True):
            row += [percent(reached[snr_db, users], method, problem), printed]
        rows.append(row)
    columns = ["SNR (dB)", *(name for users in USERS for name in (f"K = {users}", "paper"))]
    title = f"Table 1, {problem}: `{method}` in percent of {REFERENCE[problem]} ({count} realisations per cell)"
    return Table(f"table-1-{problem}-{method.replace(', ', '-').replace(' ', '-')}", title, columns, rows)


def percent(cell: Mapping[str, Values], method: str, problem: str) -> Estimate:
    """Mean utility of a method in percent of the reference's."""
    return percent_of_mean(cell[method], cell[REFERENCE[problem]])


def cell_goals(problem: str, method: str, reached: Reached) -> Iterator[Goal]:
    """The goal of a method in each cell."""
    for snr_db, paper in zip(SNRS_DB, PAPER[problem], strict=True):
        for users, printed in zip(USERS, paper, strict=True):
            least = GOALS.get((problem, method), printed)
            name = f"{method}, {problem}, K = {users}, {snr_db} dB: percent of {REFERENCE[problem]}"
            yield Goal(name, percent(reached[snr_db, users], method, problem), least)


def as_stopped(reached: Reached, options: Options) -> Table:
    """The paper's comparison: `itnet-dualnet` in percent of WMMSE from random beams, stopped too early."""
    rows = []
    count = min(STOPPED_COUNT, QUICK if options.quick else COUNT)
    for snr_db, paper in zip(SNRS_DB, PAPER[SUM_RATE], strict=True):
        for users, printed in zip(USERS, paper, strict=True):
            if snr_db < 10:
                continue
            options.report(f"WMMSE stopped early, {users} base stations, {snr_db} dB")
            stopped = {str(n): StoppedWmmse(n) for n in STOPPED}
            theirs = utilities(SUM_RATE, stopped, Cell(users, snr_db), count)
            ours = reached[snr_db, users]
            over = [percent_of_mean(ours["itnet-dualnet"][:count], theirs[str(n)]) for n in STOPPED]
            rows.append([snr_db, users, printed, *over, percent_of_mean(ours["itnet-dualnet"], ours[BEST])])
    columns = ["SNR (dB)", "K", "paper", *(f"after {n}" for n in STOPPED), "converged, from ZF"]
    title = f"`itnet-dualnet` in percent of WMMSE from random beams after some iterations ({count} realisations)"
    return Table("table-1-stopped-wmmse", title, columns, rows, heads=2)
