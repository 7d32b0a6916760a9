"""Reproductions of published tables and figures, and comparisons of this library's own methods."""

from __future__ import annotations

from collections.abc import Mapping

from beamforge.reproduce.decentralised.tables import decentralised
from beamforge.reproduce.exhibits import Paper
from beamforge.reproduce.fairness.tables import fairness
from beamforge.reproduce.hybrid.tables import hybrid_outage
from beamforge.reproduce.isac.networks import isac_networks
from beamforge.reproduce.isac.tables import isac
from beamforge.reproduce.l2o.tables import l2o_transformer
from beamforge.reproduce.multipliers.tables import multipliers
from beamforge.reproduce.power_control.shared import neural_sum_rate_shared
from beamforge.reproduce.power_control.tables import power_control

PAPERS: Mapping[str, Paper] = {
    "multipliers": multipliers,
    "fairness": fairness,
    "power-control": power_control,
    "isac": isac,
    "isac-networks": isac_networks,
    "neural-sum-rate-shared": neural_sum_rate_shared,
    "decentralised": decentralised,
    "l2o-transformer": l2o_transformer,
    "hybrid-outage": hybrid_outage,
}
"""Reproductions by name, as `beamforge reproduce` lists them."""
