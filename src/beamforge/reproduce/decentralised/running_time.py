"""Fig. 6 of the paper: time of every method for a batch, and how it depends on K and on the SNR."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from beamforge.bench.timing import interleaved
from beamforge.core.named_problems import build_problem
from beamforge.plot.style import line, png, styled
from beamforge.reproduce.decentralised.cells import (
    MAX_MIN,
    SNRS_DB,
    SUM_RATE,
    USERS,
    Beamformer,
    Cell,
    Method,
    WmmseFromZeroForcing,
)
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Picture, Table

BATCH = 300

TIMED: dict[str, tuple[str, Beamformer]] = {
    "mrt": (SUM_RATE, Method("mrt")),
    "slnr": (SUM_RATE, Method("slnr")),
    "itnet-dualnet, sum-rate": (SUM_RATE, Method("itnet-dualnet")),
    "itnet-dualnet, max-min": (MAX_MIN, Method("itnet-dualnet")),
    "multipliers, sum-rate": (SUM_RATE, Method("multipliers")),
    "multipliers, max-min": (MAX_MIN, Method("multipliers")),
    "wmmse from ZF": (SUM_RATE, WmmseFromZeroForcing()),
    "wmmse": (SUM_RATE, Method("wmmse")),
    "duality": (MAX_MIN, Method("duality")),
}

AT = (6, 10)
"""Base stations and SNR (dB) of the goals."""


def running_times(options: Options) -> tuple[list[Exhibit], list[Goal]]:
    """Milliseconds per realisation, in a batch, by method and cell."""
    cells = [(users, 10) for users in USERS] + [(USERS[-1], snr_db) for snr_db in SNRS_DB if snr_db != 10]
    if options.quick:
        cells = [(2, 10), AT, (6, -5), (6, 25)]
    repeats = 3 if options.quick else 7
    seconds = seconds_of(cells, repeats)
    rows: list[list[Any]] = [
        [users, snr_db, *(1e3 * taken / BATCH for taken in seconds[users, snr_db].values())] for users, snr_db in cells
    ]
    title = f"Fig. 6: ms per realisation, batch {BATCH}, one thread (medians of {repeats})"
    table = Table("running-time", title, ["K", "SNR (dB)", *TIMED], rows, heads=2)
    return [table, Picture("figure-6-running-time", png(by_cell(seconds)))], goals(seconds)


def seconds_of(cells: Sequence[tuple[int, int]], repeats: int) -> dict[tuple[int, int], dict[str, float]]:
    """Seconds of every method for a batch of each cell; in every round all methods run once on all cells."""
    tasks = {(cell, name): task for cell in cells for name, task in tasks_of(*cell).items()}
    taken = interleaved(tasks, repeats)
    return {cell: {name: taken[cell, name] for name in TIMED} for cell in cells}


def tasks_of(users: int, snr_db: int) -> dict[str, Callable[[int], object]]:
    """Every method on a batch of a cell; weights are loaded once, not for every batch."""
    instance = Cell(users, snr_db).sample(BATCH)

    def task(problem: str, method: Beamformer) -> Callable[[int], object]:
        question = build_problem(problem, instance.context).bind(instance.truth)
        if isinstance(method, Method):
            solver = method.solver(question, instance)
            return lambda _: solver.solve(question, instance)
        return lambda _: method.beams(question, instance)

    return {name: task(*timed) for name, timed in TIMED.items()}


def goals(seconds: dict[tuple[int, int], dict[str, float]]) -> list[Goal]:
    """How much faster the learned methods are than the exact ones, and that their time does not depend on the SNR."""
    here, found = seconds[AT], []
    for method in ("itnet-dualnet", "multipliers"):
        exact = here["duality"] / here[f"{method}, max-min"]
        found.append(Goal(f"time of duality over that of {method}, K = 6", exact, 50.0))
        fast = here["wmmse"] / here[f"{method}, sum-rate"]
        found.append(Goal(f"time of wmmse over that of {method}, K = 6", fast, 5.0))
        from_zf = here["wmmse from ZF"] / here[f"{method}, sum-rate"]
        found.append(Goal(f"time of wmmse from ZF over that of {method}, K = 6", from_zf, None))
        taken = [cell[f"{method}, sum-rate"] for (users, _), cell in seconds.items() if users == AT[0]]
        spread = max(taken) / min(taken)
        found.append(Goal(f"{method}, K = 6: longest time over shortest, all SNRs", spread, 1.25, at_most=True))
    return found


@styled
def by_cell(seconds: dict[tuple[int, int], dict[str, float]]) -> Figure:
    """Time against K, and against the SNR."""
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for index, name in enumerate(TIMED):
        by_users = sorted((users, 1e3 * taken[name] / BATCH) for (users, snr), taken in seconds.items() if snr == AT[1])
        style = line(index) if name != "duality" else {**line(index), "color": "#888888"}
        left.plot(*zip(*by_users, strict=True), label=name, **style)
        by_snr = sorted((snr, 1e3 * taken[name] / BATCH) for (users, snr), taken in seconds.items() if users == AT[0])
        right.plot(*zip(*by_snr, strict=True), **style)
    left.set_xticks(USERS)
    left.set(xlabel="Base stations K (10 dB)", ylabel="Time per realisation (ms)", yscale="log")
    right.set(xlabel=f"SNR (dB), K = {AT[0]}")
    figure.legend(loc="outside upper center", ncols=5)
    return figure
