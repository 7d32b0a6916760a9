"""The figures of sum rate under a prescribed fairness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from beamforge.bench.statistics import Values
from beamforge.plot.style import COLOURS, styled
from beamforge.reproduce.fairness.frontier import Rates

PAIRS = ((0.6, 0.0), (0.75, 0.7), (0.86, 1.0), (0.93, 1.3), (0.97, 5.0))
"""Targets and alphas, paired as in the paper; the figures of distributions show the second, third and last."""

STYLES: dict[str, dict[str, Any]] = {
    "pareto": {"color": COLOURS[6], "linestyle": "-", "linewidth": 1.1},
    "multipliers": {"color": COLOURS[2], "linestyle": (0, (5, 1, 1, 1))},
    "wit": {"color": COLOURS[0], "linestyle": (0, (4, 1.5))},
    "wslnr": {"color": COLOURS[1], "linestyle": "-"},
    "SLNR": {"color": COLOURS[5], "linestyle": (0, (1, 0.7)), "linewidth": 1.1},
    "ZF": {"color": COLOURS[3], "linestyle": (0, (1, 0.7)), "linewidth": 1.1},
    "MRT": {"color": COLOURS[4], "linestyle": (0, (1, 0.7)), "linewidth": 1.1},
}


@dataclass(frozen=True)
class FigureData:
    """Results for the figures.

    slnr       weighted SLNR, by alpha.
    wit, ours  transformer and multipliers, by target.
    best       the frontier.
    linear     closed forms, by name.
    table      rows of the paper's table.
    """

    slnr: Mapping[float, Rates]
    wit: Mapping[float, Rates]
    ours: Mapping[float, Rates]
    best: Sequence[Rates]
    linear: Mapping[str, Rates]
    table: Sequence[Any]

    def pair(self, limit: float, alpha: float) -> dict[str, Rates]:
        """Results of all methods at a target; of the frontier, the point of nearest mean index."""
        nearest = min(self.best, key=lambda one: abs(one.jain.mean() - limit))
        learned = {"wit": self.wit.get(limit), "multipliers": self.ours.get(limit)}
        found = {name: one for name, one in learned.items() if one is not None}
        return {"wslnr": self.slnr[alpha], **found, "pareto": nearest}

    def corrected_mean(self, one: Rates, figure: Callable[[Rates], Values]) -> Values:
        """An estimate of a mean over all drops for a method run on the first of them only.

        Its difference, on these drops, to the multipliers of nearest fairness is added to their mean over all drops;
        without multipliers, weighted SLNR is used.
        """
        others = self.ours or self.slnr
        like = min(others.values(), key=lambda other: abs(other.first(len(one.rate)).jain.mean() - one.jain.mean()))
        return figure(one) + figure(like) - figure(like.first(len(one.rate)))


@styled
def frontier_curve(data: FigureData) -> Figure:
    """Fig. 2: mean sum rate against mean fairness."""
    figure = Figure(figsize=(6.8, 4.4), layout="constrained")
    ax = figure.subplots()
    frontier = np.array([data.corrected_mean(one, means) for one in data.best])
    ax.plot(*frontier.T, label="frontier (pareto)", **STYLES["pareto"])
    for name, runs, marker in (("multipliers", data.ours, "D"), ("wslnr", data.slnr, "s")):
        if runs:
            ax.plot(*points(runs), label=name, marker=marker, markersize=4, **STYLES[name])
    if data.wit:
        ax.plot(*points(data.wit), label="wit", marker="o", markersize=5, **STYLES["wit"] | {"linestyle": ""})
    theirs = data.table
    hollow: dict[str, Any] = {"linestyle": "", "markersize": 6, "markerfacecolor": "none"}
    ax.plot([r.jain for r in theirs], [r.network for r in theirs], "o", color=COLOURS[0], label="paper, DNN", **hollow)
    paired = theirs[1:]  # the table has no separate index for alpha 0
    ax.plot([r.limit for r in paired], [r.slnr for r in paired], "s", color=COLOURS[1], label="paper, wSLNR", **hollow)
    for name, one in data.linear.items():
        ax.plot(*means(one), "*", color=STYLES[name]["color"], markersize=9, linestyle="", label=name)
    for alpha, one in data.slnr.items():
        if alpha in (0.0, 0.7, 1.0, 1.3, 2.0, 5.0):
            place = tuple(means(one))
            ax.annotate(f"α = {alpha:g}", place, (-8, -4), textcoords="offset points", ha="right", va="top", fontsize=7)
    ax.set(xlabel="Mean of Jain's index", ylabel="Mean sum rate (bit/s/Hz)")
    figure.legend(loc="outside right upper")
    return figure


@styled
def user_rates(data: FigureData) -> Figure:
    """Fig. 3: distribution of the users' rates."""
    return distributions(data, lambda one: one.rate.reshape(-1), "User rate (bit/s/Hz)")


