"""Sum rate under a prescribed fairness: the paper's table and figures, with the frontier added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from beamforge.bench.statistics import Estimate, paired_difference
from beamforge.bench.timing import interleaved, one_thread
from beamforge.classical.fairness.pareto import Pareto
from beamforge.classical.linear import MRT, RZF, ZF, WeightedSLNR
from beamforge.core import batching
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.solver import Solver
from beamforge.learned.fairness.wit import SLACK, WiT
from beamforge.plot.style import png
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Picture, Table
from beamforge.reproduce.fairness import figures as figures
from beamforge.reproduce.fairness.frontier import (
    Rates,
    frontier_rates,
    percent_of_frontier,
    percent_of_slnr,
    solve_drops,
)
from beamforge.reproduce.fairness.networks import Networks, networks
from beamforge.scenarios import Fairness
from beamforge.scenarios.base import TEST_SEEDS

COUNT, QUICK = 10_000, 500
"""Number of held-out drops."""

FRONTIER_COUNT, FRONTIER_QUICK = 500, 60
"""Number of drops, the first ones, for which the frontier is found."""

TIMED = 1000
"""Drops of the timed batch, in single precision."""

EXTRA_PRICES = (0.0, 6.0, 110.0, 200.0)
"""Prices of fairness at which the frontier is found, besides those of the multipliers at their targets."""

SIZES = ((6, 16), (12, 32), (20, 16), (4, 8), (16, 16))
"""Users and antennas of other cells."""

OTHER_TARGETS = (0.75, 0.86, 0.96)
"""Targets in these cells."""

TARGETS = (0.66, 0.7, 0.75, 0.8, 0.86, 0.9, 0.93, 0.96, 0.97, 0.98)
"""Targets of the learned multipliers in the paper's cell."""

INDEX_SLACK = 0.002
"""Allowed shortfall of a mean index below its target."""


@dataclass(frozen=True)
class Row:
    """A row of the paper's Table II, the goal `here` for our sum rate of weighted SLNR, and the paper's gain.

    The gain in percent is that of the network over weighted SLNR at the same mean index, where the latter reaches it,
    else over weighted SLNR with this alpha.
    """

    alpha: float
    slnr: float
    limit: float
    jain: float
    price: float
    network: float
    here: float
    gain: float | None


TABLE = (
    Row(0.0, 30.48, 0.6, 0.658, 0.0, 29.99, 30.96, None),
    Row(0.5, 29.47, 0.7, 0.693, 0.897, 29.53, 29.93, 0.2),
    Row(0.7, 27.94, 0.75, 0.746, 1.274, 28.75, 28.33, 2.9),
    Row(0.85, 26.29, 0.8, 0.801, 2.2, 27.36, 26.55, 4.1),
    Row(1.0, 24.59, 0.86, 0.861, 2.212, 25.58, 24.71, 4.0),
    Row(1.1, 23.57, 0.9, 0.901, 2.467, 24.23, 23.61, 2.8),
    Row(1.3, 21.94, 0.93, 0.929, 2.677, 23.12, 21.87, 5.4),
    Row(1.8, 19.4, 0.96, 0.958, 3.002, 21.84, 19.23, 12.6),
    Row(2.0, 18.75, 0.97, 0.967, 3.421, 21.34, 18.56, 13.8),
    Row(5.0, 15.26, 0.973, 0.973, 3.771, 21.1, 15.1, 38.3),
)


def fairness(options: Options) -> Iterator[Exhibit]:
    """Table II and Figs. 2 to 6 with classical methods, learned multipliers and frontier; other sizes; times; goals."""
    learned = networks(options)
    multipliers = learned.multipliers
    count, known = (QUICK, FRONTIER_QUICK) if options.quick else (COUNT, FRONTIER_COUNT)
    with torch.no_grad(), one_thread():
        options.report("drops")
        drops = Fairness().sample(count, seed=TEST_SEEDS[0])
        options.report("weighted SLNR")
        slnr = {row.alpha: solve_drops(WeightedSLNR(row.alpha), drops, 0.5) for row in TABLE}
        options.report("wit")
        wit = {limit: transformer_rates(one, drops) for limit, one in learned.wit.items()}
        options.report("multipliers")
        limits = sorted({*TARGETS, *(row.limit for row in TABLE)})
        ours = {limit: one for limit in limits if (one := rates_if_feasible(multipliers, drops, limit))}
        options.report("frontier")
        prices = sorted({*EXTRA_PRICES, *(one.scalar for one in ours.values() if one.scalar is not None)})
        best = frontier_rates(batching.take(drops, slice(known)), prices)
        linear = {name: solve_drops(kind(), drops) for name, kind in (("MRT", MRT), ("ZF", ZF), ("SLNR", RZF))}

        yield table_two(slnr, wit, ours)
        yield at_equal_fairness(ours, wit, best, drops)
        yield frontier_table(best)
        shown = figures.FigureData(slnr, wit, ours, best, linear, TABLE)
        for name, draw in figures.FIGURES.items():
            yield Picture(name, png(draw(shown)))

        goals = [*paper_cell_goals(slnr, wit, ours, best, drops)]
        options.report("other sizes")
        table, more = other_sizes(multipliers, options)
        yield table
        options.report("time")
        timed, last = batch_times(learned, Fairness().sample(TIMED, seed=TEST_SEEDS[0]), options)
        yield timed
    yield Goal.table([*goals, *more, *last])


