"""Sum rate under sensing SNR targets, or with sensing rates added, by WMMSE with exact steps (no linearisation)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.isac.dual import (
    SensingQuadratic,
    factored,
    initial_multipliers,
    lagrangian,
    least_power,
    multipliers,
)
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE, doubled, receivers
from beamforge.core import batching
from beamforge.core.capability import Capability, Feature, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.network import Network, others, own, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.sensing import RateAndSensing, SensingSnrAtLeast, Targets
from beamforge.core.solution import Solution, Status
from beamforge.core.utilities import SumRate
from beamforge.optim.iterate import IterativeSolver, better, follow

BARRIERS = (1e-2, 1e-4, 1e-7)
"""Successive weights of the barrier, relative to the sum of the weights of all rates."""

MARGIN = 1e-9
"""Relative margin added to sensing SNR targets, so that they are met in spite of rounding."""


class SensingChannel(NamedTuple):
    """Data in units of the noise and in a basis of the span of all channels, of dimension r = min(N, K + M).

    H [B, K, r] with rows h^H, C [B, r, M] with columns c, weights [B, K], level [B, M], power [B], barrier [B],
    basis [B, N, r]. sensing_weight [B, M] of the sensing rates, with levels of -1; 0 with sensing SNR targets.
    """

    H: Tensor
    C: Tensor
    weights: Tensor
    level: Tensor
    power: Tensor
    barrier: Tensor
    basis: Tensor
    sensing_weight: Tensor


class State(NamedTuple):
    """Square roots of q [B, K] and of the MSE weights [B, K], and the multipliers x [B, M + 1] of the last step."""

    root: Tensor
    gain: Tensor
    x: Tensor


class SensingWMMSE(IterativeSolver):
    """K users, M targets, one transmitter: maximise the sum rate subject to a minimum sensing SNR of every target.

    For fixed receivers and MSE weights, the minimum weighted squared error is a convex problem in the data beams and
    the transmit covariance. It is solved exactly with M + 1 multipliers (`dual`)::

        w_k = b_k (sum_j q_j h_j h_j^H + x_0 I - sum_m x_m c_m c_m^H)^-1 h_k

    Receivers and weights have a closed form. For a fixed weight of the barrier, the sum rate with barrier never
    decreases. The sensing streams have the remaining covariance. The cost of a step does not depend on N.

    The utility `RateAndSensing`, with sensing rates ``weight log2(1 + sensing SNR_m)`` in the sum, is maximised by the
    same exact steps.

    Initial beams are regularised zero forcing and those of `wmmse` without targets; the better result is returned. An
    instance whose sensing SNRs alone need more than the power limit is infeasible.

    Source: the problem is the masked-transformer paper's Eq. 29. The exact step is new here.

    >>> from beamforge.core.named_problems import build_problem
    >>> from beamforge.scenarios import Isac
    >>> instance = Isac(users=3, antennas=6, targets=2, sensing_snr_db=0.0).sample(2, dtype=torch.complex128)
    >>> solution = SensingWMMSE().solve(build_problem("isac", instance.context), instance)
    >>> solution.W.shape, solution.W.abs().square().sum((-2, -1)).round(decimals=4)
    (torch.Size([2, 6, 9]), tensor([1., 1.], dtype=torch.float64))
    """

    capabilities = (
        Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower, SensingSnrAtLeast), handles=(Feature.SENSING,)),
        Capability(RateAndSensing, (Form.BROADCAST,), needs=(TotalPower,), handles=(Feature.SENSING,)),
    )
    differentiable = False

    def __init__(self, tolerance: float = 1e-7, max_iterations: int = 1000, acceleration: str = "squarem") -> None:
        super().__init__(tolerance, max_iterations, acceleration)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        with torch.no_grad():
            wide_problem, wide = batching.tree_map(doubled, (problem, observation))
            data = self.prepare(wide_problem, wide)
            feasible = torch.ones_like(data.power, dtype=torch.bool)
            if isinstance(problem.maximise, SumRate):
                feasible = least_power(data.C, data.level) <= data.power
                data = data._replace(
                    level=torch.where(feasible.unsqueeze(-1), data.level, 1e-3)
                )  # its status is set below
                data = data._replace(C=torch.where(feasible[:, None, None], data.C, data.C * 0 + 1))
            result, total = None, data.weights.sum(-1) + data.sensing_weight.sum(-1)
            total = torch.where(total > 0, total, 1)
            for share in BARRIERS:
                data = data._replace(barrier=share * total)
                states = list(self.init(data, start, generator)) if result is None else [result.state]
                run = functools.reduce(better, [self.run(data, state) for state in states])
                result = run if result is None else follow(result, run)
            assert result is not None
            count = observation.network.streams.count - observation.network.users
            W = data.basis @ self.all_beams(data, result.state, count)
        status = torch.where(feasible, result.status, int(Status.INFEASIBLE))
        return Solution(W.to(observation.network.H.dtype), status, result.iterations, result.trace)

    def prepare(self, problem: Problem, observation: Observation) -> SensingChannel:
        assert isinstance(problem.maximise, SumRate | RateAndSensing)
        network = observation.network.whitened()
        targets: Targets
        if isinstance(problem.maximise, RateAndSensing):
            targets = problem.maximise
            level = torch.full_like(targets.angle, -1)
            sensing_weight = problem.maximise.weight.unsqueeze(-1).expand_as(level)
        else:
            targets = limit = problem.get(SensingSnrAtLeast)
            level, sensing_weight = limit.level * (1 + MARGIN), torch.zeros_like(limit.angle)
            level = level.expand_as(sensing_weight)
        H, C = network.channel, targets.unit_channels(network.antennas)
        basis, _ = torch.linalg.qr(torch.cat([H.mH, C], -1))
        power = problem.get(TotalPower).limit
        weights, barrier = problem.maximise.weights, 0 * power
        return SensingChannel(H @ basis, basis.mH @ C, weights, level, power, barrier, basis, sensing_weight)

    def init(self, data: SensingChannel, start: Tensor | None, generator: torch.Generator | None) -> Iterator[State]:
        if start is not None:
            yield self.state_of(data, data.basis.mH @ start)
            return
        K = data.H.shape[-2]
        gram = data.H @ data.H.mH + (K / data.power)[:, None, None] * torch.eye(
            K, dtype=data.H.dtype, device=data.H.device
        )
        W = torch.linalg.solve(gram, data.H).mH
        yield self.state_of(data, W * (data.power / squared_magnitude(W).sum((-2, -1)))[:, None, None].sqrt())
        without_targets = Problem(SumRate(data.weights), (TotalPower(data.power),))
        yield self.state_of(data, ReducedWMMSE().solve(without_targets, Network.broadcast(data.H, 1.0)).W)

    def state_of(self, data: SensingChannel, W: Tensor) -> State:
        """State of beams W [B, r, D], of which the first K carry data."""
        state = self.update_receivers(data, W, 0.0)[0]
        return state._replace(x=initial_multipliers(self.quadratic(data, state)))

    def update_receivers(self, data: SensingChannel, W: Tensor, interference: Tensor | float) -> tuple[State, Tensor]:
        """Receivers and MSE weights for beams W [B, r, D], and the sum rate; `interference` [B, K] is additional."""
        K = data.H.shape[-2]
        power = squared_magnitude(data.H @ W)
        sensing = power[..., K:].sum(-1) + interference
        receiver, rate = receivers(data.weights, own(power[..., :K]), others(power[..., :K]) + sensing)
        return State(receiver.root, receiver.gain, data.power.unsqueeze(-1)), rate

    def quadratic(self, data: SensingChannel, state: State) -> SensingQuadratic:
        """The convex problem of fixed receivers and MSE weights."""
        scaled = state.root.unsqueeze(-1) * data.H
        B = scaled.mH * state.gain.unsqueeze(-2)
        return SensingQuadratic(
            scaled.mH @ scaled, B, data.C, data.level, data.power, data.barrier, data.sensing_weight
        )

    def step(self, data: SensingChannel, state: State) -> tuple[State, Tensor]:
        quadratic = self.quadratic(data, state)
        x = multipliers(quadratic, state.x.clamp_min(1e-12))
        T = torch.cholesky_inverse(factored(quadratic, x)[0])
        interference = data.barrier.unsqueeze(-1) * own(data.H @ T @ data.H.mH).real
        W = T @ quadratic.B
        after, rate = self.update_receivers(data, W, interference)
        sensing_snr = squared_magnitude(W.mH @ data.C).sum(-2)
        sensing_snr = sensing_snr + data.barrier.unsqueeze(-1) * (data.C.conj() * (T @ data.C)).sum(-2).real
        return after._replace(x=x), rate + (data.sensing_weight * torch.log2(1 + sensing_snr)).sum(-1)

    def all_beams(self, data: SensingChannel, state: State, count: int) -> Tensor:
        """Beams [B, r, K + count]: data, the strongest directions of the sensing covariance, then zeros."""
        quadratic = self.quadratic(data, state)
        x = multipliers(quadratic, state.x.clamp_min(1e-12))
        size, directions = torch.linalg.eigh(lagrangian(quadratic, x))
        W = directions @ ((directions.mH @ quadratic.B) / size.unsqueeze(-1))
        F = (directions * (data.barrier.unsqueeze(-1) / size).sqrt().unsqueeze(-2))[..., :count]
        return torch.cat([W, torch.nn.functional.pad(F, (0, count - F.shape[-1]))], -1)
