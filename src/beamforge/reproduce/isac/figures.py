"""The figures of joint sensing and communication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from beamforge.plot.style import line, styled

Point = tuple[float, float | None, float]
"""x, height (None where no instance is solved), and share of instances solved."""


@styled
def curves(found: Mapping[str, Sequence[Point]], what: str, height: str) -> Figure:
    """A height, and the share of instances whose targets are met, side by side."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, (name, points) in enumerate(found.items()):
        rates = [(x, rate) for x, rate, _ in points if rate is not None]
        left.plot(*(zip(*rates, strict=True) if rates else ([], [])), label=name, **line(place))
        right.plot([x for x, _, _ in points], [100 * share for _, _, share in points], **line(place))
    left.set(xlabel=what, ylabel=height)
    left.set_ylim(bottom=0)
    right.set(xlabel=what, ylabel="Instances with all targets met (%)", ylim=(-3, 103))
    figure.legend(loc="outside upper center", ncols=4)
    return figure
