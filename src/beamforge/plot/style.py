"""Style of figures: colours for colour-blind readers, thin grids, and export as PNG."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe and Ito's palette for common colour vision deficiencies (the last colour is added)."""
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (5, 1, 1, 1)), (0, (1, 0.7)))
MARKERS = "osD^vPX*"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
styled = matplotlib.rc_context(STYLE)


def line(index: int) -> dict[str, Any]:
    """Line style of curve number `index`, with a marker at every measured point."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4,
    }


def png(figure: Figure) -> bytes:
    """A figure as a PNG image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()
