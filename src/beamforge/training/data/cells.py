"""Cells of many sizes, as training data for fairness between near and far users."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.scenarios.base import complex_normal, from_decibels, require, uniform
from beamforge.scenarios.cell import Fairness
from beamforge.training.data.downlink import sizes


@dataclass(frozen=True)
class Cells:
    """``[data]``: the cell of the scenario ``fairness``, with variations of size, noise and path loss.

    All instances of a batch have the same K and N; everything else is drawn independently and uniformly.

    named_share   share of batches with the scenario's own K and N.
    users, load   K and K/N of the other batches, drawn as by `Downlink`.
    varied_share  share of instances, in every batch, whose noise is changed by `noise_offset_db` decibels and whose
                  users have log-normal shadowing of standard deviation `shadowing_db`, both drawn from their ranges.

    Every batch states ``p_max`` [B] in its context. Raises `ConfigError` for ranges that are empty or out of range.
    """

    named_share: float = 0.4
    users: tuple[int, int] = (2, 24)
    load: tuple[float, float] = (0.25, 1.6)
    varied_share: float = 0.3
    noise_offset_db: tuple[float, float] = (-15.0, 15.0)
    shadowing_db: tuple[float, float] = (0.0, 8.0)

    def __post_init__(self) -> None:
        for name in (item.name for item in fields(self)):
            value = getattr(self, name)
            if name.endswith("share"):
                require(0 <= value <= 1, name, "in [0, 1]", value)
            else:
                require(-math.inf < value[0] <= value[1] < math.inf, name, "finite and [least, largest]", value)
        require(self.users[0] >= 1, "users", "at least 1", self.users)
        require(self.load[0] > 0, "load", "positive", self.load)
        require(self.shadowing_db[0] >= 0, "shadowing_db", "at least 0", self.shadowing_db)

    def draw(self, generator: torch.Generator, count: int) -> dict[str, Tensor]:
        """Random numbers of a batch, float64; each tensor has `count` rows."""
        K, N = Fairness().users, Fairness().antennas
        if uniform(generator, 1) >= self.named_share:
            K, N = sizes(generator, self.users, self.load)
        varied = uniform(generator, count, 1) < self.varied_share
        spread, offset = (
            varied * (least + (most - least) * uniform(generator, count, 1))
            for least, most in (self.shadowing_db, self.noise_offset_db)
        )
        return {
            "area": uniform(generator, count, K),
            "azimuth": uniform(generator, count, K),
            "phase": uniform(generator, count, K),
            "shadowing": spread * torch.randn(count, K, dtype=torch.float64, generator=generator),
            "noise_offset_db": offset,
            "fading": complex_normal(generator, count, K, N),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Instances [B] from the numbers drawn for them, in double precision."""
        K, N = draws["fading"].shape[-2:]
        made = Fairness(users=K, antennas=N, shadowing_db=1.0).build(draws)
        noise = made.truth.noise * from_decibels(draws["noise_offset_db"])
        return Instance.perfect(Network.broadcast(made.truth.channel, noise), p_max=made.context["p_max"])
