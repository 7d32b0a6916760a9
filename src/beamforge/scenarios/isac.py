"""Users and sensing targets served by one transmitter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.units import from_db
from beamforge.scenarios.base import Scenario, complex_normal, require, require_positive, uniform


@dataclass(frozen=True)
class Isac(Scenario):
    """Joint communication and sensing: Rayleigh channels to K users, and M point targets of a monostatic radar.

    Channels are CN(0, I), the noise power at the users is 1/SNR, the power limit is one watt. Target angles are uniform
    on [0, pi/2], target gains CN(0, 1), the noise power of the sensing receiver is 0.01 W. All targets have the same
    required sensing SNR. There are N sensing streams in addition to those of the users.

    ``context``: ``p_max`` [B], ``target_angles`` [B, M], ``target_gain`` [B, M], ``sensing_noise`` [B] and
    ``sensing_snr_target`` [B]. Raises `ConfigError` for fields out of range.

    Source: the masked-transformer paper, Section IV-C.

    >>> instance = Isac(users=4, antennas=8).sample(count=2)
    >>> instance.truth.streams.count, instance.context["target_angles"].shape
    (12, torch.Size([2, 5]))
    """

    users: int = 32
    antennas: int = 32
    targets: int = 5
    snr_db: float = 15.0
    sensing_snr_db: float = 5.0
    sensing_noise: float = 0.01

    def __post_init__(self) -> None:
        require_positive(self, "users", "antennas", "targets", "sensing_noise")
        require(math.isfinite(self.snr_db), "snr_db", "finite", self.snr_db)
        require(math.isfinite(self.sensing_snr_db), "sensing_snr_db", "finite", self.sensing_snr_db)

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {
            "H": complex_normal(generator, self.users, self.antennas),
            "angles": uniform(generator, self.targets),
            "gain": complex_normal(generator, self.targets),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        angles = draws["angles"] * (math.pi / 2)
        network = Network.broadcast(draws["H"], from_db(-self.snr_db), sensing_streams=self.antennas)
        one = torch.ones_like(angles[:, 0])
        return Instance.perfect(
            network,
            p_max=one,
            target_angles=angles,
            target_gain=draws["gain"],
            sensing_noise=self.sensing_noise * one,
            sensing_snr_target=from_db(self.sensing_snr_db) * one,
        )
