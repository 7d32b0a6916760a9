"""Sum rate and fairness of methods on the same drops, and how far they are from the frontier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from beamforge.bench.statistics import Estimate, Values, percent_of_mean
from beamforge.classical.fairness.pareto import Pareto
from beamforge.classical.fairness.trade_off import FairnessSolver
from beamforge.classical.linear import WeightedSLNR
from beamforge.core import batching
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.solver import Solver

PIECE = 1000
"""Drops solved at once."""


@dataclass(frozen=True)
class Run:
    """What a method makes of some drops: rates [B, K] in bit/s/Hz, and its scalar, if it has one."""

    rate: Values
    scalar: float | None = None

    @property
    def sum_rate(self) -> Values:
        """[B]."""
        return self.rate.sum(-1)

    @property
    def jain(self) -> Values:
        """[B]."""
        return self.rate.sum(-1) ** 2 / (self.rate.shape[-1] * np.square(self.rate).sum(-1))

    def first(self, count: int) -> Run:
        """On the first drops alone."""
        return Run(self.rate[:count], self.scalar)


def run(solver: Solver, drops: Instance, jain: float | None = None) -> Run:
    """A method on drops, with equal powers: for a mean index, or for the sum rate where none is given.

    Raises `ConfigError` where the method cannot have that mean.
    """
    name = "sum-rate" if jain is None else "fair-sum-rate"
    context = (
        drops.context if jain is None else {**drops.context, "jain": torch.full_like(drops.context["p_max"], jain)}
    )
    problem = build_problem(name, context).bind(drops.truth)
    tuned = solver.fitted(problem, drops)
    rates = []
    for first in range(0, len(drops.truth.noise), PIECE):
        asked, some = batching.take((problem, drops), slice(first, first + PIECE))
        rates.append(some.truth.rate(tuned.solve(asked, some).W).double().cpu().numpy())
    scalar = getattr(tuned, tuned.parameter) if isinstance(tuned, FairnessSolver) else None
    return Run(np.concatenate(rates), scalar)


def frontier(drops: Instance, prices: Sequence[float]) -> list[Run]:
    """The best that is known at some prices of fairness."""
    return [run(Pareto(price), drops, 1.0) for price in prices]


def percent_of_frontier(found: Run, best: Sequence[Run]) -> Estimate:
    """Sum rate in percent of the frontier's at the same mean index, on the drops on which the frontier is known.

    No beams have more of ``S + price J`` than the frontier's at that price. So at the mean index of what was found, the
    frontier is at most at ``S_p + price (J_p - J)``, whatever the price: the least of these is what is compared with.
    """
    known = found.first(len(best[0].rate))
    tangents = [one.sum_rate + (one.scalar or 0.0) * (one.jain - known.jain) for one in best]
    return percent_of_mean(known.sum_rate, min(tangents, key=np.mean))


def percent_of_slnr(found: Run, drops: Instance) -> Estimate:
    """Sum rate in percent of weighted SLNR's at the same mean index; `ConfigError` where it cannot have that."""
    return percent_of_mean(found.sum_rate, run(WeightedSLNR(), drops, float(found.jain.mean())).sum_rate)
