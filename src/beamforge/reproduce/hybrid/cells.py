"""Cells of the tables, numbers of users and kinds of channel knowledge, and what methods reach there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from beamforge.bench.statistics import Estimate, Values, paired_difference
from beamforge.classical.hybrid.greedy import GreedyHybrid
from beamforge.core import batching
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.problem import Problem
from beamforge.core.solver import Solver
from beamforge.learned.hybrid.covariance_sweep import Statistics, swept
from beamforge.learned.hybrid.estimates import of_problem
from beamforge.learned.hybrid.virtual_channels import Virtual
from beamforge.learned.hybrid.virtual_hybrid import digital
from beamforge.reproduce.hybrid.score import score
from beamforge.scenarios.base import TEST_SEEDS, VALIDATION_SEEDS
from beamforge.scenarios.hybrid import HybridOutage

CHUNK = 500
"""Instances solved at a time."""

LARGEST_DB, STEP_DB, ACCURACY_DB = 20.0, 1.0, 0.02
"""Largest margin of the baseline that is tried, the steps to it, and the accuracy of the bisection that follows."""


@dataclass(frozen=True)
class Cell:
    """K users, and a kind of channel knowledge: a `name`, and the fields of the scenario that state it."""

    users: int
    name: str
    fields: tuple[tuple[str, float | bool], ...]

    def sample(self, count: int, seed: int) -> Instance:
        """Instances of the cell in double precision."""
        scenario = replace(HybridOutage(users=self.users), **dict(self.fields))  # type: ignore[arg-type]
        return scenario.sample(count, seed=seed, dtype=torch.complex128)

    def test(self, count: int) -> Instance:
        """Held-out instances."""
        return held_out(self, count, TEST_SEEDS[13])

    def validation(self, count: int) -> Instance:
        """Instances for the choice of margins; no result is from them."""
        return held_out(self, count, VALIDATION_SEEDS[13])


@cache
def held_out(cell: Cell, count: int, seed: int) -> Instance:
    """The instances of a cell, kept for the next method."""
    return cell.sample(count, seed)


def pilots(name: str, low_db: float, high_db: float) -> tuple[str, tuple[tuple[str, float | bool], ...]]:
    """Channels estimated from pilots."""
    return name, (("pilot_low_db", low_db), ("pilot_high_db", high_db))


def feedback(name: str, least: int, most: int) -> tuple[str, tuple[tuple[str, float | bool], ...]]:
    """Channels fed back as DFT beams, with an angular spread of 5 degrees."""
    fields = (("feedback", True), ("beams_low", least), ("beams_high", most), ("angular_spread_deg", 5.0))
    return name, fields


PILOTS = (pilots("0 dB", 0, 0), pilots("10 dB", 10, 10), pilots("20 dB", 20, 20), pilots("0 to 20 dB", 0, 20))
"""Pilot powers of Table 2."""

FEEDBACK = (feedback("2 beams", 2, 2), feedback("3 beams", 3, 3), feedback("4 beams", 4, 4), feedback("2 to 4", 2, 4))
"""Feedback of Table 4."""


@dataclass(frozen=True)
class Result:
    """What beams reach on the instances of a cell: `power` [B], NaN without beams, and `missed` [B], the share of users
    in outage, all of them without beams."""

    power: Values
    missed: Values

    @property
    def mean_power(self) -> float:
        """Mean power of the instances with beams, watts."""
        return float(np.nanmean(self.power))

    @property
    def outage(self) -> Estimate:
        """Share of users in outage, with its 95 % interval."""
        return mean(self.missed)

    @property
    def unsolved(self) -> float:
        """Share of instances without beams."""
        return float(np.isnan(self.power).mean())


def mean(values: Values) -> Estimate:
    """Mean of the finite values with its 95 % interval."""
    found = paired_difference(values, np.zeros_like(values))
    return Estimate(found.mean, (found.high - found.low) / 2)


CHAINS = 5
"""RF chains."""

Solve = Callable[[Instance], torch.Tensor]
"""Beams [B, N, K] of instances; zero without a solution."""


def run(solve: Solve, instance: Instance) -> Result:
    """What beams reach, by the independent score."""
    powers, shares = [], []
    for part in parts(instance):
        power, missed = score(part, solve(part).resolve_conj().cpu().numpy())
        solved = power > 0
        powers.append(np.where(solved, power, np.nan))
        shares.append(np.where(solved, missed, 1.0))
    return Result(np.concatenate(powers), np.concatenate(shares))


def parts(instance: Instance) -> Iterator[Instance]:
    """Instances in chunks."""
    count = len(instance.truth.noise)
    for first in range(0, count, CHUNK):
        yield batching.take(instance, slice(first, min(first + CHUNK, count)))


def problem_of(instance: Instance, outage: float) -> Problem:
    """Least power with a mean outage."""
    return build_problem("hybrid-min-power", {**instance.context, "outage": outage})


def learned(solver: Solver, outage: float) -> Solve:
    """Beams of a learned method for a nominal outage."""
    return lambda instance: solver.solve(problem_of(instance, outage), instance).W


def perfect(instance: Instance) -> torch.Tensor:
    """Greedy beams with perfect channel knowledge, which meet all targets."""
    given = Instance.perfect(instance.truth, **instance.context)
    return GreedyHybrid().solve(build_problem("hybrid-min-power", instance.context), given).W


def with_margin(margin_db: float) -> Solve:
    """Greedy beams on the estimated channels, for targets raised by a margin."""

    def solve(instance: Instance) -> torch.Tensor:
        context = {**instance.context, "sinr_target": instance.context["sinr_target"] * 10 ** (margin_db / 10)}
        return GreedyHybrid().solve(build_problem("hybrid-min-power", context), instance).W

    return solve


def statistical(margin_db: float) -> Solve:
    """Greedy codewords for the covariances and digital beams for the estimates, for targets raised by a margin."""

    def solve(instance: Instance) -> torch.Tensor:
        seen = of_problem(problem_of(instance, 0.5).bind(instance.truth), instance.observation)
        assert seen.covariance is not None
        targets = seen.targets * 10 ** (margin_db / 10)
        one = torch.ones_like(targets)
        exact = Virtual(one, 0 * one, one, 0 * one)
        sides = Virtual(*(each.mT for each in exact))
        known = Statistics.of(seen.covariance, seen.codebook)
        chosen, _ = swept(known, sides, targets.mT, CHAINS, CHAINS)
        A = torch.take_along_dim(seen.codebook, known.original(chosen.codewords).unsqueeze(1), -1)
        found = digital(seen._replace(targets=targets), exact, A)
        W = A @ (found.beams * found.p.sqrt().unsqueeze(-2))
        return torch.where((found.cost <= seen.limit)[:, None, None], W, 0)

    return solve


def margin_for(outage: float, instance: Instance, raised: Callable[[float], Solve]) -> float:
    """The least margin in dB, from 0 on, with which the outage of `raised` on these instances is at most `outage`.

    It is negative where no margin is needed. Large margins leave instances without beams, so that the outage may exceed
    `outage` with all of them; then it is the one with the least outage.
    """

    def reached(margin_db: float) -> float:
        return run(raised(margin_db), instance).outage.value

    shares = {0.0: reached(0.0)}
    step = STEP_DB if shares[0.0] > outage else -STEP_DB
    inner, outer = 0.0, step
    while abs(outer) <= LARGEST_DB:
        shares[outer] = reached(outer)
        if (shares[outer] > outage) != (shares[0.0] > outage):
            low, high = sorted((inner, outer))
            while high - low > ACCURACY_DB:
                middle = (low + high) / 2
                low, high = (middle, high) if reached(middle) > outage else (low, middle)
            return high
        inner, outer = outer, outer + step
    return min(shares, key=lambda margin: shares[margin])
