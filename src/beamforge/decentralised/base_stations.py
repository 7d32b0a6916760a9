"""BaseStations: the local knowledge of base stations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.constraints import PerTransmitterPower
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.utilities import MinRate, SumRate


class BaseStations(NamedTuple):
    """S of the K base stations of an interference channel: all of them in one process, or a single one (S = 1).

    H        complex [B, S, K, N]: channels of each base station to all users, rows h^H, divided by the square root of
             the noise at the user, so that received powers are in units of the noise.
    serves   integers [S]: the user of each base station, which is also the number of the base station.
    power    [B, S]: power limits in watts.
    weights  [B, S]: rate weight of the served user, relative to the mean weight, which all base stations know.
    """

    H: Tensor
    serves: Tensor
    power: Tensor
    weights: Tensor

    @classmethod
    def of(cls, problem: Problem, network: Network) -> BaseStations:
        """All base stations for a bound problem and a network in which transmitter k serves user k."""
        assert isinstance(problem.maximise, (SumRate, MinRate))
        H = network.H * network.noise.rsqrt()[:, None, :, None]
        serves = torch.arange(network.users, device=H.device)
        power = problem.get(PerTransmitterPower).limit
        weights = problem.maximise.weights.expand_as(power)
        mean = weights.mean(-1, keepdim=True)
        return cls(H, serves, power, weights / torch.where(mean > 0, mean, 1))

    def alone(self, number: int) -> BaseStations:
        """A single base station, without the channels, powers and weights of the others."""
        only = slice(number, number + 1)
        return BaseStations(self.H[:, only], self.serves[only], self.power[:, only], self.weights[:, only])

    @property
    def own(self) -> Tensor:
        """Channels [B, S, N] to the served users, rows h^H."""
        index = self.serves[None, :, None, None].expand(len(self.H), -1, 1, self.H.shape[-1])
        return self.H.gather(-2, index).squeeze(-2)

    @property
    def others(self) -> Tensor:
        """Boolean [S, K]: users not served by each base station."""
        return self.serves.unsqueeze(-1) != torch.arange(self.H.shape[-2], device=self.H.device)
