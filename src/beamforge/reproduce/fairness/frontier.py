"""Sum rate and fairness of methods on the same drops, and their distance to the frontier."""

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

CHUNK = 1000
"""Drops solved at once."""


@dataclass(frozen=True)
class Rates:
    """Results of a method on some drops: rates [B, K] in bit/s/Hz, and its parameter, if it has one."""

    rate: Values
    scalar: float | None = None

    @property
    def sum_rate(self) -> Values:
        """Sum rates [B]."""
        return self.rate.sum(-1)

    @property
    def jain(self) -> Values:
        """Jain's index [B]."""
        return self.rate.sum(-1) ** 2 / (self.rate.shape[-1] * np.square(self.rate).sum(-1))

    def first(self, count: int) -> Rates:
        """The results on the first drops only."""
        return Rates(self.rate[:count], self.scalar)


def solve_drops(solver: Solver, drops: Instance, jain: float | None = None) -> Rates:
    """Results of a method on drops, for a target mean of Jain's index or, without one, for the sum rate.

    Raises `ConfigError` where the method cannot reach that mean.
    """
    name = "sum-rate" if jain is None else "fair-sum-rate"
    context = (
        drops.context if jain is None else {**drops.context, "jain": torch.full_like(drops.context["p_max"], jain)}
    )
    problem = build_problem(name, context).bind(drops.truth)
    tuned = solver.fitted(problem, drops)
    rates = []
    for first in range(0, len(drops.truth.noise), CHUNK):
        asked, some = batching.take((problem, drops), slice(first, first + CHUNK))
        rates.append(some.truth.rate(tuned.solve(asked, some).W).double().cpu().numpy())
    scalar = getattr(tuned, tuned.parameter) if isinstance(tuned, FairnessSolver) else None
    return Rates(np.concatenate(rates), scalar)


def frontier_rates(drops: Instance, prices: Sequence[float]) -> list[Rates]:
    """Results of `Pareto`, the best known, at some prices of fairness."""
    return [solve_drops(Pareto(price), drops, 1.0) for price in prices]


def percent_of_frontier(found: Rates, best: Sequence[Rates]) -> Estimate:
    """Sum rate in percent of the frontier's at the same mean index, on the drops for which the frontier is known.

    No beams have a larger ``S + price J`` than the frontier point of that price. So at mean index J the frontier's sum
    rate is at most ``S_p + price (J_p - J)`` for every price; the least of these bounds is the reference.
    """
    known = found.first(len(best[0].rate))
    tangents = [one.sum_rate + (one.scalar or 0.0) * (one.jain - known.jain) for one in best]
    return percent_of_mean(known.sum_rate, min(tangents, key=np.mean))


def percent_of_slnr(found: Rates, drops: Instance) -> Estimate:
    """Sum rate in percent of weighted SLNR's at the same mean index; `ConfigError` where it cannot reach that."""
    return percent_of_mean(found.sum_rate, solve_drops(WeightedSLNR(), drops, float(found.jain.mean())).sum_rate)
