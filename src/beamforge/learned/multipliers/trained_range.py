"""Where the learned multipliers were trained, and which instances lie beyond."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from beamforge.classical.sum_rate.reduced_wmmse import WhitenedChannel
from beamforge.core.network import own

MARGIN_DB = 5.0
"""By which an instance's mean SNR may lie outside: few users' fading strays that far from what was drawn."""


class TrainedRange(NamedTuple):
    """Largest load K/N, and SNR in decibels of a user of mean gain, that weights were trained for.

    Fewer users an antenna and more users are no limits: there the filter does as well as in between.
    """

    load: float
    snr_db: tuple[float, float]

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> TrainedRange | None:
        """As the recipe in a header of weights states it, or None where it does not."""
        data = header.get("recipe", {}).get("data", {})
        if not {"load", "snr_db"} <= data.keys():
            return None
        least, most = data["snr_db"]
        return cls(float(data["load"][1]), (float(least), float(most)))

    def beyond(self, data: WhitenedChannel) -> Tensor:
        """Boolean [B]: the load is higher, or the SNR, its mean in decibels over the users, is outside.

        The number of antennas is a rounded one, as in training; an instance with a user without a channel is beyond.
        """
        K, N = data.H.shape[-2:]
        if max(1, round(K / self.load)) > N:
            return torch.ones_like(data.power, dtype=torch.bool)
        least, most = self.snr_db
        middle = (least + most) / 2 * math.log(10) / 10 + math.log(N)
        width = ((most - least) / 2 + MARGIN_DB) * math.log(10) / 10
        return (own(data.gram).real.log().mean(-1) - middle).abs() > width