def rates_if_feasible(solver: Solver, drops: Instance, limit: float) -> Rates | None:
    """Results of a method for a mean index, None if it cannot reach that."""
    try:
        return solve_drops(solver, drops, limit)
    except ConfigError:
        return None


def transformer_rates(network: WiT, drops: Instance) -> Rates:
    """Results of a transformer at its own target, with the price found in its training."""
    return Rates(solve_drops(network, drops, network.dual.target).rate, float(network.dual.price))


# --- tables ----------------------------------------------------------------------------------------------------------
def table_two(slnr: Mapping[float, Rates], wit: Mapping[float, Rates], ours: Mapping[float, Rates]) -> Table:
    """Table II: the paper's figures and those measured here."""
    rows: list[list[Any]] = []
    for row in TABLE:
        one, net, mine = slnr[row.alpha], wit.get(row.limit), ours.get(row.limit)
        cells = [None] * 3 if net is None else [mean(net.jain), net.scalar, mean(net.sum_rate)]
        slnr_cells = [f"{row.alpha:g}", row.slnr, mean(one.sum_rate), mean(one.jain)]
        wit_cells = [f"{row.limit:g}", row.jain, cells[0], row.price, cells[1], row.network, cells[2]]
        rows.append(
            [*slnr_cells, *wit_cells, *([None] * 2 if mine is None else [mean(mine.jain), mean(mine.sum_rate)])]
        )
    columns = ["alpha", "SLNR, paper", "here", "J", "J_LB", "J_DNN, paper", "wit", "lambda, paper", "wit"]
    columns += ["DNN, paper", "wit", "multipliers J", "sum rate"]
    title = "Table II: mean sum rates (bit/s/Hz) and Jain's index, the paper's and those measured here"
    return Table("table-2", title, columns, rows)


def at_equal_fairness(
    ours: Mapping[float, Rates], wit: Mapping[float, Rates], best: list[Rates], drops: Instance
) -> Table:
    """The learned methods against weighted SLNR and the frontier, each at the learned method's own mean index."""
    rows: list[list[Any]] = []
    for name, runs in (("multipliers", ours), ("wit", wit)):
        for limit, one in runs.items():
            figure = [mean(one.jain), one.scalar if name == "multipliers" else None, mean(one.sum_rate)]
            rows.append([name, f"{limit:g}", *figure, over_slnr(one, drops), percent_of_frontier(one, best)])
    columns = ["Method", "J_LB", "J", "price", "Sum rate", "Over weighted SLNR (%)", "Percent of the frontier"]
    title = (
        f"At equal mean index: gain over weighted SLNR ({len(drops.truth.noise)} drops), and percent of the frontier"
    )
    return Table("along", f"{title} (the first {len(best[0].rate)})", columns, rows, heads=2)


def frontier_table(best: list[Rates]) -> Table:
    """The frontier as a table."""
    rows = [[f"{one.scalar:.4g}", mean(one.jain), estimate(one.sum_rate)] for one in best]
    title = f"The frontier: `pareto` at some prices of fairness ({len(best[0].rate)} drops)"
    return Table("frontier", title, ["Price", "Mean index", "Mean sum rate"], rows)


def over_slnr(one: Rates, drops: Instance) -> Estimate | None:
    """Gain in percent over weighted SLNR at the same mean index, None where that cannot reach it."""
    try:
        found = percent_of_slnr(one, drops)
    except ConfigError:
        return None
    return Estimate(found.value - 100, found.half)


def mean(values: Any) -> float:
    """Mean over the drops."""
    return float(values.mean())


def estimate(values: Any) -> Estimate:
    """Mean over the drops with its confidence interval."""
    found = paired_difference(values, 0 * values)
    return Estimate(found.mean, (found.high - found.low) / 2)


# --- goals -----------------------------------------------------------------------------------------------------------
def paper_cell_goals(
    slnr: Mapping[float, Rates],
    wit: Mapping[float, Rates],
    ours: Mapping[float, Rates],
    best: list[Rates],
    drops: Instance,
) -> Iterator[Goal]:
    """Goals in the paper's cell."""
    for row in TABLE:
        off = 100 * abs(mean(slnr[row.alpha].sum_rate) / row.here - 1)
        yield Goal(f"wslnr, alpha {row.alpha:g}: percent off {row.here}", off, 2.0, at_most=True)
    for row in TABLE:
        if (net := wit.get(row.limit)) is None:
            yield Goal(f"wit, J_LB {row.limit:g}: no weights", float("nan"), row.limit - SLACK)
            continue
        yield Goal(f"wit, J_LB {row.limit:g}: mean index", mean(net.jain), row.limit - SLACK)
        if row.gain is not None:
            same = over_slnr(net, drops)
            fixed = 100 * (mean(net.sum_rate) / mean(slnr[row.alpha].sum_rate) - 1)
            said = f"alpha {row.alpha:g}" if same is None else "weighted SLNR at that index"
            yield Goal(f"wit, J_LB {row.limit:g}: percent over {said}", fixed if same is None else same, row.gain)
    for limit in TARGETS:
        yield from target_goals(f"multipliers, target {limit:g}", limit, ours.get(limit), best, 99.5, drops)


