"""Tables 2, 3 and 4 and Figs. 2 and 3 of the hybrid beamforming paper, and its claims as goals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from beamforge.bench.statistics import Estimate
from beamforge.bench.timing import one_thread
from beamforge.core.solver import Solver
from beamforge.plot.style import png
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Picture, Table
from beamforge.reproduce.hybrid import training_curves
from beamforge.reproduce.hybrid.baseline import Baseline
from beamforge.reproduce.hybrid.cells import FEEDBACK, PILOTS, Cell, Result, learned, mean, perfect, run
from beamforge.reproduce.hybrid.figures import power_against_outage
from beamforge.reproduce.hybrid.networks import DIGITAL, FCN, GCN, TWO, networks, trains

NOMINAL, OTHERS = 0.1, (0.05, 0.2)
"""Nominal outage of the tables, and those that Fig. 2 adds."""

COUNT, QUICK = 5000, 60
"""Held-out instances of a cell."""

VALIDATION = 2000
"""Validation instances for the margin of the baseline, at most `COUNT` of the run."""

ACCURACY = 0.01
"""Wanted distance of the outage from the nominal one."""

MARGIN, PERFECT = "hybrid-margin", "greedy-hybrid, perfect CSI"
SHARED, QUANTILE = "one GCN for both", "hybrid-gcn, quantile"

Results = dict[tuple[Cell, str], list[Result]]
"""Results of a method in a cell, one for each fold."""


def hybrid_outage(options: Options) -> Iterator[Exhibit]:
    """The paper's Tables 2 to 4 and Figs. 2 and 3, with shipped networks or newly trained ones."""
    with one_thread():
        four = tuple(Cell(4, *kind) for kind in PILOTS)
        few = tuple(Cell(users, *kind) for users in (1, 2, 3) for kind in (PILOTS[0], PILOTS[2]))
        slow = tuple(Cell(users, *kind) for users in (1, 2) for kind in FEEDBACK)
        pilots, marks = measured_pilots(options, four, few)
        baselines = {cell: baseline(options, cell, NOMINAL) for cell in (*four, *few, *slow)}
        yield table("table-2", "Table 2: four users by pilot power", four, pilots, baselines)
        yield table("table-3", "Table 3: one to four users", (*few, four[0], four[2]), pilots, baselines)
        fed = measured_feedback(options, slow)
        yield table("table-4", "Table 4: statistics choose the analog beams", slow, fed, baselines)
        yield Picture("figure-2", png(figure_2(options, four, pilots, baselines)))
        logs = training_curves.logs(options)
        yield Picture("figure-3", png(training_curves.curves(logs, NOMINAL)))
        found = [*goals(pilots, baselines, marks), *feedback_goals(fed, baselines)]
        steadiness = {form: training_curves.variability(lines, NOMINAL) for form, lines in logs.items()}
        ratio = steadiness["annealed"] / steadiness["quantile"]
        found.append(Goal("annealed: distance of validation outage from nominal, of quantile's", ratio, 1.0, True))
        yield Goal.table(found)


def count(options: Options) -> int:
    """Instances of a cell."""
    return QUICK if options.quick else COUNT


def baseline(options: Options, cell: Cell, outage: float) -> Baseline:
    """The baseline in a cell."""
    options.report(f"{MARGIN}, {cell.users} users, {cell.name}, outage {outage:g}")
    return Baseline.of(cell, outage, count(options), min(count(options), VALIDATION))


def measured(options: Options, cells: Sequence[Cell], methods: Mapping[str, list[Solver]], outage: float) -> Results:
    """Results of learned methods in cells."""
    found: Results = {}
    for cell in cells:
        instance = cell.test(count(options))
        for name, solvers in methods.items():
            options.report(f"{name}, {cell.users} users, {cell.name}")
            found[cell, name] = [run(learned(solver, outage), instance) for solver in solvers]
    return found


def measured_pilots(options: Options, four: Sequence[Cell], few: Sequence[Cell]) -> tuple[Results, tuple[str, ...]]:
    """Results with pilots, and the names of methods trained on every number of users."""
    methods = {name: networks(options, name, name, {}) for name in (GCN, FCN, DIGITAL)}
    found = measured(options, (*four, *few), methods, NOMINAL)
    if trains(options):
        quantile = networks(options, "quantile", GCN, {"model.constraint": "quantile"})
        found |= measured(options, four, {QUANTILE: quantile}, NOMINAL)
        partly = networks(options, "two-three", GCN, {"data.users": "[2, 3]"})
        found |= measured(options, (*few, four[0], four[2]), {f"{GCN}*": partly}, NOMINAL)
    for cell in (*four, *few):
        options.report(f"{PERFECT}, {cell.users} users, {cell.name}")
        found[cell, PERFECT] = [run(perfect, cell.test(count(options)))]
    return found, tuple(methods)


def measured_feedback(options: Options, cells: Sequence[Cell]) -> Results:
    """Results with feedback."""
    methods = {TWO: networks(options, TWO, TWO, {})}
    if trains(options):
        methods[SHARED] = networks(options, "shared", TWO, {"model.shared": "true"})
    found = measured(options, cells, methods, NOMINAL)
    for cell in cells:
        found[cell, PERFECT] = [run(perfect, cell.test(count(options)))]
    return found


