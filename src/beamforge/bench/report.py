"""Reports of a comparison: two CSV files, the figures, and a self-contained HTML page."""

from __future__ import annotations

import base64
import csv
import io
from dataclasses import asdict, fields
from datetime import UTC, datetime
from html import escape
from math import isnan
from pathlib import Path
from string import Template
from typing import Any

import beamforge
from beamforge.bench.comparison import Comparison, Row
from beamforge.bench.figures import figures
from beamforge.core.solution import Status
from beamforge.io.writers import partial_path

COLUMNS = {
    "method": "Method",
    "utility_mean": "Mean utility ({unit})",
    "utility_p5": "95 % reach ({unit})",
    "difference": "Gain over {baseline} ({unit})",
    "percent_of_bound": "Of bound (%)",
    "rate_mean": "Mean user rate (bit/s/Hz)",
    "rate_p5": "5th percentile user rate (bit/s/Hz)",
    "jain_mean": "Jain index",
    "iterations_median": "Iterations",
    "single_ms": "Alone (ms)",
    "batched_ms": "In a batch (ms)",
    "status": "Ended",
}
"""Columns of the readable table, left to right, with their headings."""

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1.5rem 0; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th { vertical-align: bottom; font-weight: 600; border-bottom: 2px solid #1a1a1a; }
th:first-child, td:first-child, td.error { text-align: left; }
td.error { color: #a40000; }
img { max-width: 100%; width: 34rem; display: block; margin: 1.5rem 0; }
.notes { color: #555; font-size: .9rem; max-width: 46rem; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$description</p>
<div class="scroll"><table>
<thead><tr>$headings</tr></thead>
<tbody>
$rows
</tbody>
</table></div>
$images
<div class="notes">
<p>$notes</p>
<p>$made</p>
</div>
</body>
</html>
""")

NOTES = (
    "Means are over the instances that a method solved within every constraint. Gains are paired by instance, more is "
    "better, with the 95 % confidence interval of Student's t. Times are per instance and medians over rounds in which "
    "the methods take turns."
)


def write_report(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``table.csv``, ``instances.csv``, the figures and ``report.html``; returns their paths."""
    images = figures(comparison)
    contents = {
        "table.csv": table_csv(comparison).encode(),
        "instances.csv": instances_csv(comparison).encode(),
        **{f"{name}.png": image for name, image in images.items()},
        "report.html": page(comparison, images).encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        partial_path(folder / name).write_bytes(content)
        partial_path(folder / name).replace(folder / name)
    return [folder / name for name in contents]


def table_csv(comparison: Comparison) -> str:
    """One line per method with the fields of `Row` in all digits; NaN is left empty."""
    return _csv([field.name for field in fields(Row)], [list(asdict(row).values()) for row in comparison.rows])


def instances_csv(comparison: Comparison) -> str:
    """One line per instance and method with the scores, whether or not they enter the means."""
    lines = [
        [label, index, Status(status).name.lower(), iterations, utility, jain, feasible, bound]
        for label, run in comparison.runs.items()
        for index, (status, iterations, utility, jain, feasible, bound) in enumerate(
            zip(
                run.solution.status.tolist(),
                run.solution.iterations.tolist(),
                run.report.utility.tolist(),
                run.report.jain.tolist(),
                run.report.feasible.tolist(),
                comparison.bound.tolist(),
                strict=True,
            )
        )
    ]
    return _csv(["method", "instance", "status", "iterations", "utility", "jain", "feasible", "bound"], lines)


def headings(comparison: Comparison) -> list[str]:
    """Headings of `cells`."""
    names = {"unit": comparison.unit, "baseline": comparison.suite.baseline}
    return [heading.format(**names) for heading in COLUMNS.values()]


def cells(row: Row) -> list[str]:
    """A row as text: rounded, with its confidence interval and status counts."""
    texts = {name: rounded(value) for name, value in asdict(row).items() if isinstance(value, float)}
    half = (row.difference_high - row.difference_low) / 2
    difference = rounded(row.difference_mean, "+.3g") + (f" ± {half:.2g}" if half > 0 else "")
    counts = ("converged", "max_iterations", "infeasible", "numerical_failure", "violated")
    ended = ", ".join(f"{getattr(row, name)} {name.replace('_', ' ')}" for name in counts if getattr(row, name))
    special = {"method": row.method, "difference": difference, "status": ended}
    return [special.get(name) or texts[name] for name in COLUMNS]


def rounded(value: float, how: str = ".4g") -> str:
    """A number as rounded text; magnitudes below 1e-9 are zero."""
    return "–" if isnan(value) else "0" if abs(value) < 1e-9 else format(value, how)


def page(comparison: Comparison, images: dict[str, bytes]) -> str:
    """The HTML page, with embedded figures."""
    suite, machine = comparison.suite, comparison.machine
    made = (
        f"{len(comparison.bound)} instances, problem {suite.problem}, baseline {suite.baseline}. "
        f"{machine.processor}, {machine.threads} threads; torch {machine.torch}, Python {machine.python}; beamforge "
        f"{beamforge.__version__}, commit {machine.commit}; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    )
    return PAGE.substitute(
        title=escape(f"beamforge bench {suite.name}"),
        description=escape(suite.description),
        headings="".join(f"<th>{escape(heading)}</th>" for heading in headings(comparison)),
        rows="\n".join(_line(row) for row in comparison.rows),
        images="\n".join(_image(name, image) for name, image in images.items()),
        notes=escape(NOTES),
        made=escape(made),
    )


def _line(row: Row) -> str:
    if row.error:
        wide = f'<td class="error" colspan="{len(COLUMNS) - 1}">{escape(row.error)}</td>'
        return f"<tr><td>{escape(row.method)}</td>{wide}</tr>"
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(row)) + "</tr>"


def _image(name: str, image: bytes) -> str:
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(image).decode()}">'


def _csv(header: list[str], lines: list[list[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if isinstance(v, float) and isnan(v) else v for v in line] for line in lines])
    return buffer.getvalue()
