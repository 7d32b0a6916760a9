"""BaseStations: what base stations know by themselves."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.constraints import PerTransmitterPower
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.utilities import MinRate, SumRate


class BaseStations(NamedTuple):
    """S base stations of an interference channel with K: all of them in one process, or one alone in its own.

    H        complex [B, S, K, N]: each one's own channels to all users, rows h^H, divided by the square root of the
             noise at the user: received powers are in units of the noise.
    serves   integers [S]: the user that each serves, and so the number of the base station.
    power    [B, S] watts that each may spend.
    weights  [B, S] of the rate of the user that each serves, over the mean of all: a unit agreed on beforehand.
    """

    H: Tensor
    serves: Tensor
    power: Tensor
    weights: Tensor

    @classmethod
    def of(cls, problem: Problem, network: Network) -> BaseStations:
        """All base stations of a bound problem on a network in which transmitter k serves user k."""
        assert isinstance(problem.maximise, (SumRate, MinRate))
        H = network.H * network.noise.rsqrt()[:, None, :, None]
        serves = torch.arange(network.users, device=H.device)
        power = problem.get(PerTransmitterPower).limit
        weights = problem.maximise.weights.expand_as(power)
        mean = weights.mean(-1, keepdim=True)
        return cls(H, serves, power, weights / torch.where(mean > 0, mean, 1))

    def alone(self, number: int) -> BaseStations:
        """The base station of that number by itself: the others' channels, powers and weights are left behind."""
        only = slice(number, number + 1)
        return BaseStations(self.H[:, only], self.serves[only], self.power[:, only], self.weights[:, only])

    @property
    def own(self) -> Tensor:
        """Channels [B, S, N] to the user that each serves, rows h^H."""
        index = self.serves[None, :, None, None].expand(len(self.H), -1, 1, self.H.shape[-1])
        return self.H.gather(-2, index).squeeze(-2)

    @property
    def others(self) -> Tensor:
        """Boolean [S, K]: the users that each does not serve."""
        return self.serves.unsqueeze(-1) != torch.arange(self.H.shape[-2], device=self.H.device)
