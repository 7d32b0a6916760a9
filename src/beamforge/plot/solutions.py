"""Figures of solutions: the distribution of rates, progress by iteration, rate against fairness, and beam patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from beamforge.core import batching
from beamforge.core.errors import ConfigError, ShapeError
from beamforge.core.solution import Solution
from beamforge.core.summaries import array
from beamforge.plot import pattern
from beamforge.plot.style import COLOURS, DASHES, line, styled

Rates: TypeAlias = "Solution | Tensor | np.ndarray[Any, Any]"
"""A solution, or rates (bit/s/Hz) of any shape."""


@styled
def rate_cdf(rates: Rates | Mapping[str, Rates]) -> Figure:
    """Empirical distribution of the users' rates, one curve for each name; NaN is left out.

    rates  a solution of `beamforge.solve` or an array of rates in bit/s/Hz, or several by name.

    >>> rate_cdf({"one": np.array([1.0, 2.0, 4.0]), "other": np.array([3.0])}).axes[0].get_xlabel()
    'User rate (bit/s/Hz)'
    """
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    ax = figure.subplots()
    named = rates if isinstance(rates, Mapping) else {"": rates}
    for index, (label, rate) in enumerate(named.items()):
        values = array(rate.rate if isinstance(rate, Solution) else rate)
        values = np.sort(values[np.isfinite(values)])
        share = np.arange(1, len(values) + 1) / max(len(values), 1)
        colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
        ax.step([0, *values], [0, *share], where="post", label=label, color=colour, linestyle=dash)
    ax.set(xlabel="User rate (bit/s/Hz)", ylabel="Share of users at or below", ylim=(0, 1))
    ax.set_xlim(left=0)
    if any(named):
        figure.legend(loc="outside upper center", ncols=4, handlelength=2.6)
    return figure


@styled
def trace(solutions: Solution | Mapping[str, Solution]) -> Figure:
    """Mean utility over the solved instances by iteration, one curve for each name.

    After an instance has stopped, its last value counts. Raises `ConfigError` for a method without iterations.
    """
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    ax = figure.subplots()
    named = solutions if isinstance(solutions, Mapping) else {"": solutions}
    unit = ""
    for index, (label, solution) in enumerate(named.items()):
        if solution.trace is None:
            raise ConfigError(f"solutions must be of methods that iterate, got no trace{label and f' of {label}'}")
        values = array(solution.trace)
        mean = values[array(solution.solved)].reshape(-1, values.shape[-1]).mean(0)
        ax.plot(np.arange(len(mean)), mean, label=label, **{**line(index), "markevery": max(1, len(mean) // 10)})
        unit = solution.report.unit if solution.asked is not None else unit
    ax.set(xlabel="Iterations", ylabel="Mean utility" + (f" ({unit})" if unit else ""))
    ax.set_xlim(left=0)
    if any(named):
        figure.legend(loc="outside upper center", ncols=4, handlelength=2.6)
    return figure


@styled
def frontier(solutions: Mapping[str, Sequence[Solution]]) -> Figure:
    """Mean sum rate against the mean of Jain's index, one curve for each name and a point for each of its solutions.

    solutions  of `beamforge.solve`, for example of "fair-sum-rate" with several values of `jain`.
    """
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    ax = figure.subplots()
    for index, (label, several) in enumerate(solutions.items()):
        points = sorted(
            (float(array(each.report.jain)[kept].mean()), float(array(each.rate)[kept].sum(-1).mean()))
            for each in several
            if (kept := array(each.solved)).any()
        )
        if points:
            ax.plot(*zip(*points, strict=True), label=label, **line(index))
    ax.set(xlabel="Mean of Jain's index of the rates", ylabel="Mean sum rate (bit/s/Hz)")
    figure.legend(loc="outside upper center", ncols=4, handlelength=2.6)
    return figure


def beam_pattern(solution: Solution, instance: int = 0) -> Figure:
    """Transmitted power by angle of one instance, with users and targets; see `pattern.beam_pattern`.

    solution  of `beamforge.solve`, which knows its problem and network.
    instance  index in the batch, whose dimensions are flattened.

    Raises `ShapeError` for several transmitters, a single antenna, or an instance that is not in the batch.

    >>> import torch, beamforge
    >>> solution = beamforge.solve(torch.eye(2, 4, dtype=torch.complex64), noise=0.1, p_max=1.0, method="mrt")
    >>> beam_pattern(solution).axes[0].get_xlabel()
    'Angle (degrees)'
    """
    if solution.asked is None:
        raise LookupError("this solution does not know its problem and instance: it must come from beamforge.solve")
    network = solution.asked.instance.truth
    W = solution.W if isinstance(solution.W, Tensor) else network.H.new_tensor(solution.W)
    question = (solution.asked.problem.bind(network), network, W)
    problem, network, beams = batching.flatten(question, len(network.batch_shape))
    if not -len(beams) <= instance < len(beams):
        raise ShapeError(f"instance must be less than {len(beams)}, the instances of the batch, got {instance}")
    return pattern.beam_pattern(problem, network, beams, instance)
