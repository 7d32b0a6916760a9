"""Single-antenna links with weak and strong interference, as training data for power control."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.scenarios.base import from_decibels, require, uniform
from beamforge.scenarios.power_control import Links as Scenario
from beamforge.scenarios.power_control import Strong, Weak, exponential


@dataclass(frozen=True)
class Links:
    """``[data]`` with ``source = "links"``: instances of the scenarios `weak` and `strong`, of random sizes.

    All instances of a batch have the same number of links; everything else is drawn independently.

    links           L, log-uniform.
    strong_share    share of instances that are `strong`; the others are `weak`.
    coupling        scale of the cross gains of strong instances, which are exp(1) times it.
    weighted_share  share whose weights are uniform on the simplex (Dirichlet(1)); in the others they are 1/L.
    gain_db         increase of all gains of an instance, uniform in dB.

    Every batch states ``p_max`` [B] (2 W) and ``weights`` [B, L] in its context; the noise is 0.05 W. Raises
    `ConfigError` for ranges that are empty or out of range.

    >>> from beamforge.scenarios.base import seeded
    >>> source = Links(links=(4, 4), strong_share=0.5)
    >>> source.build(source.draw(seeded(0, 0), count=3)).truth.gains.shape
    torch.Size([3, 4, 4])
    """

    links: tuple[int, int] = (4, 64)
    strong_share: float = 0.5
    coupling: tuple[float, float] = (0.05, 1.0)
    weighted_share: float = 0.5
    gain_db: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        require(1 <= self.links[0] <= self.links[1], "links", "positive and [least, largest]", self.links)
        least, most = self.coupling
        require(0 <= least <= most < math.inf, "coupling", "non-negative and [least, largest]", self.coupling)
        ordered = -math.inf < self.gain_db[0] <= self.gain_db[1] < math.inf
        require(ordered, "gain_db", "finite and [least, largest]", self.gain_db)
        for name in ("strong_share", "weighted_share"):
            require(0 <= getattr(self, name) <= 1, name, "in [0, 1]", getattr(self, name))

    def draw(self, generator: torch.Generator, count: int) -> dict[str, Tensor]:
        """Random numbers of a batch, float64; each tensor has `count` rows."""
        least, most = self.links[0], self.links[1] + 1
        L = int(least * (most / least) ** uniform(generator, 1).item())
        return {
            "strong": uniform(generator, count) < self.strong_share,
            "weighted": uniform(generator, count) < self.weighted_share,
            "gain": uniform(generator, count, L, L),
            "coupling": uniform(generator, count, 1, 1),
            "weights": uniform(generator, count, L),
            "gain_db": self.gain_db[0] + (self.gain_db[1] - self.gain_db[0]) * uniform(generator, count, 1, 1),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Instances [B] from the numbers drawn for them, in double precision."""
        L = draws["gain"].shape[-1]
        strong = Strong(L, least_coupling=self.coupling[0], most_coupling=self.coupling[1])
        gains = torch.where(draws["strong"][:, None, None], strong.gains(draws), Weak(L).gains(draws))
        gains = gains * from_decibels(draws["gain_db"])
        share = torch.where(draws["weighted"].unsqueeze(-1), exponential(draws["weights"]), 1.0)
        return Scenario(L).instances(gains, share)
