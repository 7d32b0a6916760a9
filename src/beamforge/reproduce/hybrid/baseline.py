"""The baseline, greedy hybrid beams with a margin, at any outage of a cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamforge.bench.statistics import Estimate, percent_of_mean
from beamforge.reproduce.hybrid.cells import Cell, Result, margin_for, run, statistical, with_margin

STEPS_DB = (-1.5, -0.75, -0.25, 0.25, 0.75, 1.5)
"""Margins that are measured, relative to the one that reaches the nominal outage on validation instances."""


@dataclass(frozen=True)
class Baseline:
    """Results of the baseline on the instances of a cell.

    margin_db  the margin that reaches the nominal outage on validation instances.
    nominal    the result with this margin.
    nearby     results with margins around it, in increasing order.
    """

    margin_db: float
    nominal: Result
    nearby: tuple[Result, ...]

    @classmethod
    def of(cls, cell: Cell, outage: float, count: int, validation: int) -> Baseline:
        """The baseline of a cell, measured on `count` held-out instances; with feedback it chooses codewords by
        the covariances."""
        raised = statistical if dict(cell.fields).get("feedback") else with_margin
        margin = margin_for(outage, cell.validation(validation), raised)
        instance = cell.test(count)
        nearby = tuple(run(raised(margin + step), instance) for step in STEPS_DB)
        return cls(margin, run(raised(margin), instance), nearby)

    def at(self, outage: float) -> Result:
        """The baseline with this outage, interpolated between two margins; the nearest one beyond the measured ones.

        Powers are those of one margin with a probability, and of the other one else, in the mean.
        """
        results = (*self.nearby, self.nominal)
        ordered = sorted(results, key=lambda one: -one.outage.value)
        shares = [one.outage.value for one in ordered]
        place = int(np.clip(np.searchsorted(-np.array(shares), -outage), 1, len(shares) - 1))
        above, below = ordered[place - 1], ordered[place]
        gap = shares[place - 1] - shares[place]
        part = float(np.clip((shares[place - 1] - outage) / gap, 0, 1)) if gap > 0 else 0.0
        power = above.power + part * (below.power - above.power)
        return Result(power, above.missed + part * (below.missed - above.missed))

    def percent(self, ours: Result) -> Estimate:
        """Mean power in percent of the baseline's at the same outage, over the instances that both solve."""
        other = self.at(ours.outage.value)
        both = np.isfinite(ours.power) & np.isfinite(other.power)
        return percent_of_mean(ours.power[both], other.power[both])
