"""Results of a reproduction: tables, pictures and goals."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beamforge.bench.statistics import Estimate


@dataclass(frozen=True)
class Table:
    """A table; the first `heads` columns label the rows.

    A cell is a string, a number, an `Estimate`, or None for an empty cell.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    heads: int = 1

    def texts(self) -> list[list[str]]:
        """Rows as rounded text."""
        return [[text(cell) for cell in row] for row in self.rows]

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.name}.csv"

    def content(self) -> bytes:
        """CSV with all digits; a column of estimates is followed by a column of half-widths of their intervals."""
        estimated = [any(isinstance(row[place], Estimate) for row in self.rows) for place in range(len(self.columns))]
        lines: list[list[tuple[Any, Any]]] = [[(name, f"{name} ±") for name in self.columns]]
        lines += [[(c.value, c.half) if isinstance(c, Estimate) else (c, None) for c in row] for row in self.rows]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        for line in lines:
            writer.writerow([part for pair, two in zip(line, estimated, strict=True) for part in pair[: 1 + two]])
        return buffer.getvalue().encode()


@dataclass(frozen=True)
class Picture:
    """A figure as PNG."""

    name: str
    png: bytes

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.name}.png"

    def content(self) -> bytes:
        """The image."""
        return self.png


Exhibit = Table | Picture


@dataclass(frozen=True)
class Goal:
    """A measured number and the value that it should reach or, with `at_most`, not exceed; None: only reported."""

    what: str
    measured: Estimate | float
    wanted: float | None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; NaN never is, and None stands for no goal."""
        if self.wanted is None:
            return None
        value = self.measured.value if isinstance(self.measured, Estimate) else self.measured
        return value <= self.wanted if self.at_most else value >= self.wanted

    @property
    def limit(self) -> str | None:
        """The wanted value as text."""
        return None if self.wanted is None else f"{'≤' if self.at_most else '≥'} {self.wanted:g}"

    @property
    def verdict(self) -> str | None:
        """Whether the goal is met, as text."""
        return None if self.met is None else "yes" if self.met else "NO"

    @staticmethod
    def table(goals: Sequence[Goal]) -> Table:
        """A table of goals; the title has the number of those met."""
        rows = [[goal.what, goal.measured, goal.limit, goal.verdict] for goal in goals]
        met = [goal.met for goal in goals if goal.met is not None]
        title = f"Goals: {sum(met)} of {len(met)} met"
        return Table("goals", title, ["", "Measured", "Wanted", "Met"], rows)


@dataclass(frozen=True)
class Options:
    """Options of a reproduction.

    out       folder for the results.
    quick     fewer instances and repetitions.
    settings  settings of the method that replace its defaults.
    peers     folder of published channels and rates, if available.
    report    called with a description of the current work.
    """

    out: Path
    quick: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    peers: Path | None = None
    report: Callable[[str], object] = lambda doing: None


Paper = Callable[[Options], Iterator[Exhibit]]
"""A reproduction: yields its results one by one."""


def text(cell: Any) -> str:
    """A cell as rounded text.

    >>> text(Estimate(100.74321, 0.0512)), text(3), text(22.0), text(None)
    ('100.74 ± 0.05', '3', '22.00', '–')
    """
    if cell is None:
        return "–"
    if isinstance(cell, Estimate):
        return f"{cell.value:.2f} ± {cell.half:.2f}"
    return f"{cell:#.4g}" if isinstance(cell, float) else str(cell)
