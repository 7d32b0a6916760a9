"""Training curves: loss, gradient and learning rate against the step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from beamforge.style import COLOURS, styled
from beamforge.training.log import Line


@styled
def curves(lines: Sequence[Line]) -> Figure:
    """What a log says, with running means over a fiftieth of the run, and the best validation marked."""
    steps = [line for line in lines if "validation" not in line]
    watched = [line for line in lines if "validation" in line]
    at = np.array([line["step"] for line in steps])
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    top, middle, bottom = figure.subplots(3, sharex=True, height_ratios=(2.2, 1, 1))

    loss, gradient = series(steps, "loss"), series(steps, "gradient_norm")
    top.plot(at, loss, color=COLOURS[5], alpha=0.45, linewidth=0.8, label="training")
    top.plot(at, running_mean(loss), color=COLOURS[0], label="its running mean")
    if watched:
        when, seen = [line["step"] for line in watched], series([line["validation"] for line in watched], "loss")
        top.plot(when, seen, "o-", color=COLOURS[1], markersize=3, label="validation")
        if np.isfinite(seen).any():
            best = int(np.nanargmin(seen))
            top.plot(when[best], seen[best], "D", color=COLOURS[6], label=f"best: {seen[best]:.5g} at {when[best]}")
    if np.isfinite(loss).any():  # a few wild steps must not hide the rest
        low, high = np.nanpercentile(loss, [0.5, 99.5])
        shown = [low, high, *(seen[np.isfinite(seen)] if watched else [])]
        margin = 0.05 * (max(shown) - min(shown)) or 1e-3
        top.set_ylim(min(shown) - margin, max(shown) + margin)
    top.set_ylabel("Loss")
    figure.legend(loc="outside upper center", ncols=4)

    middle.plot(at, gradient, color=COLOURS[5], alpha=0.45, linewidth=0.8)
    middle.plot(at, running_mean(gradient), color=COLOURS[0])
    middle.set(ylabel="Gradient norm\n(before clipping)", yscale="log")
    bottom.plot(at, series(steps, "lr"), color=COLOURS[2])
    bottom.set(ylabel="Learning rate", xlabel="Step", ylim=(0, None))
    return figure


def series(lines: Sequence[Line], name: str) -> np.ndarray:
    """An entry of every line, NaN where it is null."""
    return np.array([line[name] for line in lines], dtype=float)


def running_mean(values: np.ndarray) -> np.ndarray:
    """Means over the last fiftieth of all values, NaN left out."""
    width = max(1, len(values) // 50)
    known = np.isfinite(values)
    total = np.cumsum(np.where(known, values, 0.0))
    count = np.cumsum(known, dtype=float)
    total[width:], count[width:] = total[width:] - total[:-width], count[width:] - count[:-width]
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
