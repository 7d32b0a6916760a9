"""Hybrid beams for estimated channels: SINR targets raised by a margin, such that few users miss the original ones.

Source: the hybrid beamforming paper, Section 5.1.3 (G-HBF-marg); its margins are not known, these are bisected anew.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from beamforge.classical.hybrid.greedy import GreedyHybrid, sinr_targets
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.errors import ConfigError
from beamforge.core.evaluate import evaluate
from beamforge.core.hybrid import AnalogCodebook, MeanSinrOutage
from beamforge.core.instance import Instance
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.units import from_db
from beamforge.core.utilities import TransmitPower

OUTAGES = (0.05, 0.1, 0.2)
"""Rows of `MARGINS_DB`."""

PILOTS_DB = (0.0, 5.0, 10.0, 15.0, 20.0)
"""Columns of `MARGINS_DB`: pilot power over noise."""

MARGINS_DB = (
    (16.0, 3.19, 1.44, 0.75, 0.41),
    (6.41, 2.16, 1.06, 0.53, 0.31),
    (2.97, 1.34, 0.66, 0.34, 0.19),
)
"""Margins in decibels for the scenario hybrid-outage, printed by ``python benchmarks/hybrid.py margins --count 1500``.
An outage of 0.05 is out of reach of any margin at a pilot power of 0 dB."""

LARGEST_DB = 16.0
"""Largest margin that is tried."""

STEP_DB = 2.0
"""First step of the search for a margin."""


class HybridMargin(GreedyHybrid):
    """Greedy hybrid beams that meet ``margin SINR_k >= margin target_k`` on the estimated channels.

    margin_db  the margin in decibels; by default one for each user from `MARGINS_DB`, by the outage and by the pilot
               power in ``csi_quality``, interpolated in decibels and in the logarithm of the outage. These margins are
               those of the scenario hybrid-outage with pilots. For other channels, and where ``csi_quality`` is in
               bits of feedback, give a margin; `bisected_margin` finds one. Without ``csi_quality`` the channels are
               exact and the margin is 0 dB.

    >>> from beamforge.scenarios.hybrid import HybridOutage
    >>> instance = HybridOutage(users=2).sample(count=2)
    >>> problem = Problem(TransmitPower(), (MeanSinrOutage(0.1, 2.0), AnalogCodebook(instance.context["codebook"])))
    >>> HybridMargin(margin_db=3.0).solve(problem, instance).solved
    tensor([True, True])
    """

    capabilities = (
        Capability(TransmitPower, (Form.BROADCAST,), needs=(AnalogCodebook, MeanSinrOutage), allows=(TotalPower,)),
    )

    def __init__(self, rf_chains: int = 5, selections: int = 10, margin_db: float | None = None) -> None:
        super().__init__(rf_chains, selections)
        if margin_db is not None and not abs(margin_db) <= LARGEST_DB:
            raise ConfigError(f"margin_db must be within ±{LARGEST_DB:g}, got {margin_db}")
        self.margin_db = margin_db

    def targets(self, problem: Problem, observation: Observation) -> Tensor:
        target = sinr_targets(problem)
        if self.margin_db is not None:
            return target * from_db(self.margin_db)
        quality = observation.quality
        if quality is None:
            return target
        quality = quality.expand_as(target) if quality.ndim == target.ndim else quality.unsqueeze(-1).expand_as(target)
        margin = margin_table(problem.get(MeanSinrOutage).probability.unsqueeze(-1).expand_as(target), quality)
        return target * 10 ** (margin / 10)


def margin_table(outage: Tensor, pilot: Tensor) -> Tensor:
    """Margins in decibels [...] for outages and pilot powers over noise [...], the nearest ones beyond the table."""
    table = torch.tensor(MARGINS_DB, dtype=pilot.dtype, device=pilot.device)
    row, below = place(outage.log(), [math.log(each) for each in OUTAGES])
    column, left = place(10 * pilot.clamp_min(1e-30).log10(), PILOTS_DB)
    corner = [table[row + i, column + j] for i in (0, 1) for j in (0, 1)]
    above = corner[0] * (1 - left) + corner[1] * left
    return above * (1 - below) + (corner[2] * (1 - left) + corner[3] * left) * below


def place(value: Tensor, points: tuple[float, ...] | list[float]) -> tuple[Tensor, Tensor]:
    """The interval between points in which a value is, and its place in it from 0 to 1; beyond, the nearest end."""
    grid = torch.tensor(points, dtype=value.dtype, device=value.device)
    interval = (torch.searchsorted(grid, value.contiguous(), right=True) - 1).clamp(0, len(points) - 2)
    return interval, ((value - grid[interval]) / (grid[interval + 1] - grid[interval])).clamp(0, 1)


def bisected_margin(problem: Problem, instance: Instance, solver: HybridMargin, accuracy_db: float = 0.05) -> float:
    """A margin in decibels at which the mean outage on the true channels of a batch is the nominal one.

    From 0 dB it is changed in steps of `STEP_DB` until the outage crosses the nominal one, and then bisected; of
    several such margins this finds the smallest. If the outage is too large with every margin up to `LARGEST_DB`, this
    is returned, and -`LARGEST_DB` if it is always small enough. An instance without beams counts as an outage of all
    its users.

    problem   with a `MeanSinrOutage` of the same probability for all instances.
    instance  validation instances, with their true channels.
    """
    nominal = float(problem.bind(instance.truth).get(MeanSinrOutage).probability.flatten()[0])

    def enough(margin_db: float) -> bool:
        trial = HybridMargin(solver.rf_chains, solver.selections, margin_db)
        return mean_outage(problem, instance, trial) <= nominal

    at_zero = enough(0.0)
    step = -STEP_DB if at_zero else STEP_DB
    inner, outer = 0.0, step
    while abs(outer) <= LARGEST_DB and enough(outer) == at_zero:
        inner, outer = outer, outer + step
    if abs(outer) > LARGEST_DB:
        return inner
    low, high = sorted((inner, outer))
    while high - low > accuracy_db:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def mean_outage(problem: Problem, instance: Instance, solver: GreedyHybrid) -> float:
    """Mean share of users in outage on the true channels; all users of an instance without beams are."""
    found = solver.solve(problem, instance)
    share = evaluate(problem, instance, found.beams).figures["outage"]
    return float(torch.where(found.solved, share, 1).mean())
