"""Sum rate with sensing SNRs to keep, or with sensing rates added, by WMMSE with exact steps: nothing is linearised."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.isac.dual import SensingQuadratic, factored, far, lagrangian, least_power, multipliers
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
"""Weights of the barrier, one after the other, as shares of the sum of all rates' weights."""

MARGIN = 1e-9
"""Share by which a sensing SNR is asked for too much, so that rounding breaks no limit."""


class SensingChannel(NamedTuple):
    """Data: in units of the noise and in a basis of all that is heard, of dimension r = min(N, K + M).

    H [B, K, r] rows h^H, C [B, r, M] columns c, weights [B, K], level [B, M], power [B], barrier [B], basis [B, N, r].
    worth [B, M] of the sensing rates, with levels of -1, which nothing is below; 0 where there are levels.
    """

    H: Tensor
    C: Tensor
    weights: Tensor
    level: Tensor
    power: Tensor
    barrier: Tensor
    basis: Tensor
    worth: Tensor


class State(NamedTuple):
    """Square roots of q [B, K] and of the errors' weights [B, K], and multipliers x [B, M + 1] near the last ones."""

    root: Tensor
    gain: Tensor
    x: Tensor


class SensingWMMSE(IterativeSolver):
    """K users, M targets, one transmitter: maximise the sum rate, every target's sensing SNR at least its level.

    With the users' receivers and weights fixed, the beams of least weighted squared error within the limits solve a
    convex problem in the data beams and the covariance of all streams, exactly, by M + 1 multipliers (`dual`)::

        w_k = b_k (sum_j q_j h_j h_j^H + x_0 I - sum_m x_m c_m c_m^H)^-1 h_k

    Receivers and weights follow in closed form, so for a given barrier the sum rate with its barrier never falls.
    Sensing streams carry what the data beams leave to be sent to the targets. The number of antennas leaves the loop.

    Sensing rates ``weight log2(1 + sensing SNR_m)`` added to the sum instead (`RateAndSensing`) are as exact a step.

    Started from regularised zero forcing and from `wmmse` without targets; the better of the two is the answer. An
    instance whose targets need more than the power is infeasible.

    Source: the problem is the masked-transformer paper's Eq. 29; the exact step is ours.

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
            possible = torch.ones_like(data.power, dtype=torch.bool)
            if isinstance(problem.maximise, SumRate):
                possible = least_power(data.C, data.level) <= data.power
                data = data._replace(level=torch.where(possible.unsqueeze(-1), data.level, 1e-3))  # flagged in the end
                data = data._replace(C=torch.where(possible[:, None, None], data.C, data.C * 0 + 1))
            outcome, total = None, data.weights.sum(-1) + data.worth.sum(-1)
            total = torch.where(total > 0, total, 1)
            for share in BARRIERS:
                data = data._replace(barrier=share * total)
                states = list(self.init(data, start, generator)) if outcome is None else [outcome.state]
                found = functools.reduce(better, [self.run(data, state) for state in states])
                outcome = found if outcome is None else follow(outcome, found)
            assert outcome is not None
            count = observation.network.streams.count - observation.network.users
            W = data.basis @ self.all_beams(data, outcome.state, count)
        status = torch.where(possible, outcome.status, int(Status.INFEASIBLE))
        return Solution(W.to(observation.network.H.dtype), status, outcome.iterations, outcome.trace)

    def prepare(self, problem: Problem, observation: Observation) -> SensingChannel:
        assert isinstance(problem.maximise, SumRate | RateAndSensing)
        network = observation.network.whitened()
        targets: Targets
        if isinstance(problem.maximise, RateAndSensing):
            targets = problem.maximise
            level = torch.full_like(targets.angle, -1)
            worth = problem.maximise.weight.unsqueeze(-1).expand_as(level)
        else:
            targets = limit = problem.get(SensingSnrAtLeast)
            level, worth = limit.level * (1 + MARGIN), torch.zeros_like(limit.angle)
            level = level.expand_as(worth)
        H, C = network.channel, targets.unit_channels(network.antennas)
        basis, _ = torch.linalg.qr(torch.cat([H.mH, C], -1))
        power = problem.get(TotalPower).limit
        return SensingChannel(H @ basis, basis.mH @ C, problem.maximise.weights, level, power, 0 * power, basis, worth)

    def init(self, data: SensingChannel, start: Tensor | None, generator: torch.Generator | None) -> Iterator[State]:
        if start is not None:
            yield self.heard(data, data.basis.mH @ start)
            return
        K = data.H.shape[-2]
        gram = data.H @ data.H.mH + (K / data.power)[:, None, None] * torch.eye(
            K, dtype=data.H.dtype, device=data.H.device
        )
        W = torch.linalg.solve(gram, data.H).mH
        yield self.heard(data, W * (data.power / squared_magnitude(W).sum((-2, -1)))[:, None, None].sqrt())
        question = Problem(SumRate(data.weights), (TotalPower(data.power),))
        yield self.heard(data, ReducedWMMSE().solve(question, Network.broadcast(data.H, 1.0)).W)

    def heard(self, data: SensingChannel, W: Tensor) -> State:
        """The state that beams W [B, r, D], of which the first K carry data, lead to."""
        state = self.respond(data, W, 0.0)[0]
        return state._replace(x=far(self.quadratic(data, state)))

    def respond(self, data: SensingChannel, W: Tensor, faint: Tensor | float) -> tuple[State, Tensor]:
        """Receivers and weights for beams W [B, r, D], and the rate; `faint` [B, K] is interference beside theirs."""
        K = data.H.shape[-2]
        power = squared_magnitude(data.H @ W)
        beyond = power[..., K:].sum(-1) + faint
        found, rate = receivers(data.weights, own(power[..., :K]), others(power[..., :K]) + beyond)
        return State(found.root, found.gain, data.power.unsqueeze(-1)), rate

    def quadratic(self, data: SensingChannel, state: State) -> SensingQuadratic:
        """The convex problem that a state poses."""
        scaled = state.root.unsqueeze(-1) * data.H
        B = scaled.mH * state.gain.unsqueeze(-2)
        return SensingQuadratic(scaled.mH @ scaled, B, data.C, data.level, data.power, data.barrier, data.worth)

    def step(self, data: SensingChannel, state: State) -> tuple[State, Tensor]:
        asked = self.quadratic(data, state)
        x = multipliers(asked, state.x.clamp_min(1e-12))
        T = torch.cholesky_inverse(factored(asked, x)[0])
        faint = data.barrier.unsqueeze(-1) * own(data.H @ T @ data.H.mH).real
        W = T @ asked.B
        after, rate = self.respond(data, W, faint)
        seen = squared_magnitude(W.mH @ data.C).sum(-2)
        seen = seen + data.barrier.unsqueeze(-1) * (data.C.conj() * (T @ data.C)).sum(-2).real
        return after._replace(x=x), rate + (data.worth * torch.log2(1 + seen)).sum(-1)

    def all_beams(self, data: SensingChannel, state: State, count: int) -> Tensor:
        """Beams [B, r, K + count]: data, then the strongest directions of the sensing covariance, then none."""
        asked = self.quadratic(data, state)
        x = multipliers(asked, state.x.clamp_min(1e-12))
        size, directions = torch.linalg.eigh(lagrangian(asked, x))
        W = directions @ ((directions.mH @ asked.B) / size.unsqueeze(-1))
        F = (directions * (data.barrier.unsqueeze(-1) / size).sqrt().unsqueeze(-2))[..., :count]
        return torch.cat([W, torch.nn.functional.pad(F, (0, count - F.shape[-1]))], -1)
