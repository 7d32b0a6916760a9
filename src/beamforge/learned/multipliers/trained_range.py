"""The range of instances that the learned multipliers were trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from beamforge.classical.sum_rate.reduced_wmmse import WhitenedChannel
from beamforge.core.network import own

MARGIN_DB = 5.0
"""Tolerance of an instance's mean SNR: the fading of few users moves it that far from the SNR drawn."""


class TrainedRange(NamedTuple):
    """Largest load K/N, and range of the SNR in decibels of a user of mean gain, in the training of some weights.

    There is no lower limit on K/N and none on K: the filter does as well there as inside the range.
    """

    load: float
    snr_db: tuple[float, float]

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> TrainedRange | None:
        """The range stated by the recipe in a header of weights; None if it states none."""
        data = header.get("recipe", {}).get("data", {})
        if not {"load", "snr_db"} <= data.keys():
            return None
        least, most = data["snr_db"]
        return cls(float(data["load"][1]), (float(least), float(most)))

    def outside(self, data: WhitenedChannel) -> Tensor:
        """Boolean [B]: whether the load is above the range, or the mean over users of the SNR in decibels outside it.

        The number of antennas is rounded as in training; an instance with a user without a channel is outside.
        """
        K, N = data.H.shape[-2:]
        middle, width = self.mean_log_gain(K, N)
        return ~((own(data.gram).real.log().mean(-1) - middle).abs() <= width)

    def mean_log_gain(self, users: int, antennas: int) -> tuple[float, float]:
        """Middle and half width of the range of the mean over users of ``log |h|^2``, channels in units of noise over
        power; the half width is negative if the load is above the range."""
        if max(1, round(users / self.load)) > antennas:
            return 0.0, -1.0
        least, most = self.snr_db
        middle = (least + most) / 2 * math.log(10) / 10 + math.log(antennas)
        return middle, ((most - least) / 2 + MARGIN_DB) * math.log(10) / 10
