"""Base stations with random channels, a small decentralised method with parameters, and questions for it."""

from __future__ import annotations

import os
import signal
import time

import torch
from torch import nn

from beamforge.classical.structure import directions
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import PerTransmitterPower
from beamforge.core.errors import ConfigError
from beamforge.core.network import squared_magnitude
from beamforge.core.problem import Problem
from beamforge.core.utilities import MinRate, SumRate
from beamforge.decentralised.base_stations import BaseStations
from beamforge.decentralised.solver import DecentralisedSolver
from beamforge.scenarios.interference import Interference


class Polite(DecentralisedSolver):
    """Each tells the others a learned share of the power that they may get from it, and minds theirs; in rounds.

    culprit  a base station that in the round `when` is late by `seconds`, dies ("die"), or refuses ("refuse").
    """

    capabilities = tuple(
        Capability(goal, (Form.INTERFERENCE,), needs=(PerTransmitterPower,)) for goal in (SumRate, MinRate)
    )

    def __init__(self, rounds=3, culprit=None, when=0, what=0.0):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        generator = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.7, 0.7, generator=generator)
        self.rounds, self.culprit, self.when, self.what = rounds, culprit, when, what

    def beams(self, stations, backhaul):
        gain = squared_magnitude(stations.H).sum(-1) * stations.power.unsqueeze(-1)
        own = gain.gather(-1, stations.serves[None, :, None].expand(len(gain), -1, 1))
        heard, bound = torch.zeros_like(gain), own.expand(gain.shape)
        for number in range(self.rounds):
            if self.culprit is not None and len(stations.serves) == 1 and int(stations.serves[0]) == self.culprit:
                self.misbehave(number)
            features = torch.stack([gain.log1p(), own.expand(gain.shape).log1p(), heard.log1p()], -1)
            said = gain * torch.sigmoid(self.net(features.double()).squeeze(-1)).to(gain.dtype)
            heard = backhaul.exchange(said, heard if number else bound)
        prices = said / (1 + said) + heard.sum(-1, keepdim=True).log1p()
        W = directions(stations.H, prices)
        index = stations.serves[None, :, None, None].expand(*W.shape[:-1], 1)
        return W.gather(-1, index).squeeze(-1) * stations.power.sqrt().unsqueeze(-1)

    def misbehave(self, number):
        if number == self.when:
            if self.what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.what == "refuse":
                raise ConfigError("weights must be in [0, 1], got 2")
            time.sleep(self.what)


def question(cells=3, count=4, dtype=torch.complex128, goal=SumRate, seed=0, antennas=4):
    instance = Interference(cells=cells, antennas=antennas, random_weights=True).sample(count, seed=seed, dtype=dtype)
    limit = PerTransmitterPower(instance.context["p_max_transmitter"])
    return Problem(goal(instance.context["weights"]), (limit,)), instance


def stations(K=3, N=4, B=5, seed=0, dtype=torch.complex128):
    """S = K base stations of N antennas, powers between 1 and 10 W."""
    generator = torch.Generator().manual_seed(seed)
    H = torch.randn(B, K, K, N, dtype=torch.complex128, generator=generator).to(dtype)
    power = 1 + 9 * torch.rand(B, K, dtype=torch.float64, generator=generator).to(H.real.dtype)
    return BaseStations(H, torch.arange(K), power, torch.ones_like(power))
