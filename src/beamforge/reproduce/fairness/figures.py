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
from beamforge.reproduce.fairness.frontier import Run

PAIRS = ((0.6, 0.0), (0.75, 0.7), (0.86, 1.0), (0.93, 1.3), (0.97, 5.0))
"""Targets and the alphas that the paper sets beside them; the figures of distributions show the second, third, last."""

LOOKS: dict[str, dict[str, Any]] = {
    "pareto": {"color": COLOURS[6], "linestyle": "-", "linewidth": 1.1},
    "multipliers": {"color": COLOURS[2], "linestyle": (0, (5, 1, 1, 1))},
    "wit": {"color": COLOURS[0], "linestyle": (0, (4, 1.5))},
    "wslnr": {"color": COLOURS[1], "linestyle": "-"},
    "SLNR": {"color": COLOURS[5], "linestyle": (0, (1, 0.7)), "linewidth": 1.1},
    "ZF": {"color": COLOURS[3], "linestyle": (0, (1, 0.7)), "linewidth": 1.1},
    "MRT": {"color": COLOURS[4], "linestyle": (0, (1, 0.7)), "linewidth": 1.1},
}


@dataclass(frozen=True)
class Shown:
    """Weighted SLNR by alpha; the transformer and the multipliers by target; the frontier; closed forms by name; and
    the rows of the paper's table.
    """

    slnr: Mapping[float, Run]
    wit: Mapping[float, Run]
    ours: Mapping[float, Run]
    best: Sequence[Run]
    linear: Mapping[str, Run]
    table: Sequence[Any]

    def pair(self, limit: float, alpha: float) -> dict[str, Run]:
        """Methods at a target; the frontier where its mean index is nearest."""
        nearest = min(self.best, key=lambda one: abs(one.jain.mean() - limit))
        learned = {"wit": self.wit.get(limit), "multipliers": self.ours.get(limit)}
        found = {name: one for name, one in learned.items() if one is not None}
        return {"wslnr": self.slnr[alpha], **found, "pareto": nearest}

    def levelled(self, one: Run, figure: Callable[[Run], Values]) -> Values:
        """A mean over all drops of a method that was run on the first of them alone: there it differs by so much from
        the multipliers of about that fairness (weighted SLNR, if there are none), and these were run on all.
        """
        others = self.ours or self.slnr
        like = min(others.values(), key=lambda other: abs(other.first(len(one.rate)).jain.mean() - one.jain.mean()))
        return figure(one) + figure(like) - figure(like.first(len(one.rate)))


@styled
def curves(shown: Shown) -> Figure:
    """Fig. 2: mean sum rate against mean fairness."""
    figure = Figure(figsize=(6.8, 4.4), layout="constrained")
    ax = figure.subplots()
    frontier = np.array([shown.levelled(one, means) for one in shown.best])
    ax.plot(*frontier.T, label="frontier (pareto)", **LOOKS["pareto"])
    for name, runs, marker in (("multipliers", shown.ours, "D"), ("wslnr", shown.slnr, "s")):
        if runs:
            ax.plot(*points(runs), label=name, marker=marker, markersize=4, **LOOKS[name])
    if shown.wit:
        ax.plot(*points(shown.wit), label="wit", marker="o", markersize=5, **LOOKS["wit"] | {"linestyle": ""})
    theirs = shown.table
    hollow: dict[str, Any] = {"linestyle": "", "markersize": 6, "markerfacecolor": "none"}
    ax.plot([r.jain for r in theirs], [r.network for r in theirs], "o", color=COLOURS[0], label="paper, DNN", **hollow)
    paired = theirs[1:]  # alpha 0 has no index of its own in the table
    ax.plot([r.limit for r in paired], [r.slnr for r in paired], "s", color=COLOURS[1], label="paper, wSLNR", **hollow)
    for name, one in shown.linear.items():
        ax.plot(*means(one), "*", color=LOOKS[name]["color"], markersize=9, linestyle="", label=name)
    for alpha, one in shown.slnr.items():
        if alpha in (0.0, 0.7, 1.0, 1.3, 2.0, 5.0):
            place = tuple(means(one))
            ax.annotate(f"α = {alpha:g}", place, (-8, -4), textcoords="offset points", ha="right", va="top", fontsize=7)
    ax.set(xlabel="Mean of Jain's index", ylabel="Mean sum rate (bit/s/Hz)")
    figure.legend(loc="outside right upper")
    return figure


@styled
def user_rates(shown: Shown) -> Figure:
    """Fig. 3: distribution of the users' rates."""
    return distributions(shown, lambda one: one.rate.reshape(-1), "User rate (bit/s/Hz)")


