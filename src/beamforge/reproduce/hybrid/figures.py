"""Fig. 2: power against outage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from beamforge.plot.style import line, styled

Points = Sequence[tuple[float, float]]
"""Outage and mean power in watts, for each nominal outage."""

SHOWN = 0.3
"""Largest outage that is shown."""


@styled
def power_against_outage(panels: Mapping[str, Mapping[str, Points]], bound: Mapping[str, float]) -> Figure:
    """A panel for each kind of channel knowledge, a curve for each method; `bound`: power with perfect knowledge."""
    figure = Figure(figsize=(8.4, 2.2 * -(-len(panels) // 2) + 0.6), layout="constrained")
    axes = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).flatten()
    for place, (name, lines) in zip(axes, panels.items(), strict=False):
        for number, (method, points) in enumerate(lines.items()):
            ordered = sorted(point for point in points if point[0] <= SHOWN)
            place.plot([x for x, _ in ordered], [10 * np.log10(y) for _, y in ordered], label=method, **line(number))
        place.axhline(10 * np.log10(bound[name]), color="black", linewidth=0.8, linestyle=":")
        place.set(title=name, xlabel="Outage", ylabel="Mean power (dBW)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure
