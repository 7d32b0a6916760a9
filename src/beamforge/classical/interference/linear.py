"""Decentralised closed forms without messages: MRT, ZF and SLNR with local channels."""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.classical.structure import directions, unit
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import PerTransmitterPower
from beamforge.core.network import squared_magnitude
from beamforge.core.utilities import MinRate, SumRate
from beamforge.decentralised.backhaul import Backhaul
from beamforge.decentralised.base_stations import BaseStations
from beamforge.decentralised.solver import DecentralisedSolver

CAPABILITIES = tuple(
    Capability(goal, (Form.INTERFERENCE,), needs=(PerTransmitterPower,)) for goal in (SumRate, MinRate)
)
"""Sum rate and max-min in the interference channel with a power limit per base station."""


class LocalLinear(DecentralisedSolver):
    """Base: full power in the direction given by the column of `columns` [B, S, N, K] for the served user.

    The beams equal those of the method of the same name in `beamforge.classical.linear`.
    """

    capabilities = CAPABILITIES

    def beams(self, stations: BaseStations, backhaul: Backhaul) -> Tensor:
        columns = self.columns(stations)
        index = stations.serves[None, :, None, None].expand(*columns.shape[:-1], 1)
        return stations.power.sqrt().unsqueeze(-1) * columns.gather(-1, index).squeeze(-1)

    def columns(self, stations: BaseStations) -> Tensor:
        """Unit directions [B, S, N, K] for all users."""
        raise NotImplementedError


class LocalMRT(LocalLinear):
    """Maximum ratio transmission ``w_k ∝ h_kk``."""

    def columns(self, stations: BaseStations) -> Tensor:
        return unit(stations.H.mH)


class LocalZF(LocalLinear):
    """Zero forcing: no interference at other users if there are at least as many antennas as users."""

    def columns(self, stations: BaseStations) -> Tensor:
        W = unit(torch.linalg.pinv(unit(stations.H.mH).mH))
        return W * (squared_magnitude(stations.H).sum(-1) > 0).unsqueeze(-2)


class LocalSLNR(LocalLinear):
    """Maximum signal-to-leakage-and-noise ratio: ``w_k ∝ (sum_j h_kj h_kj^H + I/P)^-1 h_kk``, noise one."""

    def columns(self, stations: BaseStations) -> Tensor:
        return directions(stations.H, stations.power.unsqueeze(-1).expand(stations.H.shape[:-1]))
