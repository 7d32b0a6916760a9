"""Weighted sum rate by fractional programming without matrix inversion: projected gradient steps with extrapolation.

Source: K. Shen, Z. Zhao, Y. Chen, Z. Zhang, H. V. Cheng, "Accelerating quadratic transform and WMMSE", IEEE J. Sel.
Areas Commun. 42 (2024), arXiv 2312.05726: the nonhomogeneous quadratic transform with Nesterov's extrapolation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.power_limits import within_limits
from beamforge.classical.sum_rate.wmmse import beams_from_ridge
from beamforge.classical.symmetry import Coupled, Exchange, tilt
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import PerAntennaPower, PerTransmitterPower, TotalPower
from beamforge.core.network import Network, others, own, spectral_efficiency, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.utilities import SumRate
from beamforge.optim.iterate import IterativeSolver


class FastFPData(NamedTuple):
    """Data: the network with unit noise, the problem, and Gram matrices ``H_t H_t^H`` [B, T, K, K]."""

    network: Network
    problem: Problem
    gram: Tensor


class BeamState(NamedTuple):
    """State: W [B, N, K]."""

    W: Tensor


class FastFP(IterativeSolver):
    """T transmitters, K users on any of them; O(K^2 N) per iteration, matrix products only.

    At beams Z with received amplitudes A, totals ``T_k = sum_j |A_kj|^2 + 1`` and SINRs gamma (noise one), a concave
    quadratic is a lower bound on the sum rate that is tight at Z. A step is a projected gradient step on it ::

        y_k = sqrt(a_k (1 + gamma_k)) A_kk / T_k
        W = Proj(Z + 1/L H^H (diag(sqrt(a (1 + gamma)) y) - diag(|y|^2) A)),    L >= lambda_max(diag(y) H H^H diag(y))

    so the rate never decreases. Z is extrapolated from the last two W; the extrapolation restarts where the rate would
    decrease.

    >>> H = torch.randn(4, 8, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    >>> problem = Problem(SumRate(), (PerAntennaPower(1 / 8),))
    >>> FastFP().solve(problem, Network.broadcast(H, noise=0.1)).W.abs().square().sum(-1).max().round(decimals=6)
    tensor(0.1250, dtype=torch.float64)
    """

    capabilities = tuple(
        Capability(SumRate, (Form.MULTICELL,), needs=(limit,))
        for limit in (TotalPower, PerTransmitterPower, PerAntennaPower)
    )

    def __init__(
        self,
        tolerance: float = 1e-8,
        max_iterations: int = 5000,
        acceleration: str = "nesterov",
        gradient: str = "unrolled",
    ) -> None:
        super().__init__(tolerance, max_iterations, acceleration, gradient)

    def prepare(self, problem: Problem, observation: Observation) -> FastFPData:
        network = observation.network.whitened()
        return FastFPData(network, problem, network.H @ network.H.mH)

    def init(self, data: FastFPData, start: Tensor | None, generator: torch.Generator | None) -> Iterator[BeamState]:
        if start is None:
            start = beams_from_ridge(data.problem, data.network, RIDGE)
            if data.network.antennas == 1:
                start = start * leading(data.problem, data.network, squared_magnitude(start).squeeze(-2))
        yield BeamState(start)

    def step(self, data: FastFPData, state: BeamState) -> tuple[BeamState, Tensor]:
        assert isinstance(data.problem.maximise, SumRate)
        network, weights = data.network, data.problem.maximise.weights
        A = network.apply(state.W)
        turn = own(A).conj().sgn().unsqueeze(-2)  # the phase of a beam is free: this keeps it from drifting
        A, Z = A * turn, state.W * turn
        power = squared_magnitude(A)
        interference = others(power) + 1
        total = interference + own(power)
        root = (weights * total / interference).sqrt()
        y = root * own(A).real / total
        gradient = network.adjoint(torch.diag_embed(root * y) - y.square().unsqueeze(-1) * A)
        lipschitz = norm_bound(y[:, None, :, None] * data.gram * y[:, None, None, :])
        if data.problem.find(TotalPower):
            lipschitz = lipschitz.amax(-1, keepdim=True).expand_as(lipschitz)
        W = Z + gradient / lipschitz.gather(-1, network.streams.transmitter).unsqueeze(-2)
        rate = (weights * spectral_efficiency(own(power) / interference)).sum(-1)
        return BeamState(project(data.problem, network, W)), rate

    def admissible(self, data: FastFPData, state: BeamState) -> BeamState:
        return BeamState(project(data.problem, data.network, state.W))

    def beams(self, data: FastFPData, state: BeamState) -> Tensor:
        return state.W


RIDGE = 30.0
"""The start is regularised zero forcing with this multiple of the usual ridge."""


def leading(problem: Problem, network: Network, p: Tensor) -> Tensor | float:
    """Factors [B, 1, K] for single antennas' amplitudes of powers p [B, K]: users who are alike are told apart."""
    assert isinstance(problem.maximise, SumRate)
    gain = squared_magnitude(network.stream_channel).sum(-1).mT
    cross = torch.diagonal_scatter(gain, torch.zeros_like(p), 0, -2, -1)
    users = Coupled(cross, own(gain), problem.maximise.weights)
    exchange = Exchange(p, pooled=problem.find(TotalPower) is not None, crowd=True)
    factors = tilt(users, exchange, p.unsqueeze(1))
    return 1.0 if factors is None else factors.sqrt()


def norm_bound(M: Tensor) -> Tensor:
    """``|M^4|_F^1/4``, an upper bound [...] on the largest eigenvalue of a Hermitian M [..., K, K]; 1 where M is zero.

    It is too large by a factor of at most K^1/8 and takes two matrix products.
    """
    size = squared_magnitude(M).sum((-2, -1), keepdim=True)
    size = torch.where(size > 0, size, 1).sqrt()
    square = M / size @ (M / size)
    fourth = squared_magnitude(square @ square).sum((-2, -1))
    return size.squeeze((-2, -1)) * torch.where(fourth > 0, fourth, 1) ** 0.125


def project(problem: Problem, network: Network, W: Tensor) -> Tensor:
    """The nearest beams within the power limit of the problem (there is only one)."""
    limit = problem.find(PerAntennaPower)
    if limit is None:
        return within_limits(problem, network, W)
    excess = (network.antenna_power(W) / limit.limit).clamp_min(1).rsqrt()
    if network.transmitters == 1:
        return W * excess.squeeze(-2).unsqueeze(-1)
    return W * excess.gather(-2, network.streams.transmitter.unsqueeze(-1).expand(-1, -1, network.antennas)).mT
