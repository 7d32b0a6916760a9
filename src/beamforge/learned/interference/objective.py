"""Training objective of networks for interference channels: rates, and utilities relative to those of SLNR beams."""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.network import spectral_efficiency
from beamforge.decentralised.base_stations import BaseStations
from beamforge.learned.interference.station_view import StationView, direction

UTILITIES = {"sum-rate": lambda rates: rates.sum(-1), "max-min": lambda rates: rates.amin(-1)}
"""Utilities of weighted rates [B, K], by name of the problem."""


def posed(problem: str, instance: Instance) -> BaseStations:
    """All base stations of a batch of training data, with `p_max_transmitter` and `weights` in its context."""
    network = instance.observation.network
    return BaseStations.of(build_problem(problem, instance.context).bind(network), network)


def achieved(view: StationView, delivered: Tensor, disturbed: Tensor | None = None) -> Tensor:
    """Rates [B, K] for received powers [B, K, K] of each base station at each user, relative to the noise.

    disturbed  [B, K]: interference relative to the noise, used instead of that of the other base stations.
    """
    others = (delivered * view.others).sum(-2) if disturbed is None else disturbed
    return spectral_efficiency((delivered * view.itself).sum(-1) / (1 + others))


def shortfall(problem: str, view: StationView, weights: Tensor, rates: Tensor) -> Tensor:
    """Negative mean utility of rates [B, K], divided by the utility of equal rates at the mean weighted rate of SLNR.

    SLNR beams need no exchange. The normalisation gives all SNRs and numbers of users the same scale.

    >>> H, ones = torch.eye(2, dtype=torch.complex64).expand(1, 2, 2, 2), torch.ones(1, 2)
    >>> view = StationView.of(BaseStations(H, torch.arange(2), ones, ones))
    >>> shortfall("max-min", view, ones, ones)
    tensor(-1.)
    """
    with torch.no_grad():
        usual = weights * achieved(view, direction(view, view.gain).leakage * view.gain)
        even = usual.mean(-1, keepdim=True).expand_as(usual).clamp_min(torch.finfo(usual.dtype).tiny)
    utility = UTILITIES[problem]
    return -(utility(weights * rates) / utility(even)).mean()
