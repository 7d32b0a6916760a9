"""Downlinks of all sizes up to the largest, with masked users and antennas, as a curriculum from easy to hard."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.scenarios.base import complex_normal, from_decibels, require, uniform


@dataclass(frozen=True)
class Masked:
    """``[data]``: Rayleigh fading from one transmitter, with random subsets of K of L users and N of L antennas.

    ``H = H' o M`` with ``H'_kn ~ CN(0, 1)``, p_max = 1 W, noise ``1 / SNR``, and M zero in the rows and columns of
    inactive users and antennas, so that one batch has instances of several sizes.

    size         L, the largest number of users and of antennas.
    sizes        number n of different K, and of different N: L/n, 2L/n, .., L.
    snr_db       range of the uniformly distributed SNR.
    stage_steps  steps of each stage of the curriculum. A stage is a pair (K, N), in increasing order of K, then of N;
                 after the last stage the first one follows. With 0 there are no stages, and all pairs are equally
                 likely.
    replay       share of a batch from the stages so far, including the current one, with equal probability.

    Validation has no stages. The context of a batch has ``p_max`` [B]. Raises `ConfigError` for entries out of range.

    Source: Sections III-C2 and III-C3 of the transformer-based learning-to-optimise paper.
    """

    size: int = 16
    sizes: int = 4
    snr_db: tuple[float, float] = (20.0, 20.0)
    stage_steps: int = 10
    replay: float = 0.5

    def __post_init__(self) -> None:
        require(self.size >= 1, "size", "at least 1", self.size)
        require(1 <= self.sizes <= self.size, "sizes", "between 1 and size", self.sizes)
        require(
            -math.inf < self.snr_db[0] <= self.snr_db[1] < math.inf,
            "snr_db",
            "finite and [least, largest]",
            self.snr_db,
        )
        require(self.stage_steps >= 0, "stage_steps", "at least 0", self.stage_steps)
        require(0 <= self.replay <= 1, "replay", "in [0, 1]", self.replay)

    def stages(self) -> list[tuple[int, int]]:
        """All pairs (K, N), in the order of the curriculum.

        >>> Masked(size=8, sizes=2).stages()
        [(4, 4), (4, 8), (8, 4), (8, 8)]
        """
        counts = [round(self.size * part / self.sizes) for part in range(1, self.sizes + 1)]
        return [(K, N) for K in counts for N in counts]

    @property
    def held_out(self) -> Masked:
        """Data for validation, with all pairs equally likely."""
        return replace(self, stage_steps=0)

    def draw_at(self, generator: torch.Generator, count: int, step: int) -> dict[str, Tensor]:
        """Random numbers for the batch of a step of the curriculum."""
        stages = len(self.stages())
        if not self.stage_steps:
            return self.filled(generator, (uniform(generator, count) * stages).long())
        begun = step // self.stage_steps
        seen, now = min(begun + 1, stages), begun % stages
        earlier = (uniform(generator, count) * seen).long()
        again = uniform(generator, count) < self.replay
        return self.filled(generator, torch.where(again, earlier, now))

    def draw(self, generator: torch.Generator, count: int) -> dict[str, Tensor]:
        """Random numbers for a batch without stages, float64, each with `count` rows."""
        return self.held_out.draw_at(generator, count, 0)

    def filled(self, generator: torch.Generator, stage: Tensor) -> dict[str, Tensor]:
        """Random numbers for instances of the given stages [B]."""
        count, pairs = len(stage), torch.tensor(self.stages())[stage]

        def chosen() -> Iterator[Tensor]:
            for axis in range(2):
                rank = uniform(generator, count, self.size).argsort(-1).argsort(-1)
                yield rank < pairs[:, axis, None]

        users, antennas = chosen()
        least, largest = self.snr_db
        return {
            "users": users,
            "antennas": antennas,
            "snr_db": least + (largest - least) * uniform(generator, count),
            "fading": complex_normal(generator, count, self.size, self.size),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Instances [B] for these random numbers, in double precision."""
        there = draws["users"].unsqueeze(-1) & draws["antennas"].unsqueeze(-2)
        noise = from_decibels(-draws["snr_db"])
        network = Network.broadcast(torch.where(there, draws["fading"], 0), noise.unsqueeze(-1).expand(-1, self.size))
        return Instance.perfect(network, p_max=torch.ones_like(noise))