def over_folds(values: Sequence[float], single: Estimate) -> Estimate:
    """Mean and standard deviation over folds; of one fold, its mean and 95 % interval."""
    if len(values) == 1:
        return single
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1)))


def row(cell: Cell, name: str, results: Sequence[Result], rival: Baseline | None) -> list[object]:
    """A row of a table."""
    outage = over_folds([one.outage.value for one in results], results[0].outage)
    power = over_folds([one.mean_power for one in results], mean(results[0].power))
    percent = None
    if rival is not None:
        each = [rival.percent(one) for one in results]
        percent = over_folds([one.value for one in each], each[0])
    unsolved = 100 * float(np.mean([one.unsolved for one in results]))
    scaled = Estimate(100 * outage.value, 100 * outage.half)
    return [f"{cell.users} users, {cell.name}", name, power, scaled, percent, unsolved]


def table(name: str, title: str, cells: Sequence[Cell], found: Results, rivals: Mapping[Cell, Baseline]) -> Table:
    """A table of cells: power, outage, and power in percent of the baseline's at the same outage."""
    rows = []
    for cell in cells:
        rows.append(row(cell, f"{MARGIN}, {rivals[cell].margin_db:.2f} dB", [rivals[cell].nominal], None))
        for (where, method), results in found.items():
            if where == cell:
                rows.append(row(cell, method, results, None if method == PERFECT else rivals[cell]))
    instances = len(rivals[cells[0]].nominal.power)
    several = max(len(results) for results in found.values()) > 1
    spread = "mean ± standard deviation over folds" if several else "mean ± 95 % interval"
    columns = ["", "Method", "Power (W)", "Outage (%)", f"Power in % of {MARGIN} at that outage", "Unsolved (%)"]
    return Table(name, f"{title} ({instances} instances; {spread})", columns, rows, heads=2)


def figure_2(options: Options, cells: Sequence[Cell], found: Results, rivals: Mapping[Cell, Baseline]) -> Figure:
    """Power against outage, with networks for other nominal outages in a full run."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for cell in cells:
        lines = panels.setdefault(cell.name, {})
        near = (*rivals[cell].nearby, rivals[cell].nominal)
        lines[MARGIN] = [(one.outage.value, one.mean_power) for one in near]
        for (where, method), results in found.items():
            if where == cell and method != PERFECT:
                lines[method] = [middle(results)]
    if trains(options):
        for outage in OTHERS:
            for name in (GCN, FCN, DIGITAL):
                solvers = networks(options, f"{name}-{outage:g}", name, {"model.outage": f"{outage:g}"})
                for (cell, method), results in measured(options, cells, {name: solvers}, outage).items():
                    panels[cell.name][method].append(middle(results))
            for cell in cells:
                one = baseline(options, cell, outage).nominal
                panels[cell.name][MARGIN].append((one.outage.value, one.mean_power))
    bound = {cell.name: found[cell, PERFECT][0].mean_power for cell in cells}
    return power_against_outage(panels, bound)


def middle(results: Sequence[Result]) -> tuple[float, float]:
    """Outage and power, means over folds."""
    return float(np.mean([one.outage.value for one in results])), float(np.mean([one.mean_power for one in results]))


def goals(found: Results, rivals: Mapping[Cell, Baseline], names: Sequence[str]) -> Iterator[Goal]:
    """The paper's claims with pilots."""
    for name in names:
        results = {cell: each for (cell, method), each in found.items() if method == name}
        off = {cell: middle(each)[0] - NOMINAL for cell, each in results.items()}
        worst = max(shift if cell.users == 1 else abs(shift) for cell, shift in off.items())
        what = f"{name}: outage in percentage points from the nominal one, largest (of one user: above it)"
        yield Goal(what, 100 * worst, 100 * ACCURACY, at_most=True)
    for cell in {cell: None for cell, name in found if name == GCN}:
        percent = percents(found, rivals, cell, GCN)
        best = cell.name == PILOTS[2][0]
        what = f"{GCN}: power in percent of {MARGIN} at that outage, {cell.users} users, {cell.name}"
        yield Goal(what, percent, None if best else 100.0, at_most=True)
    for cell in (cell for cell, name in found if name == FCN and cell.users == 4):
        ratio = percents(found, rivals, cell, GCN).value / percents(found, rivals, cell, FCN).value
        yield Goal(f"{GCN} in percent of {FCN}, {cell.name}", 100 * ratio, 100.0, at_most=True)


def feedback_goals(found: Results, rivals: Mapping[Cell, Baseline]) -> Iterator[Goal]:
    """The paper's claims with feedback."""
    for cell in {cell: None for cell, name in found if name == TWO}:
        percent = percents(found, rivals, cell, TWO)
        what = f"{TWO}: power in percent of {MARGIN} at that outage, {cell.users} users, {cell.name}"
        yield Goal(what, percent, 100.0, at_most=True)


def percents(found: Results, rivals: Mapping[Cell, Baseline], cell: Cell, name: str) -> Estimate:
    """Power in percent of the baseline's, of the folds."""
    each = [rivals[cell].percent(one) for one in found[cell, name]]
    return over_folds([one.value for one in each], each[0])
