"""Users and sensing targets of many sizes, SNRs and sensing SNRs, as training data."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.scenarios.base import complex_normal, from_decibels, require, uniform


@dataclass(frozen=True)
class IsacGrid:
    """``[data]`` with ``source = "isac-grid"``: the scenario `isac` with random sizes and SNRs.

    All instances of a batch have the same K, N and M; all else is drawn for each instance, uniformly.

    users           K.
    antennas        N; in half of the batches as many as users, where that is in the range.
    targets         M, at angles uniform on [0, pi/2] with gains CN(0, 1).
    snr_db          SNR of the users.
    sensing_snr_db  the sensing SNR asked for.
    weighted_share  the share of instances with weights uniform on [0.1, 2]; in the others they are all 1.

    Every batch states ``p_max`` (1 W), ``weights``, ``target_angles``, ``target_gain``, ``sensing_noise`` (0.01 W) and
    ``sensing_snr_target`` in its context. Raises `ConfigError` for ranges that are empty or out of range.

    >>> from beamforge.scenarios.base import seeded
    >>> source = IsacGrid(users=(4, 4), antennas=(6, 6), targets=(2, 2))
    >>> instance = source.build(source.draw(seeded(0, 0), count=3))
    >>> instance.truth.channel.shape, instance.context["target_angles"].shape
    (torch.Size([3, 4, 6]), torch.Size([3, 2]))
    """

    users: tuple[int, int] = (8, 32)
    antennas: tuple[int, int] = (8, 32)
    targets: tuple[int, int] = (1, 8)
    snr_db: tuple[float, float] = (0.0, 20.0)
    sensing_snr_db: tuple[float, float] = (0.0, 10.0)
    weighted_share: float = 0.2

    def __post_init__(self) -> None:
        for name in (item.name for item in fields(self) if item.name != "weighted_share"):
            least, most = getattr(self, name)
            require(-math.inf < least <= most < math.inf, name, "finite and [least, largest]", (least, most))
            require(name.endswith("_db") or least >= 1, name, "at least 1", least)
        require(0 <= self.weighted_share <= 1, "weighted_share", "in [0, 1]", self.weighted_share)

    def draw(self, generator: torch.Generator, count: int) -> dict[str, Tensor]:
        """Random numbers of a batch, float64; each tensor has `count` rows."""
        K, N, M = (between(ends, uniform(generator, 1).item()) for ends in (self.users, self.antennas, self.targets))
        if uniform(generator, 1).item() < 0.5 and self.antennas[0] <= K <= self.antennas[1]:
            N = K
        return {
            "snr_db": within(self.snr_db, uniform(generator, count)),
            "sensing_snr_db": within(self.sensing_snr_db, uniform(generator, count)),
            "weighted": uniform(generator, count) < self.weighted_share,
            "weights": within((0.1, 2.0), uniform(generator, count, K)),
            "H": complex_normal(generator, count, K, N),
            "angles": uniform(generator, count, M) * (math.pi / 2),
            "gain": complex_normal(generator, count, M),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Instances [B] from the numbers drawn for them, in double precision."""
        H = draws["H"]
        noise, one = from_decibels(-draws["snr_db"]).unsqueeze(-1).expand(H.shape[:2]), torch.ones_like(draws["snr_db"])
        return Instance.perfect(
            Network.broadcast(H, noise, sensing_streams=H.shape[-1]),
            p_max=one,
            weights=torch.where(draws["weighted"].unsqueeze(-1), draws["weights"], 1),
            target_angles=draws["angles"],
            target_gain=draws["gain"],
            sensing_noise=0.01 * one,
            sensing_snr_target=from_decibels(draws["sensing_snr_db"]),
        )


def between(ends: tuple[int, int], part: float) -> int:
    """The integer for a number in [0, 1), each of an interval with the same probability."""
    return ends[0] + int((ends[1] + 1 - ends[0]) * part)


def within(ends: tuple[float, float], part: Tensor) -> Tensor:
    """Numbers uniform in an interval, from numbers uniform in [0, 1)."""
    return ends[0] + (ends[1] - ends[0]) * part
