"""The MISO interference channel: K pairs of a base station and a user, all interfering with each other."""

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
class Interference(Scenario):
    """K cells with one user each: transmitter k serves user k; the other users receive it with gain `cross_gain`.

    ``H[t, k]`` is ``h^H`` from transmitter t to user k, ``h ~ CN(0, I)`` if t = k and ``CN(0, cross_gain I)`` else. The
    noise is 1, so each transmitter's power limit equals the SNR. With `random_weights` the users' weights are uniform
    on [0, 1].

    ``context``: ``p_max_transmitter`` [B, K], and ``weights`` [B, K] with `random_weights`. Raises `ConfigError` for
    fields out of range.

    Source: the decentralised beamforming paper's setup for the MISO interference channel.

    >>> instance = Interference(cells=3, snr_db=20.0).sample(count=2)
    >>> instance.truth.H.shape, instance.context["p_max_transmitter"][0].tolist()
    (torch.Size([2, 3, 3, 8]), [100.0, 100.0, 100.0])
    """

    cells: int = 4
    antennas: int = 8
    snr_db: float = 10.0
    cross_gain: float = 0.2
    random_weights: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "cells", "antennas")
        require(self.cross_gain >= 0, "cross_gain", "at least 0", self.cross_gain)

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {
            "fading": complex_normal(generator, self.cells, self.cells, self.antennas),
            "weights": uniform(generator, self.cells),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        own = torch.eye(self.cells, dtype=torch.bool).unsqueeze(-1)
        H = torch.where(own, draws["fading"], math.sqrt(self.cross_gain) * draws["fading"])
        context = {"p_max_transmitter": draws["weights"].new_full(H.shape[:2], from_db(self.snr_db))}
        if self.random_weights:
            context["weights"] = draws["weights"]
        return Instance.perfect(Network.interference(H, 1.0), **context)
