"""Published tables and figures, measured anew: one file for each paper, and one for this library's own method."""

from __future__ import annotations

from collections.abc import Mapping

from beamforge.reproduce.exhibits import Paper
from beamforge.reproduce.fairness.tables import fairness
from beamforge.reproduce.isac.tables import isac
from beamforge.reproduce.multipliers.tables import multipliers
from beamforge.reproduce.power_control.shared import neural_sum_rate_shared
from beamforge.reproduce.power_control.tables import power_control

PAPERS: Mapping[str, Paper] = {
    "multipliers": multipliers,
    "fairness": fairness,
    "power-control": power_control,
    "isac": isac,
    "neural-sum-rate-shared": neural_sum_rate_shared,
}
"""By name; a reproduction is one file, and one line here."""
