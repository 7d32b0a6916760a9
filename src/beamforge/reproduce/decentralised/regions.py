"""Fig. 3 of the paper: rate regions of two base stations with two antennas each, one convex and one not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor

from beamforge.bench.statistics import Values
from beamforge.classical.interference.pareto_boundary import boundary
from beamforge.core import batching
from beamforge.core.constraints import PerTransmitterPower
from beamforge.core.instance import Instance
from beamforge.core.problem import Problem
from beamforge.core.utilities import MinRate, SumRate, Utility
from beamforge.plot.style import COLOURS, png, styled
from beamforge.registry import create
from beamforge.reproduce.decentralised.cells import Cell
from beamforge.reproduce.exhibits import Exhibit, Options, Picture

CELL = Cell(users=2, snr_db=15, antennas=2)
SEARCHED = 200
"""Realisations from which the two cases are chosen."""

POINTS = 41
"""Weights in a sweep."""

CASES = ("Case 1: convex", "Case 2: not convex")

METHODS: dict[str, tuple[str, Callable[[Tensor], Utility], str, str]] = {
    "itnet-dualnet, minimum rate": ("itnet-dualnet", MinRate, "o", COLOURS[0]),
    "multipliers, minimum rate": ("multipliers", MinRate, "D", COLOURS[2]),
    "wmmse, sum rate": ("wmmse", SumRate, "+", COLOURS[1]),
}


def rate_regions(options: Options) -> list[Exhibit]:
    """The exact boundary, and the points of the methods for a sweep of the rate weights."""
    instance = CELL.sample(40 if options.quick else SEARCHED)
    rates, _ = boundary(instance.truth, instance.context["p_max_transmitter"].double(), POINTS)
    bulge = convexity(rates)
    order = bulge.argsort()
    convex = order[bulge[order] > 0]  # the most convex regions are nearly rectangles: the median shows more
    chosen = torch.stack([convex[len(convex) // 2] if len(convex) else order[-1], order[0]])
    cases = batching.take(instance, chosen)
    reached = {name: swept(cases, method, utility) for name, (method, utility, *_) in METHODS.items()}
    figure = regions(rates[chosen].numpy(), {name: found.numpy() for name, found in reached.items()})
    return [Picture("figure-3-rate-regions", png(figure))]


def convexity(rates: Tensor) -> Tensor:
    """Least height [B] of the boundary [B, n, 2] above the straight line between its ends.

    Rates count in units of each user's largest; where it is negative, the region is not convex.
    """
    share = rates / rates.amax(1, keepdim=True)
    return (share[:, 1:-1].sum(-1) - 1).amin(-1)


def swept(cases: Instance, method: str, utility: Callable[[Tensor], Utility]) -> Tensor:
    """Rates [cases, POINTS, 2] for weights (a, 1 - a); of the least weighted rate, a is that of the other user."""
    found = []
    for share in torch.linspace(0.02, 0.98, POINTS).tolist():
        weights = torch.tensor([1 - share, share], dtype=cases.truth.noise.dtype)
        limit = PerTransmitterPower(cases.context["p_max_transmitter"])
        problem = Problem(utility(weights), (limit,))
        W = create(problem, cases.truth, method).solve(problem, cases).W
        found.append(cases.truth.rate(W))
    return torch.stack(found, 1)


@styled
def regions(rates: Values, reached: dict[str, Values]) -> Figure:
    """A panel for each case."""
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    for case, ax in enumerate(figure.subplots(1, 2)):
        x, y = rates[case].T
        edge = [x.max(), *x, 0], [0, *y, y.max()]
        ax.plot(*edge, color="black", linewidth=1.0, label="Boundary of the region (exact)")
        for name, (_, _, marker, colour) in METHODS.items():
            ax.plot(*reached[name][case].T, marker, color=colour, markersize=4, label=name, markerfacecolor="none")
        ax.set(xlabel="Rate of user 1 (bit/s/Hz)", ylabel="Rate of user 2 (bit/s/Hz)", title=CASES[case])
        ax.set(xlim=(0, 1.05 * x.max()), ylim=(0, 1.05 * y.max()))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure
