"""Interference channels of every size, for methods whose base stations decide alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.scenarios.base import complex_normal, from_decibels, require, uniform

NAMED_GAIN = 0.2
"""Cross gain of the scenario `interference` where none is stated."""


@dataclass(frozen=True)
class Interference:
    """``[data]`` with ``source = "interference"``: K base stations with N antennas and a user each, of changing sizes.

    All instances of a batch have the same K and N; everything else is drawn for each by itself. ``h_kk ~ CN(0, I)``,
    ``h_kj ~ CN(0, g I)``, noise 1.

    cells           K, uniform.
    antennas        N, log-uniform in the batches that are not named; `named_antennas` in the others.
    named_share     the share of batches with `named_antennas` antennas and cross gains of 0.2, as in the scenario.
    snr_db          power limit of a base station, uniform.
    cross_gain_db   of g in the others, uniform.
    weighted_share  the share of instances whose users' weights are uniform on [0, 1]; in the others they are 1.

    Every batch states ``p_max_transmitter`` [B, K] and ``weights`` [B, K] in its context. Raises `ConfigError` for
    ranges that are empty or out of range.

    >>> from beamforge.scenarios.base import seeded
    >>> source = Interference(cells=(3, 3), named_share=1.0)
    >>> source.build(source.draw(seeded(0, 0), count=2)).truth.H.shape
    torch.Size([2, 3, 3, 8])
    """

    cells: tuple[int, int] = (2, 6)
    antennas: tuple[int, int] = (2, 32)
    named_antennas: int = 8
    named_share: float = 0.5
    snr_db: tuple[float, float] = (-7.0, 27.0)
    cross_gain_db: tuple[float, float] = (-15.0, 0.0)
    weighted_share: float = 0.5

    def __post_init__(self) -> None:
        for name in ("cells", "antennas"):
            least, most = getattr(self, name)
            require(1 <= least <= most, name, "positive and [least, largest]", (least, most))
        for name in ("snr_db", "cross_gain_db"):
            least, most = getattr(self, name)
            require(-math.inf < least <= most < math.inf, name, "finite and [least, largest]", (least, most))
        for name in ("named_share", "weighted_share"):
            require(0 <= getattr(self, name) <= 1, name, "in [0, 1]", getattr(self, name))
        require(self.named_antennas >= 1, "named_antennas", "positive", self.named_antennas)

    def draw(self, generator: torch.Generator, count: int) -> dict[str, Tensor]:
        """A batch in random numbers, float64, each with `count` rows."""
        which, size, many = uniform(generator, 3).tolist()
        named = which < self.named_share
        K = int(self.cells[0] + (self.cells[1] + 1 - self.cells[0]) * size)
        least, most = self.antennas[0], self.antennas[1] + 1
        N = self.named_antennas if named else int(least * (most / least) ** many)

        def within(ends: tuple[float, float]) -> Tensor:
            return ends[0] + (ends[1] - ends[0]) * uniform(generator, count)

        gain = from_decibels(within(self.cross_gain_db))
        weights = uniform(generator, count, K)
        plain = uniform(generator, count, 1) >= self.weighted_share
        return {
            "power": from_decibels(within(self.snr_db)),
            "cross_gain": torch.full_like(gain, NAMED_GAIN) if named else gain,
            "weights": torch.where(plain, 1.0, weights),
            "fading": complex_normal(generator, count, K, K, N),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Instances [B] from the numbers drawn for them, in double precision."""
        K = draws["fading"].shape[1]
        own = torch.eye(K, dtype=torch.bool, device=draws["fading"].device).unsqueeze(-1)
        faint = draws["cross_gain"].sqrt()[:, None, None, None]
        H = torch.where(own, draws["fading"], faint * draws["fading"])
        limit = draws["power"].unsqueeze(-1).expand(-1, K)
        return Instance.perfect(Network.interference(H, 1.0), p_max_transmitter=limit, weights=draws["weights"])
