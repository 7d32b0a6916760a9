"""Weighted sum rate on any network, within any combination of power limits, by WMMSE.

Source: Q. Shi, M. Razaviyayn, Z.-Q. Luo, C. He, "An iteratively weighted MMSE approach to distributed sum-utility
maximization for a MIMO interfering broadcast channel", IEEE Trans. Signal Process. 59 (2011), Table I.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.power_limits import LIMITS, budget, equal_power, within_limits
from beamforge.classical.structure import directions
from beamforge.classical.sum_rate.least_squares import LeastSquares
from beamforge.classical.sum_rate.power_duals import Limits
from beamforge.classical.sum_rate.reduced_wmmse import Multipliers, receivers
from beamforge.core.capability import Capability, Form
from beamforge.core.errors import ConfigError
from beamforge.core.network import Network, others, own, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.utilities import SumRate
from beamforge.optim.iterate import IterativeSolver


class WMMSEData(NamedTuple):
    """Data: the network in units of its noise, the problem, its power limits, and who sends which stream [B, T, K]."""

    network: Network
    problem: Problem
    limits: Limits
    sends: Tensor


class MulticellWMMSE(IterativeSolver):
    """T transmitters, K users on any of them, limits on total, transmitters' and antennas' power in any combination.

    With receivers ``u_k``, weights ``w_k = 1/MSE_k`` and ``q_k = a_k w_k |u_k|^2``, noise one, the beams minimise ::

        sum_k (w_k^H A_t(k) w_k - 2 sqrt(q_k a_k w_k) Re h_k^H w_k),    A_t = sum_j q_j h_tj h_tj^H

    within the limits (see `quadratic`); u and w then follow in closed form, and the weighted sum rate never falls. A
    state is the 2K real numbers (sqrt q, sqrt(a w)): phases of u can be taken as zero.

    starts  how many of: regularised zero forcing, MRT, and both extremes of the former (with single antennas, equal
            powers and ever more for users of good quality); each instance keeps its best. A `start` replaces them all.

    >>> from beamforge.core.constraints import PerTransmitterPower
    >>> H = torch.randn(2, 2, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    >>> network = Network.interference(H, noise=0.1)
    >>> problem = Problem(SumRate(), (PerTransmitterPower(1.0),))
    >>> MulticellWMMSE().solve(problem, network).W.abs().square().sum(0).round(decimals=6)
    tensor([1., 1.], dtype=torch.float64)
    """

    capabilities = (Capability(SumRate, (Form.MULTICELL,), needs_one_of=LIMITS),)

    def __init__(
        self,
        tolerance: float = 1e-8,
        max_iterations: int = 1000,
        acceleration: str = "squarem",
        starts: int = 2,
        gradient: str = "unrolled",
    ) -> None:
        super().__init__(tolerance, max_iterations, acceleration, gradient)
        if starts < 1:
            raise ConfigError(f"starts must be at least 1, got {starts}")
        self.starts = starts

    def prepare(self, problem: Problem, observation: Observation) -> WMMSEData:
        network = observation.network.whitened()
        limits = Limits.of(problem, network.transmitters, network.antennas)
        return WMMSEData(network, problem, limits, network.streams.sent_by(network.transmitters))

    def init(self, data: WMMSEData, start: Tensor | None, generator: torch.Generator | None) -> Iterator[Multipliers]:
        if start is not None:
            yield receivers_for_beams(data, start)[0]
            return
        single = data.network.antennas == 1  # only the powers can differ
        for number in range(min(self.starts, len(RIDGES))):
            W = beams_from_ridge(data.problem, data.network, RIDGES[0 if single else number])
            yield receivers_for_beams(data, W * quality(data.network)[:, None, :] ** number if single else W)[0]

    def step(self, data: WMMSEData, state: Multipliers) -> tuple[Multipliers, Tensor]:
        return receivers_for_beams(data, self.beams(data, state))

    def beams(self, data: WMMSEData, state: Multipliers) -> Tensor:
        F = state.root[:, None, :, None] * data.network.H
        q = (state.root.detach().square().unsqueeze(-2) * data.sends).sum(-1)
        W = LeastSquares(F, state.gain.unsqueeze(-2) * data.sends, data.limits).solve(q).sum(-3)
        return within_limits(data.problem, data.network, W)


RIDGES = (1.0, math.inf, 30.0, 0.0)
"""Of the starts: the usual ridge is converged in 2 to 5 steps where users are well separated."""


def beams_from_ridge(problem: Problem, network: Network, ridge: float) -> Tensor:
    """Equal powers on regularised zero forcing with `ridge` times the usual level; 0 is zero forcing, inf MRT.

    Every transmitter uses its own channels to all users, in units of the noise.
    """
    sent = network.streams.sent(network.transmitters).to(network.noise.dtype)
    share = budget(problem, network) / sent.clamp_min(1)
    multipliers = share / ridge if ridge else torch.full_like(share, 1e12)
    columns = directions(network.H, multipliers.unsqueeze(-1).expand(network.H.shape[:-1]))
    chosen = columns.gather(1, network.streams.transmitter[:, None, None, :].expand(-1, -1, network.antennas, -1))
    return equal_power(problem, network, chosen.squeeze(1))


def quality(network: Network) -> Tensor:
    """Own gain over the gains of interference caused and suffered and the noise [B, K], relative to the best user's."""
    gain = squared_magnitude(network.stream_channel).sum(-1)
    ratio = own(gain) / (others(gain) + others(gain.mT) + 1)
    best = ratio.amax(-1, keepdim=True)
    return ratio / torch.where(best > 0, best, 1)


def receivers_for_beams(data: WMMSEData, W: Tensor) -> tuple[Multipliers, Tensor]:
    """Receivers and weights for the beams W, and their weighted sum rate."""
    assert isinstance(data.problem.maximise, SumRate)
    power = squared_magnitude(data.network.apply(W))
    return receivers(data.problem.maximise.weights, own(power), others(power))
