"""Downlinks with sensing targets, of all sizes up to the largest, as training data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.scenarios.base import complex_normal, from_decibels, require, uniform
from beamforge.training.data.masked import Masked


@dataclass(frozen=True)
class MaskedIsac(Masked):
    """``[data]`` with ``source = "isac"``: channels of `Masked` and targets of the scenario `isac`.

    Angles of targets are uniform on [0, pi/2] and gains CN(0, 1); inactive targets have gain zero. There are `size`
    sensing streams.

    targets         range of the uniformly distributed number of targets of an instance.
    sensing_snr_db  range of the uniformly distributed sensing SNR target.
    sensing_noise   noise power of the sensing receiver, watts.

    The context of a batch is that of the scenario. Raises `ConfigError` for entries out of range.

    Source: Section IV-C of the transformer-based learning-to-optimise paper, with a fixed number of targets.
    """

    snr_db: tuple[float, float] = (0.0, 20.0)
    targets: tuple[int, int] = (5, 5)
    sensing_snr_db: tuple[float, float] = (5.0, 5.0)
    sensing_noise: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.targets[0] <= self.targets[1], "targets", "at least 1 and [least, most]", self.targets)
        least, largest = self.sensing_snr_db
        finite = -math.inf < least <= largest < math.inf
        require(finite, "sensing_snr_db", "finite and [least, largest]", self.sensing_snr_db)
        require(0 < self.sensing_noise < math.inf, "sensing_noise", "positive", self.sensing_noise)

    @property
    def held_out(self) -> MaskedIsac:
        """The source of validation data, without stages."""
        return replace(self, stage_steps=0)

    def filled(self, generator: torch.Generator, stage: Tensor) -> dict[str, Tensor]:
        """Random numbers of instances of the given stages [B]."""
        count, (fewest, most) = len(stage), self.targets
        least, largest = self.sensing_snr_db
        number = fewest + (uniform(generator, count, 1) * (most + 1 - fewest)).long()
        return {
            **super().filled(generator, stage),
            "angles": uniform(generator, count, most),
            "gain": torch.where(torch.arange(most) < number, complex_normal(generator, count, most), 0),
            "sensing_snr_db": least + (largest - least) * uniform(generator, count),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Instances [B] from their random numbers, in double precision."""
        channels = super().build(draws)
        truth = channels.truth
        network = Network.broadcast(truth.channel, truth.noise, sensing_streams=self.size)
        one = torch.ones_like(draws["snr_db"])
        return Instance.perfect(
            network,
            **channels.context,
            target_angles=draws["angles"] * (math.pi / 2),
            target_gain=draws["gain"],
            sensing_noise=self.sensing_noise * one,
            sensing_snr_target=from_decibels(draws["sensing_snr_db"]),
        )
