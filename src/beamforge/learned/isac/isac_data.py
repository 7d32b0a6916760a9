"""Data of `isac` problems in units in which noise, power limit and sensing SNR targets are one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.constraints import TotalPower
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.network import Network, squared_magnitude
from beamforge.core.problem import Problem
from beamforge.core.sensing import SensingSnrAtLeast
from beamforge.core.utilities import SumRate
from beamforge.learned.l2o.ascent import Received
from beamforge.learned.l2o.masks import Masks, applied
from beamforge.learned.l2o.whitening import whitened


class IsacData(NamedTuple):
    """Channels of users and targets; data beams W [B, N, K] and sensing streams F [B, N, S] have total power one.

    H        complex [B, K, N], rows h_k^H, for unit noise.
    C        complex [B, N, M], columns c_m: target m is met where ``|c_m^H W|^2 + |c_m^H F|^2 >= 1``.
    weights  [B, K], of the rates.
    masks    of active users and antennas.
    targets  boolean [B, M], active targets.
    """

    H: Tensor
    C: Tensor
    weights: Tensor
    masks: Masks
    targets: Tensor

    @classmethod
    def of(cls, network: Network, problem: Problem) -> IsacData:
        """Data of a bound problem; users, antennas and targets without a channel are masked."""
        assert isinstance(problem.maximise, SumRate)
        power, limit = problem.get(TotalPower).limit, problem.get(SensingSnrAtLeast)
        scale = (power.unsqueeze(-1) / limit.level).sqrt()
        H, C = whitened(network, power), limit.unit_channels(network.antennas) * scale.unsqueeze(-2)
        return cls.masked(H, C, problem.maximise.weights, Masks.of(H), (C != 0).any(-2))

    @classmethod
    def posed(cls, instance: Instance) -> IsacData:
        """Data of a training batch with the context entries of the scenario `isac`."""
        network = instance.observation.network
        return cls.of(network, build_problem("isac", instance.context).bind(network))

    @classmethod
    def masked(cls, H: Tensor, C: Tensor, weights: Tensor, masks: Masks, targets: Tensor) -> IsacData:
        """Data with zero entries for masked users, antennas and targets, whatever their values (Eq. 12)."""
        there = masks.antennas.unsqueeze(-1) & targets.unsqueeze(-2)
        return cls(applied(H, masks), torch.where(there, C, 0), weights, masks, targets)

    def received(self, W: Tensor, F: Tensor) -> Received:
        """Received powers of the users, where sensing streams are interference (Eq. 28)."""
        seen = Received.of(self.H, W)
        return seen._replace(interference=seen.interference + self.leakage(F))

    def leakage(self, F: Tensor) -> Tensor:
        """Interference [B, K] of the sensing streams at the users."""
        return squared_magnitude(self.H @ F).sum(-1)

    def rate(self, W: Tensor, F: Tensor) -> Tensor:
        """Weighted sum rate [B] in nats."""
        return self.received(W, F).rate(self.weights)

    def sensed(self, X: Tensor) -> Tensor:
        """Sensing SNRs [B, M] of streams X [B, N, D] divided by their targets (Eq. 27)."""
        return squared_magnitude(self.C.mH @ X).sum(-1)

    def margins(self, X: Tensor) -> Tensor:
        """``SNR_m / level_m - 1`` [B, M] for streams X [B, N, D]; one for masked targets."""
        return torch.where(self.targets, self.sensed(X) - 1, 1)