def target_goals(
    name: str, limit: float, one: Rates | None, best: Sequence[Rates], wanted: float, drops: Instance
) -> Iterator[Goal]:
    """Goals of the learned multipliers at a target: to meet it, near the frontier and above weighted SLNR."""
    yield Goal(f"{name}: mean index", float("nan") if one is None else mean(one.jain), limit - INDEX_SLACK)
    if one is not None:
        yield Goal(f"{name}: percent of the frontier", percent_of_frontier(one, best), wanted)
        if (gain := over_slnr(one, drops)) is not None:
            yield Goal(f"{name}: percent over weighted SLNR", gain, 0.0)


def other_sizes(multipliers: Solver, options: Options) -> tuple[Table, list[Goal]]:
    """The learned multipliers in cells of other sizes, and goals; the frontier is found at the price that they use."""
    count = FRONTIER_QUICK if options.quick else FRONTIER_COUNT // 2
    rows: list[list[Any]] = []
    goals: list[Goal] = []
    for users, antennas in SIZES:
        drops = Fairness(users=users, antennas=antennas).sample(count, seed=TEST_SEEDS[0])
        for limit in OTHER_TARGETS[:: 2 if options.quick else 1]:
            cell = f"{users}×{antennas}"
            one = rates_if_feasible(multipliers, drops, limit)
            best = [] if one is None else frontier_rates(drops, [one.scalar or 0.0])
            goals += target_goals(f"multipliers, {cell}, target {limit:g}", limit, one, best, 99.0, drops)
            if one is None:
                rows.append([cell, f"{limit:g}", *[None] * 5])
                continue
            figure = [mean(one.jain), one.scalar, mean(one.sum_rate)]
            rows.append([cell, f"{limit:g}", *figure, over_slnr(one, drops), percent_of_frontier(one, best)])
    columns = ["Users × antennas", "Target", "J", "price", "Sum rate", "Over weighted SLNR (%)"]
    title = f"`multipliers` in cells of other sizes ({count} drops)"
    return Table("sizes", title, [*columns, "Percent of the frontier"], rows, heads=2), goals


def batch_times(learned: Networks, drops: Instance, options: Options) -> tuple[Table, list[Goal]]:
    """Times for a batch of drops with one thread, and goals."""
    asked = {
        "fair": build_problem("fair-sum-rate", {**drops.context, "jain": 0.86}).bind(drops.truth),
        "sum": build_problem("sum-rate", drops.context).bind(drops.truth),
    }
    ways: dict[str, tuple[Solver, str]] = {
        "rzf": (RZF(), "sum"),
        "wslnr, alpha given": (WeightedSLNR(1.0), "fair"),
        "multipliers, price given": (learned.multipliers.fitted(asked["fair"], drops), "fair"),
        "multipliers, price found": (learned.multipliers, "fair"),
    }
    if 0.86 in learned.wit:
        ways["wit"] = (learned.wit[0.86], "fair")
    slow: dict[str, tuple[Solver, str]] = {"pareto, price given": (Pareto(36.0), "fair")}
    if not options.quick:
        slow["pareto, price found"] = (Pareto(), "fair")

    def task(way: tuple[Solver, str], _: int = 0) -> None:
        way[0].solve(asked[way[1]], drops)

    repeats = 3 if options.quick else 5
    seconds = interleaved({name: partial(task, way) for name, way in ways.items()}, repeats)
    few = 1 if options.quick else 3
    seconds |= interleaved({name: partial(task, way) for name, way in slow.items()}, few)
    rows = [[name, 1e3 * value, value / seconds["rzf"]] for name, value in seconds.items()]
    title = f"Time for {len(drops.truth.noise)} drops, target 0.86 (medians of {repeats}, of {few} for pareto)"
    table = Table("time", title, ["", "ms", "/ rzf"], rows)

    def ratio(above: str, below: str) -> float:
        return seconds.get(above, float("nan")) / seconds.get(below, float("nan"))

    goals = [
        Goal(
            f"time of multipliers, price {how}, over that of rzf",
            ratio(f"multipliers, price {how}", "rzf"),
            20.0,
            at_most=True,
        )
        for how in ("given", "found")
    ]
    goals += [
        Goal(f"time of pareto over that of multipliers, {how}", ratio(f"pareto, {how}", f"multipliers, {how}"), 100.0)
        for how in ("price given", "price found")
        if f"pareto, {how}" in slow
    ]
    goals.append(Goal("time of wit over that of rzf", ratio("wit", "rzf"), None))
    goals += [Goal(f"time of {name} over that of wit", ratio(name, "wit"), 100.0) for name in slow]
    return table, goals
