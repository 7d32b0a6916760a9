"""What networks for interference channels learn from: rates, and utilities over those that need no exchange."""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.network import spectral_efficiency
from beamforge.decentralised.base_stations import BaseStations
from beamforge.learned.interference.station_view import StationView, direction

UTILITIES = {"sum-rate": lambda rates: rates.sum(-1), "max-min": lambda rates: rates.amin(-1)}
"""Of weighted rates [B, K], by the problem's name."""


def posed(problem: str, instance: Instance) -> BaseStations:
    """All base stations of a batch of training data, with `p_max_transmitter` and `weights` in its context."""
    network = instance.observation.network
    return BaseStations.of(build_problem(problem, instance.context).bind(network), network)


def achieved(view: StationView, delivered: Tensor, disturbed: Tensor | None = None) -> Tensor:
    """Rates [B, K] for what each of all base stations delivers to each user, [B, K, K] over the noise.

    disturbed  [B, K]: what else users hear, over the noise, where that is not what the others deliver.
    """
    others = (delivered * view.others).sum(-2) if disturbed is None else disturbed
    return spectral_efficiency((delivered * view.itself).sum(-1) / (1 + others))


def shortfall(problem: str, view: StationView, weights: Tensor, rates: Tensor) -> Tensor:
    """Minus the mean utility of rates [B, K], over the utility if all had the mean rate without any exchange.

    Without one, every base station sends the beam of the largest ratio of signal to leakage and noise. This puts all
    SNRs and numbers of users on one scale.

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