@styled
def sum_rates(shown: Shown) -> Figure:
    """Fig. 4: distribution of the sum rates."""
    return distributions(shown, lambda one: one.sum_rate, "Sum rate (bit/s/Hz)")


def distributions(shown: Shown, values: Callable[[Run], Values], name: str) -> Figure:
    """A panel for each of three targets."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    share = np.linspace(0, 1, 401)
    for ax, (limit, alpha) in zip(panels, [PAIRS[1], PAIRS[2], PAIRS[4]], strict=True):
        runs = {**shown.linear, **shown.pair(limit, alpha)}
        for method in (name for name in reversed(LOOKS) if name in runs):
            label = {"pareto": "frontier"}.get(method, method)
            ax.plot(np.quantile(values(runs[method]), share), share, label=label, **LOOKS[method])
        ax.set(title=f"Target {limit:g}, wslnr with α = {alpha:g}", xlabel=name, ylim=(0, 1))
    top = max(np.quantile(values(one), 0.995) for one in shown.pair(*PAIRS[1]).values())
    panels[0].set(ylabel="Share below", xlim=(0, top))
    legend(figure, panels)
    return figure


@styled
def sorted_rates(shown: Shown) -> Figure:
    """Fig. 5: mean rate of the weakest user, the next, ... up to the strongest."""
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    panels = figure.subplots(2, 3, sharey=True).flatten()
    for ax, (limit, alpha) in zip(panels, PAIRS, strict=False):
        runs = shown.pair(limit, alpha)
        bars(ax, {name: weakest_first(one) for name, one in runs.items() if name != "pareto"})
        best = shown.levelled(runs["pareto"], weakest_first)
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
def mean_rates(shown: Shown) -> Figure:
    """Fig. 6: mean sum rates at the same pairs."""
    figure = Figure(figsize=(6.8, 3.6), layout="constrained")
    ax = figure.subplots()
    pairs = [shown.pair(limit, alpha) for limit, alpha in PAIRS]
    names = [name for name in reversed(LOOKS) if any(name in runs for runs in pairs)]
    heights = {name: np.array([height(shown, runs, name) for runs in pairs]) for name in names}
    bars(ax, heights)
    for name, one in shown.linear.items():
        ax.axhline(one.sum_rate.mean(), label=name, **LOOKS[name])
    labels = [f"{limit:g}\nα = {alpha:g}" for limit, alpha in PAIRS]
    ax.set_xticks(range(len(PAIRS)), labels)
    ax.set(xlabel="Target, and alpha of wslnr", ylabel="Mean sum rate (bit/s/Hz)")
    ax.grid(False, axis="x")
    legend(figure, [ax])
    return figure


def height(shown: Shown, runs: Mapping[str, Run], name: str) -> float:
    """Mean sum rate, NaN for what is not there; the frontier's along its tangent to where the multipliers are."""
    if name not in runs:
        return float("nan")
    jain, total = shown.levelled(runs[name], means)
    if name == "pareto" and "multipliers" in runs:
        return total + (runs[name].scalar or 0.0) * (jain - runs["multipliers"].jain.mean())
    return total


def bars(ax: Axes, heights: Mapping[str, Values]) -> None:
    """Groups of bars side by side."""
    wide = 0.8 / len(heights)
    for place, (name, values) in enumerate(heights.items()):
        x = np.arange(len(values)) + (place - (len(heights) - 1) / 2) * wide
        label = {"pareto": "frontier"}.get(name, name)
        ax.bar(x, values, wide, color=LOOKS[name]["color"], label=label)


def legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One for all panels, each name once."""
    found = {}
    for ax in panels:
        found.update(dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True)))
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=len(found))


def means(one: Run) -> Values:
    """Mean index and mean sum rate."""
    return np.array([one.jain.mean(), one.sum_rate.mean()])


def points(runs: Mapping[float, Run]) -> Values:
    """Those of several, [2, n]."""
    return np.stack([means(one) for one in runs.values()], -1)


def weakest_first(one: Run) -> Values:
    """Mean rates [K] of the weakest user of each drop, the next, ..."""
    return np.sort(one.rate, -1).mean(0)


FIGURES: Mapping[str, Callable[[Shown], Figure]] = {
    "figure-2-frontier": curves,
    "figure-3-user-rates": user_rates,
    "figure-4-sum-rates": sum_rates,
    "figure-5-sorted-rates": sorted_rates,
    "figure-6-mean-sum-rates": mean_rates,
}
"""By file name."""
