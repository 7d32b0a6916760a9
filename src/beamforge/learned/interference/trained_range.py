"""The inputs that networks for interference channels were trained for: weights of the rates, and SNRs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from beamforge.core.errors import ConfigError
from beamforge.core.network import squared_magnitude
from beamforge.core.problem import Problem
from beamforge.core.utilities import MinRate, SumRate
from beamforge.decentralised.base_stations import BaseStations
from beamforge.learned.multipliers.trained_range import MARGIN_DB


def weights_of(problem: Problem) -> Tensor:
    """The weights [B, K] of the rates of a bound problem."""
    assert isinstance(problem.maximise, (SumRate, MinRate))
    return problem.maximise.weights


def check_weights(weights: Tensor) -> None:
    """`ConfigError` for weights [B, K] above one, which the networks of the paper were not trained for.

    >>> import torch
    >>> check_weights(torch.tensor([[1.0, 2.0]]))
    Traceback (most recent call last):
    beamforge.core.errors.ConfigError: weights must be in [0, 1], got 2; divide them by the largest
    """
    if (above := weights > 1).any():
        raise ConfigError(f"weights must be in [0, 1], got {weights[above][0]:g}; divide them by the largest")


class SnrRange(NamedTuple):
    """Least and largest SNR in decibels that some weights were trained on."""

    least: float
    largest: float

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> SnrRange | None:
        """The range of the recipe in a header of weights; None if it has none."""
        found = header.get("recipe", {}).get("data", {}).get("snr_db")
        return None if found is None else cls(*map(float, found))

    def outside(self, stations: BaseStations) -> Tensor:
        """Boolean [B]: whether the mean SNR in decibels is more than 5 dB outside the range.

        The mean is over all base stations k, of ``P_k |h_kk|^2 / (N noise)``; the 5 dB allow for fading.

        >>> import torch
        >>> H, ones = torch.eye(2, dtype=torch.complex64).expand(1, 2, 2, 2), torch.ones(1, 2)
        >>> stations = BaseStations(H, torch.arange(2), 1e4 * ones, ones)  # 37 dB
        >>> SnrRange(-5.0, 25.0).outside(stations), SnrRange(-5.0, 35.0).outside(stations)
        (tensor([True]), tensor([False]))
        """
        snr = stations.power * squared_magnitude(stations.own).sum(-1) / stations.own.shape[-1]
        mean = 10 * snr.log10().mean(-1)
        return (mean < self.least - MARGIN_DB) | (mean > self.largest + MARGIN_DB)