@styled
def sum_rates(data: FigureData) -> Figure:
    """Fig. 4: distribution of the sum rates."""
    return distributions(data, lambda one: one.sum_rate, "Sum rate (bit/s/Hz)")


def distributions(data: FigureData, values: Callable[[Rates], Values], name: str) -> Figure:
    """A panel for each of three targets."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    share = np.linspace(0, 1, 401)
    for ax, (limit, alpha) in zip(panels, [PAIRS[1], PAIRS[2], PAIRS[4]], strict=True):
        runs = {**data.linear, **data.pair(limit, alpha)}
        for method in (name for name in reversed(STYLES) if name in runs):
            label = {"pareto": "frontier"}.get(method, method)
            ax.plot(np.quantile(values(runs[method]), share), share, label=label, **STYLES[method])
        ax.set(title=f"Target {limit:g}, wslnr with α = {alpha:g}", xlabel=name, ylim=(0, 1))
    top = max(np.quantile(values(one), 0.995) for one in data.pair(*PAIRS[1]).values())
    panels[0].set(ylabel="Share below", xlim=(0, top))
    legend(figure, panels)
    return figure


@styled
def sorted_rates(data: FigureData) -> Figure:
    """Fig. 5: mean rate of the weakest user, the next, ... up to the strongest."""
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    panels = figure.subplots(2, 3, sharey=True).flatten()
    for ax, (limit, alpha) in zip(panels, PAIRS, strict=False):
        runs = data.pair(limit, alpha)
        bars(ax, {name: weakest_first(one) for name, one in runs.items() if name != "pareto"})
        best = data.corrected_mean(runs["pareto"], weakest_first)
        ax.plot(np.arange(len(best)), best, color="black", marker="_", markersize=9, linestyle="", label="frontier")
        ax.set_xticks(np.arange(len(best)), [str(user + 1) for user in range(len(best))], fontsize=7)
        ax.set(title=f"Target {limit:g}, wslnr with α = {alpha:g}", xlabel="User, weakest first")
        ax.grid(False, axis="x")
    for ax in panels[::3]:
        ax.set_ylabel("Mean rate (bit/s/Hz)")
    legend(figure, panels[:-1])
    panels[-1].remove()
    return figure


@styled
def mean_rates(data: FigureData) -> Figure:
    """Fig. 6: mean sum rates at the same pairs."""
    figure = Figure(figsize=(6.8, 3.6), layout="constrained")
    ax = figure.subplots()
    pairs = [data.pair(limit, alpha) for limit, alpha in PAIRS]
    names = [name for name in reversed(STYLES) if any(name in runs for runs in pairs)]
    heights = {name: np.array([height(data, runs, name) for runs in pairs]) for name in names}
    bars(ax, heights)
    for name, one in data.linear.items():
        ax.axhline(one.sum_rate.mean(), label=name, **STYLES[name])
    labels = [f"{limit:g}\nα = {alpha:g}" for limit, alpha in PAIRS]
    ax.set_xticks(range(len(PAIRS)), labels)
    ax.set(xlabel="Target, and alpha of wslnr", ylabel="Mean sum rate (bit/s/Hz)")
    ax.grid(False, axis="x")
    legend(figure, [ax])
    return figure


def height(data: FigureData, runs: Mapping[str, Rates], name: str) -> float:
    """Mean sum rate, NaN if missing; the frontier's is moved along its tangent to the index of the multipliers."""
    if name not in runs:
        return float("nan")
    jain, total = data.corrected_mean(runs[name], means)
    if name == "pareto" and "multipliers" in runs:
        return total + (runs[name].scalar or 0.0) * (jain - runs["multipliers"].jain.mean())
    return total


def bars(ax: Axes, heights: Mapping[str, Values]) -> None:
    """Groups of bars side by side."""
    wide = 0.8 / len(heights)
    for place, (name, values) in enumerate(heights.items()):
        x = np.arange(len(values)) + (place - (len(heights) - 1) / 2) * wide
        label = {"pareto": "frontier"}.get(name, name)
        ax.bar(x, values, wide, color=STYLES[name]["color"], label=label)


def legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels, with each name once."""
    found = {}
    for ax in panels:
        found.update(dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True)))
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=len(found))


def means(one: Rates) -> Values:
    """Mean index and mean sum rate."""
    return np.array([one.jain.mean(), one.sum_rate.mean()])


def points(runs: Mapping[float, Rates]) -> Values:
    """`means` of several results, [2, n]."""
    return np.stack([means(one) for one in runs.values()], -1)


def weakest_first(one: Rates) -> Values:
    """Mean rates [K] of the weakest user of each drop, the next, ..."""
    return np.sort(one.rate, -1).mean(0)


FIGURES: Mapping[str, Callable[[FigureData], Figure]] = {
    "figure-2-frontier": frontier_curve,
    "figure-3-user-rates": user_rates,
    "figure-4-sum-rates": sum_rates,
    "figure-5-sorted-rates": sorted_rates,
    "figure-6-mean-sum-rates": mean_rates,
}
"""Figures by file name."""
