"""Decentralised beams by two small networks and one number exchanged per ordered pair of base stations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import PerTransmitterPower
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.utilities import MinRate, SumRate
from beamforge.decentralised.backhaul import Backhaul, SharedMemory
from beamforge.decentralised.base_stations import BaseStations
from beamforge.decentralised.solver import DecentralisedSolver
from beamforge.io.weights import trained_weights
from beamforge.learned.interference.beam_recovery import Duals, Recovered, recover, slackness
from beamforge.learned.interference.networks import DualNet, ITNet, Sight
from beamforge.learned.interference.objective import achieved, posed, shortfall
from beamforge.learned.interference.station_view import StationView, beams
from beamforge.learned.multipliers.sum_rate import call_like

DUAL_RATE = 10.0
"""Learning rate of DualNet relative to that of ITNet."""


PROJECTED = 1e-3
"""Relative excess power from which a beam counts as projected."""


class Temperatures(NamedTuple):
    """Inputs and interference temperatures of base stations.

    view, sight  local inputs of each base station.
    correction   [B, S, K]: output of ITNet.
    share        [B, S, K]: ``c_kj / (P |h_kj|^2)``, relative to full power along the channel.
    """

    view: StationView
    sight: Sight
    correction: Tensor
    share: Tensor

    @property
    def allowed(self) -> Tensor:
        """``c_kj`` relative to the noise [B, S, K]."""
        return self.share * self.view.gain * self.view.others


class ITNetDualNet(DecentralisedSolver):
    """Base: ITNet, one exchange, DualNet, beam recovery and projection; a subclass names its problem.

    Base station k chooses the interference temperature c_kj, a bound on its interference power at user j, sends it to
    that user's base station, and uses the beam ::

        w_k = sqrt(p_k) A_k^-1 h_kk,    A_k = sum_j d_kj h_kj h_kj^H + d_kk I,    |w_k|^2 <= P_k

    (11, 12a) with c from `ITNet`, d from `DualNet` after the exchange of K(K-1) numbers, and p in closed form (12b); a
    beam above the power limit is scaled down. For any K, N and powers; O(K^2 N + K^3) per base station.

    checkpoint   "shipped", "random" (untrained), or a file written by `beamforge train`; only random weights are
                 trainable, unless `requires_grad_` is called.
    alternating  whether random weights are trained in turns, ITNet on (25) and DualNet on (32), or jointly on (23).
    width        width of the networks, for random weights.
    looks        number of load updates in DualNet, for random weights.

    Source: M. Kim, H. Lee, M. Kim, I. Lee, "Deep learning based decentralized beamforming methods for multi-antenna
    interference channels", IEEE Access 11 (2023), Algorithms 1 and 2. New here: inputs and initial outputs of the
    networks (`networks`).
    """

    model: ClassVar[str]
    problem: ClassVar[str]

    def __init__(self, checkpoint: str = "shipped", alternating: bool = True, width: int = 32, looks: int = 2) -> None:
        super().__init__()
        if min(width, looks) < 1:
            raise ConfigError(f"width and looks must be at least 1, got {width} and {looks}")
        trained = trained_weights(self.model, checkpoint)
        try:
            if trained is not None:
                width, looks = (int(trained.settings[name]) for name in ("width", "looks"))
            self.itnet, self.dualnet = ITNet(width), DualNet(width, looks)
            if trained is not None:
                self.load_state_dict(trained.tensors)
                self.requires_grad_(False)
        except (KeyError, ValueError, RuntimeError):
            raise ConfigError(f"checkpoint must fit this version's networks, got others in {checkpoint}") from None
        self.turns: Mapping[str, float] = {"itnet": 1.0, "dualnet": DUAL_RATE} if alternating else {}

    def beams(self, stations: BaseStations, backhaul: Backhaul) -> Tensor:
        asked = self.temperatures(stations)
        heard = backhaul.exchange(asked.allowed)
        duals = self.duals(asked, heard)
        found = recover(asked.view, duals, heard)
        return beams(duals.direction, stations.power * found.share.clamp_max(1))

    def temperatures(self, stations: BaseStations) -> Temperatures:
        """Interference temperatures chosen by ITNet."""
        view = StationView.of(stations)
        sight = Sight.of(view, stations.weights)
        correction = call_like(self.itnet, view.gain, sight).clamp(-20, 20)
        share = (torch.logit(sight.leakage) + correction).sigmoid()
        return Temperatures(view, sight, correction, share)

    def duals(self, asked: Temperatures, heard: Tensor) -> Duals:
        """Dual variables by DualNet, for received temperatures `heard` [B, S, K], relative to the noise."""
        duals: Duals = call_like(self.dualnet, asked.view.gain, asked.view, asked.sight, asked.correction, heard)
        return duals

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative utility (23), normalised by the mean rate of SLNR beams (`shortfall`).

        Figures are means over base stations: `rate_within`, the rate with interference equal to the temperatures (26);
        `gap` and `gap_size`, the duality gap (31) and its magnitude; `projected`, the share of projected beams; and
        `excess_power`, their relative excess power.

        instance  interference channels with `p_max_transmitter` and `weights` in their context.
        """
        stations = posed(self.problem, instance)
        asked = self.temperatures(stations)
        heard = SharedMemory().exchange(asked.allowed)
        duals = self.duals(asked, heard)
        found = recover(asked.view, duals, heard)
        delivered = found.delivered(asked.view)
        rates = achieved(asked.view, delivered)
        with torch.no_grad():
            gap = slackness(asked.view, duals, found, asked.share)
            figures = {
                "rate_within": achieved(asked.view, delivered, heard.sum(-1)).mean(),
                "gap": gap.mean(),
                "gap_size": gap.abs().mean(),
                "projected": (found.share > 1 + PROJECTED).to(rates.dtype).mean(),
                "excess_power": (found.share - 1).clamp_min(0).mean(),
            }
        return shortfall(self.problem, asked.view, stations.weights, rates), figures

    def turn(self, part: str, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one network in alternating training: (25, 26) of ITNet, (31, 32) of DualNet."""
        stations = posed(self.problem, instance)
        with torch.set_grad_enabled(part == "itnet"):
            asked = self.temperatures(stations)
            heard = SharedMemory().exchange(asked.allowed)
        duals = self.duals(asked, heard.detach())
        found = recover(asked.view, duals, heard.detach())
        if part == "itnet":
            rates = achieved(asked.view, found.delivered(asked.view), heard.sum(-1))
            return shortfall(self.problem, asked.view, stations.weights, rates), {}
        held = Recovered(found.leakage.detach(), found.share.detach())
        return slackness(asked.view, duals, held, asked.share).mean(), {}


class SumRateITNet(ITNetDualNet):
    """`ITNetDualNet` for the weighted sum rate; the shipped weights are from alternating training.

    >>> from beamforge.core.named_problems import build_problem
    >>> from beamforge.scenarios.interference import Interference
    >>> instance = Interference(cells=3, snr_db=0.0).sample(2)
    >>> problem = build_problem("sum-rate", instance.context)
    >>> W = SumRateITNet(checkpoint="random").solve(problem, instance).W.detach()
    >>> W.shape, W.abs().square().sum(-2).round(decimals=3)
    (torch.Size([2, 8, 3]), tensor([[1., 1., 1.],
            [1., 1., 1.]]))
    """

    model, problem = "itnet-dualnet-sum-rate", "sum-rate"
    capabilities = (Capability(SumRate, (Form.INTERFERENCE,), needs=(PerTransmitterPower,)),)


class MaxMinITNet(ITNetDualNet):
    """`ITNetDualNet` for max-min weighted rates; the shipped weights are from joint training (23)."""

    model, problem = "itnet-dualnet-max-min", "max-min"
    capabilities = (Capability(MinRate, (Form.INTERFERENCE,), needs=(PerTransmitterPower,)),)
