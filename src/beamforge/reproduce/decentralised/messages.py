"""Messages between base stations: numbers per coherence block for each method, and the rate against their bytes."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from beamforge.bench.statistics import percent_of_mean
from beamforge.core.evaluate import evaluate
from beamforge.core.named_problems import build_problem
from beamforge.decentralised.quantised import BITS
from beamforge.decentralised.solver import DecentralisedSolver
from beamforge.plot.style import line, png, styled
from beamforge.registry import create
from beamforge.reproduce.decentralised.cells import MAX_MIN, SUM_RATE, Beamformer, Cell, Method, WmmseFromZeroForcing
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Picture, Table

CELL = Cell(users=4, snr_db=10)
COUNT, QUICK = 3000, 200
ROUNDS = (1, 2, 3)
"""Of `multipliers`."""

REFERENCE: dict[str, Beamformer] = {SUM_RATE: WmmseFromZeroForcing(), MAX_MIN: Method("duality")}


def rate_and_bits(options: Options) -> tuple[list[Exhibit], list[Goal]]:
    """Percent of the centralised reference for each method and each number of bits in a message."""
    instance = CELL.sample(QUICK if options.quick else COUNT)
    rows: list[list[Any]] = []
    for name in (SUM_RATE, MAX_MIN):
        problem = build_problem(name, instance.context).bind(instance.truth)
        best = evaluate(problem, instance, REFERENCE[name].beams(problem, instance)).utility.double().numpy()
        for label, method, settings, bits in compared(name):
            options.report(f"messages of {label}, {name}")
            solver = create(problem, instance.truth, method, settings, decentralised=True)
            assert isinstance(solver, DecentralisedSolver)
            solver.message_bits = bits
            solution = solver.solve(problem, instance)
            percent = percent_of_mean(evaluate(problem, instance, solution.W).utility.double().numpy(), best)
            scalars, sent = (int(solution.info[each][0]) for each in ("scalars", "bits"))
            rows.append([name, label, bits or 32, scalars, sent / 8, percent])
        every = 2 * CELL.antennas * CELL.users**2
        rows.append([name, "centralised, all channels", 32, every, 4.0 * every, 100.0])
    columns = ["Problem", "Method", "Bits per number", "Numbers", "Bytes", "Percent"]
    title = f"Messages of a coherence block, K = {CELL.users}, {CELL.snr_db:g} dB: percent of the centralised reference"
    table = Table("messages", title, columns, rows, heads=2)
    return [table, Picture("rate-bytes", png(rate_by_bytes(table)))], []


def compared(problem: str) -> list[tuple[str, str, dict[str, Any], int | None]]:
    """Label, method, settings and bits of a message."""
    every = (*BITS, None)
    found: list[tuple[str, str, dict[str, Any], int | None]] = [("slnr", "slnr", {}, None)]
    found += [("itnet-dualnet", "itnet-dualnet", {}, bits) for bits in every]
    for rounds in ROUNDS:
        label = "multipliers" if rounds == 1 else f"multipliers, {rounds} rounds"
        found += [(label, "multipliers", {"rounds": rounds}, bits) for bits in every]
    return [*found, ("zhang-cui", "zhang-cui", {}, None)]


@styled
def rate_by_bytes(table: Table) -> Figure:
    """Percent against bytes, a curve for each method over the bits of a number."""
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    for ax, problem in zip(figure.subplots(1, 2), (SUM_RATE, MAX_MIN), strict=True):
        rows = [row for row in table.rows if row[0] == problem and row[1] != "slnr"]
        for index, label in enumerate(dict.fromkeys(row[1] for row in rows)):
            points = [(row[4], getattr(row[5], "value", row[5])) for row in rows if row[1] == label]
            ax.plot(*zip(*points, strict=True), label=label, **line(index))
        local = next(row[5].value for row in table.rows if row[:2] == [problem, "slnr"])
        ax.axhline(local, color="black", linewidth=0.8, zorder=0)
        ax.annotate("slnr, no messages", (ax.get_xlim()[1], local), (-4, 3), textcoords="offset points", ha="right")
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.set(xscale="log", xlabel="Bytes per coherence block, all base stations", title=problem)
    figure.axes[0].set_ylabel("Percent of the centralised reference")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
