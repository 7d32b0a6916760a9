"""Interference channels of every size and SNR, for methods of base stations that decide alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.scenarios.base import complex_normal, from_decibels, require, uniform


@dataclass(frozen=True)
class InterferenceGrid:
    """``[data]`` with ``source = "interference-grid"``: the scenario of that name, of sizes that change.

    All instances of a batch have the same K and N; the SNR is drawn for each by itself.

    cells           K, uniform.
    antennas        N, uniform, but not fewer than K.
    snr_db          least and largest; uniform over steps of 5 dB from the least on.
    cross_gain      of the channels to other cells' users, uniform; those to the own one have gain 1.
    weighted_share  the share of instances with weights uniform on [0, 1]; in the others they are all 1.

    Every batch states ``p_max_transmitter`` and ``weights`` [B, K] in its context; the noise is 1. Raises `ConfigError`
    for ranges that are empty or out of range.

    Source: M. Kim, H. Lee, M. Kim, I. Lee, "Deep learning based decentralized beamforming methods for multi-antenna
    interference channels", IEEE Access 11 (2023), Sec. V.

    >>> from beamforge.scenarios.base import seeded
    >>> source = InterferenceGrid(cells=(3, 3), antennas=(8, 8))
    >>> source.build(source.draw(seeded(0, 0), count=5)).truth.H.shape
    torch.Size([5, 3, 3, 8])
    """

    cells: tuple[int, int] = (2, 4)
    antennas: tuple[int, int] = (8, 8)
    snr_db: tuple[float, float] = (-5.0, 25.0)
    cross_gain: tuple[float, float] = (0.2, 0.2)
    weighted_share: float = 0.3

    def __post_init__(self) -> None:
        for name in ("cells", "antennas"):
            least, most = getattr(self, name)
            require(1 <= least <= most, name, "positive and [least, largest]", getattr(self, name))
        ordered = -math.inf < self.snr_db[0] <= self.snr_db[1] < math.inf
        require(ordered, "snr_db", "finite and [least, largest]", self.snr_db)
        require(0 <= self.cross_gain[0] <= self.cross_gain[1], "cross_gain", "at least 0 and ordered", self.cross_gain)
        require(0 <= self.weighted_share <= 1, "weighted_share", "in [0, 1]", self.weighted_share)

    def draw(self, generator: torch.Generator, count: int) -> dict[str, Tensor]:
        """A batch in random numbers, float64, each with `count` rows."""
        K = between(self.cells, uniform(generator, 1).item())
        fewest, most = self.antennas
        N = between((min(max(K, fewest), most), most), uniform(generator, 1).item())
        steps = math.floor((self.snr_db[1] - self.snr_db[0]) / 5) + 1
        return {
            "snr_db": self.snr_db[0] + 5 * (steps * uniform(generator, count)).floor(),
            "cross_gain": self.cross_gain[0] + (self.cross_gain[1] - self.cross_gain[0]) * uniform(generator, count),
            "weighted": uniform(generator, count) < self.weighted_share,
            "weights": uniform(generator, count, K),
            "fading": complex_normal(generator, count, K, K, N),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Instances [B] from the numbers drawn for them, in double precision."""
        h, weights = draws["fading"], draws["weights"]
        own = torch.eye(h.shape[1], dtype=torch.bool, device=h.device).unsqueeze(-1)
        weights = torch.where(draws["weighted"].unsqueeze(-1), weights, 1)
        power = from_decibels(draws["snr_db"]).unsqueeze(-1).expand_as(weights)
        cross = draws["cross_gain"].sqrt()[:, None, None, None] * h
        network = Network.interference(torch.where(own, h, cross), 1.0)
        return Instance.perfect(network, p_max_transmitter=power, weights=weights)


def between(ends: tuple[int, int], part: float) -> int:
    """The integer that a number in [0, 1) stands for, all of an interval alike."""
    return ends[0] + int((ends[1] + 1 - ends[0]) * part)
