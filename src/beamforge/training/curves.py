"""Training curves: loss, metrics of the method, gradient norm and learning rate against the step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from beamforge.plot.style import COLOURS, styled
from beamforge.training.log import Line

OWN = ("step", "seconds", "lr", "loss", "gradient_norm", "skipped")
"""Entries of a line that are not metrics of the method."""


@styled
def curves(lines: Sequence[Line]) -> Figure:
    """The figure of a log, with running means over a fiftieth of the run, and the best validation marked.

    A validation loss far from the training loss, which is then another quantity, has its own axis on the right.
    """
    steps = [line for line in lines if "validation" not in line]
    watched = [line for line in lines if "validation" in line]
    validation = watched[0]["validation"] if watched else {}  # where parts take turns, of other things than training
    metrics = [name for name in {**steps[0], **validation} if name not in OWN]
    at, when = np.array([line["step"] for line in steps]), np.array([line["step"] for line in watched])
    figure = Figure(figsize=(6.4, 6.4 + 1.3 * len(metrics)), layout="constrained")
    heights = (2.2, *(1 for _ in metrics), 1, 1)
    top, *middle, gradient, bottom = figure.subplots(len(heights), sharex=True, height_ratios=heights)

    def trained(axes: Axes, name: str, **labels: str) -> None:
        values = series(steps, name)
        axes.plot(at, values, color=COLOURS[5], alpha=0.45, linewidth=0.8, label=labels.get("each"))
        axes.plot(at, running_mean(values), color=COLOURS[0], label=labels.get("mean"))

    def validated(axes: Axes, name: str, label: str | None = None) -> None:
        seen = series([line["validation"] for line in watched], name)
        axes.plot(when, seen, "o-", color=COLOURS[1], markersize=3, label=label)

    trained(top, "loss", each="training", mean="its running mean")
    top.set_ylabel("Loss")
    shown = central_range(series(steps, "loss"))
    if watched:
        seen = series([line["validation"] for line in watched], "loss")
        apart = far_apart(shown, central_range(seen))
        axes = top.twinx() if apart else top
        validated(axes, "loss", label="validation")
        if np.isfinite(seen).any():
            best = int(np.nanargmin(seen))
            axes.plot(when[best], seen[best], "D", color=COLOURS[6], label=f"best: {seen[best]:.5g} at {when[best]}")
        if apart:
            axes.set_ylabel("Loss in validation")
            axes.grid(visible=False)
            axes.spines["right"].set_visible(True)
        else:
            shown = [*shown, *seen[np.isfinite(seen)]]
    if shown:  # a few outliers must not set the scale
        margin = 0.05 * (max(shown) - min(shown)) or 1e-3
        top.set_ylim(min(shown) - margin, max(shown) + margin)
    figure.legend(loc="outside upper center", ncols=4)

    for axes, name in zip(middle, metrics, strict=True):
        if name in steps[0]:
            trained(axes, name)
        if name in validation:
            validated(axes, name)
        axes.set_ylabel(name.replace("_", " ").capitalize())
    trained(gradient, "gradient_norm")
    gradient.set(ylabel="Gradient norm\n(before clipping)", yscale="log")
    bottom.plot(at, series(steps, "lr"), color=COLOURS[2])
    bottom.set(ylabel="Learning rate", xlabel="Step", ylim=(0, None))
    return figure


def central_range(values: np.ndarray) -> list[float]:
    """The 0.5th and 99.5th percentiles of the finite values; empty if there are none."""
    known = values[np.isfinite(values)]
    return np.percentile(known, [0.5, 99.5]).tolist() if known.size else []


def far_apart(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the gap between two intervals is more than three times the sum of their lengths."""
    if not (one and other):
        return False
    gap = max(one[0] - other[1], other[0] - one[1])
    return gap > 3 * (one[1] - one[0] + other[1] - other[0])


def series(lines: Sequence[Line], name: str) -> np.ndarray:
    """An entry of every line, NaN where it is null."""
    return np.array([line[name] for line in lines], dtype=float)


def running_mean(values: np.ndarray) -> np.ndarray:
    """Running means over a fiftieth of the number of values, without NaN."""
    width = max(1, len(values) // 50)
    known = np.isfinite(values)
    total = np.cumsum(np.where(known, values, 0.0))
    count = np.cumsum(known, dtype=float)
    total[width:], count[width:] = total[width:] - total[:-width], count[width:] - count[:-width]
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
