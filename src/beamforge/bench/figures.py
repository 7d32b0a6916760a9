"""Figures of a comparison: user rates, utility against time, differences to the baseline."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from beamforge.bench.comparison import Comparison, Row
from beamforge.plot import rate_cdf
from beamforge.plot.style import COLOURS, MARKERS, png, styled


def figures(comparison: Comparison) -> dict[str, bytes]:
    """PNG images by file name (without suffix)."""
    rows = [row for row in comparison.rows if not row.error]
    if not rows:
        return {}
    return {
        "rate-cdf": png(rate_cdf({label: run.rate for label, run in comparison.runs.items()})),
        "utility-time": png(utility_time(rows, comparison.unit)),
        "difference": png(differences(rows, comparison.suite.baseline, comparison.unit)),
    }


@styled
def utility_time(rows: Sequence[Row], unit: str) -> Figure:
    """Mean utility against time per instance: filled markers in a batch, hollow markers one at a time."""
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    ax = figure.subplots()
    for index, row in enumerate(rows):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        ax.plot([row.batched_ms, row.single_ms], [row.utility_mean] * 2, color=colour, linewidth=0.8)
        ax.plot(row.batched_ms, row.utility_mean, marker, color=colour, label=row.method)
        ax.plot(row.single_ms, row.utility_mean, marker, color=colour, markerfacecolor="white")
    ax.set(
        xscale="log", xlabel="Time per instance (ms): filled in a batch, hollow alone", ylabel=f"Mean utility ({unit})"
    )
    ax.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside upper center", ncols=4)
    return figure


@styled
def differences(rows: Sequence[Row], baseline: str, unit: str) -> Figure:
    """Paired mean difference of each method to the baseline, more is better, with its 95 % confidence interval."""
    others = [row for row in rows if row.method != baseline][::-1]
    figure = Figure(figsize=(5.2, 0.9 + 0.3 * len(others)), layout="constrained")
    ax = figure.subplots()
    mean = [row.difference_mean for row in others]
    below = [row.difference_mean - row.difference_low for row in others]
    above = [row.difference_high - row.difference_mean for row in others]
    ax.barh([row.method for row in others], mean, xerr=[below, above], color=COLOURS[5], height=0.6, capsize=3)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(f"Mean gain over {baseline} ({unit}) and 95 % confidence interval")
    return figure
