"""Figs. 4, 5, 7 and 8 of the masked-transformer paper from the tables: percent of converged WMMSE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from beamforge.bench.statistics import Estimate
from beamforge.plot.style import line, styled
from beamforge.reproduce.exhibits import Table

Sizes = Mapping[tuple[int, int], Mapping[str, Estimate]]
"""Percent by number of users and antennas, and by method."""

PERCENT = "Percent of converged WMMSE from RZF"

REFERENCES: Mapping[str, Mapping[str, Any]] = {
    "rzf": {"color": "#888888", "linestyle": ":"},
    "capacity (DPC)": {"color": "#000000", "linewidth": 1.0},
}
"""Styles of the reference curves."""


@styled
def by_size(found: Sizes, numbers: Sequence[int], pair: tuple[str, str]) -> Figure:
    """Fig. 7 (a pair of methods against antennas, at most users) and Fig. 8 (all methods against users)."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    most, middle = numbers[-1], numbers[len(numbers) // 2]
    draw(left, numbers, {name: [found[most, N][name] for N in numbers] for name in pair})
    left.set(xlabel=f"Antennas N (K = {most})", ylabel=PERCENT)
    left.legend(loc="lower right")
    draw(right, numbers, {name: [found[K, middle][name] for K in numbers] for name in found[most, most]})
    right.set(xlabel=f"Users K (N = {middle})")
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


@styled
def by_column(steps: Table, levels: Table) -> Figure:
    """Fig. 4 (against ascent steps at inference) and Fig. 5 (against the SNR), a curve for each size."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for ax, table, label in ((left, steps, "Ascent steps per layer at inference"), (right, levels, "SNR (dB)")):
        columns = [
            (place, numbers) for place, name in enumerate(table.columns) if (numbers := number(name)) is not None
        ]
        rows = {f"K×N = {row[0]}": [row[place] for place, _ in columns] for row in table.rows}
        draw(ax, [x for _, x in columns], rows)
        ax.set(xlabel=label)
    left.set(ylabel=PERCENT)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def draw(ax: Axes, x: Sequence[float], curves: Mapping[str, Sequence[Estimate]]) -> None:
    """A curve for each name, with 95 % intervals."""
    for index, (name, values) in enumerate(curves.items()):
        style = REFERENCES.get(name) or line(index)
        ax.errorbar(x, [one.value for one in values], [one.half for one in values], label=name, **style)
    ax.set_xticks(list(x))


def number(name: str) -> float | None:
    """The number in a column's name, if there is one.

    >>> number("Q = 4"), number("20 dB"), number("K×N")
    (4.0, 20.0, None)
    """
    found = [word for word in name.split() if word.removeprefix("-").replace(".", "", 1).isdigit()]
    return float(found[0]) if found else None
