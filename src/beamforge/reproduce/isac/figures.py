"""The figures of joint sensing and communication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from beamforge.plot.style import line, styled

Point = tuple[float, float | None, float]
"""x, y (None if no instance is solved), and share of instances solved."""


@styled
def curves(lines: Mapping[str, Sequence[Point]], x_label: str, y_label: str) -> Figure:
    """Two panels: a quantity, and the share of instances with all targets met."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, (name, points) in enumerate(lines.items()):
        rates = [(x, rate) for x, rate, _ in points if rate is not None]
        left.plot(*(zip(*rates, strict=True) if rates else ([], [])), label=name, **line(place))
        right.plot([x for x, _, _ in points], [100 * share for _, _, share in points], **line(place))
    left.set(xlabel=x_label, ylabel=y_label)
    left.set_ylim(bottom=0)
    right.set(xlabel=x_label, ylabel="Instances with all targets met (%)", ylim=(-3, 103))
    figure.legend(loc="outside upper center", ncols=4)
    return figure
