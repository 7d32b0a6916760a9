"""Decentralised beamforming: the paper's table and figures, beside what is reached here."""

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
from beamforge.reproduce.decentralised.messages import rate_and_bits
from beamforge.reproduce.decentralised.regions import rate_regions
from beamforge.reproduce.decentralised.running_time import running_times
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Picture, Table

COUNT, QUICK = 3000, 100
"""Held-out realisations a cell."""

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
LEARNED = ("itnet-dualnet", "multipliers")
COMPARED: Mapping[str, Beamformer] = {
    name: Method(name) for name in ("itnet-dualnet", "multipliers", "slnr", "zf", "mrt")
}
METHODS: Mapping[str, Mapping[str, Beamformer]] = {
    SUM_RATE: {BEST: WmmseFromZeroForcing(), **COMPARED},
    MAX_MIN: {OPTIMUM: Method("duality"), **COMPARED},
}
"""The reference first. The same weights of a learned method serve all cells."""

WANTED = {
    (SUM_RATE, "itnet-dualnet"): 99.5,
    (SUM_RATE, "multipliers"): 99.8,
    (MAX_MIN, "multipliers"): 99.0,
}
"""Percent of the reference that is wanted in every cell; of `itnet-dualnet` on the minimum rate, the paper's own."""

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
                goals += wanted(problem, method, reached[problem])
        yield as_stopped(reached[SUM_RATE], options)
        for name, draw in figures.FIGURES.items():
            yield Picture(name, png(draw(reached)))
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
    """What every method reaches in every cell."""
    found: Reached = {}
    for snr_db in SNRS_DB:
        for users in USERS:
            options.report(f"{problem}, {users} base stations, {snr_db} dB")
            found[snr_db, users] = utilities(problem, METHODS[problem], Cell(users, snr_db), count)
    return found


def percents(problem: str, method: str, reached: Reached, count: int) -> Table:
    """A half of Table 1 for a method: percent of the reference, the paper's in brackets."""
    rows = []
    for snr_db, paper in zip(SNRS_DB, PAPER[problem], strict=True):
        row: list[Any] = [snr_db]
        for users, printed in zip(USERS, paper, strict=True):
            row += [percent(reached[snr_db, users], method, problem), printed]
        rows.append(row)
    columns = ["SNR (dB)", *(name for users in USERS for name in (f"K = {users}", "paper"))]
    title = f"Table 1, {problem}: `{method}` in percent of {REFERENCE[problem]} ({count} realisations a cell)"
    return Table(f"table-1-{problem}-{method}", title, columns, rows)


def percent(cell: Mapping[str, Values], method: str, problem: str) -> Estimate:
    """Mean utility of a method in percent of the reference's."""
    return percent_of_mean(cell[method], cell[REFERENCE[problem]])


def wanted(problem: str, method: str, reached: Reached) -> Iterator[Goal]:
    """The goal of a method in each cell."""
    for snr_db, paper in zip(SNRS_DB, PAPER[problem], strict=True):
        for users, printed in zip(USERS, paper, strict=True):
            least = WANTED.get((problem, method), printed)
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
