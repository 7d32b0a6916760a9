"""Power control by positive matrices: single antennas, gains G [rx, tx], so the problems are linear in the powers.

With ``F_kj = G_kj / G_kk`` (0 on the diagonal) and ``v_k = noise_k / G_kk``, ``SINR_k = p_k / (F p + v)_k``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.duality.min_power import Newton
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import PerTransmitterPower, SinrAtLeast, TotalPower
from beamforge.core.evaluate import TOLERANCE
from beamforge.core.network import Network, own, spectral_efficiency, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Status
from beamforge.core.utilities import MinRate, MinSinr, TransmitPower
from beamforge.optim.iterate import RUNNING


class Coupling(NamedTuple):
    """F [B, K, K] and v [B, K] of the head of this module, targets [B, K], and power limits ``rows p <= bounds``.

    rows [B, L, K], bounds [B, L]; infinite where there is none.
    """

    F: Tensor
    v: Tensor
    target: Tensor
    rows: Tensor
    bounds: Tensor

    def kept(self, p: Tensor) -> Tensor:
        """Whether powers [B, K] keep the limits, [B]."""
        limit = self.bounds * (1 + TOLERANCE[p.dtype])
        return ((self.rows @ p.unsqueeze(-1)).squeeze(-1) <= limit).all(-1)


def coupling(problem: Problem, network: Network, target: Tensor) -> Coupling:
    """The data of a power control problem."""
    gains = network.gains
    direct = own(gains)
    eye = torch.eye(direct.shape[-1], dtype=direct.dtype, device=direct.device)
    F = gains / direct.unsqueeze(-1) * (1 - eye)
    rows, bounds = [torch.zeros_like(direct).unsqueeze(-2)], [torch.full_like(direct[:, :1], torch.inf)]
    if total := problem.find(TotalPower):
        rows.append(torch.ones_like(direct).unsqueeze(-2))
        bounds.append(total.limit.unsqueeze(-1))
    if each := problem.find(PerTransmitterPower):
        rows.append(eye.expand_as(F))
        bounds.append(each.limit)
    return Coupling(F, network.noise / direct, target, torch.cat(rows, -2), torch.cat(bounds, -1))


def linear(data: Coupling) -> tuple[Tensor, Tensor]:
    """Least powers [B, K] that meet the targets, ``p = (I - diag(target) F)^-1 diag(target) v``; and whether any do.

    They do exactly if the spectral radius of ``diag(target) F`` is below one, and exactly then p is positive.
    """
    eye = torch.eye(data.v.shape[-1], dtype=data.v.dtype, device=data.v.device)
    system = eye - data.target.unsqueeze(-1) * data.F
    p = torch.linalg.solve_ex(system, (data.target * data.v).unsqueeze(-1))[0].squeeze(-1)
    return p, ((p > 0) & torch.isfinite(p)).all(-1)


class FoschiniMiljanic(Newton):
    """Distributed power control ``p_k <- (target_k / SINR_k) p_k``, to the least powers that meet SINR targets.

    Every transmitter needs its own user's SINR alone. The iteration converges, to the componentwise least powers,
    exactly if the spectral radius of ``diag(target) F`` is below one; if it is not, or if these powers break a power
    limit, the instance is INFEASIBLE. It contracts like the spectral radius: "duality" solves the same problem at once.
    Where derivatives are asked for, the powers are those of the linear system that the iteration solves.

    Source: G. Foschini, Z. Miljanic, "A simple distributed autonomous power control algorithm and its convergence",
    IEEE Trans. Veh. Technol. 42 (1993), Eq. 18.

    >>> from beamforge.core.problem import Problem
    >>> network = Network.power_control(torch.tensor([[1.0, 0.1], [0.2, 1.0]], dtype=torch.float64), noise=0.1)
    >>> solution = FoschiniMiljanic().solve(Problem(TransmitPower(), (SinrAtLeast(2.0),)), network)
    >>> solution.W.abs().square().squeeze(-2).round(decimals=3)
    tensor([0.2610, 0.3040], dtype=torch.float64)
    """

    capabilities = (
        Capability(
            TransmitPower, (Form.POWER_CONTROL,), needs=(SinrAtLeast,), allows=(TotalPower, PerTransmitterPower)
        ),
    )

    def __init__(self, tolerance: float = 1e-10, max_iterations: int = 20000) -> None:
        super().__init__(tolerance, max_iterations)

    def prepare(self, problem: Problem, observation: Observation) -> Coupling:
        return coupling(problem, observation.network, problem.get(SinrAtLeast).target)

    def init(self, data: Coupling, start: Tensor | None, generator: torch.Generator | None) -> Sequence[Tensor]:
        return [data.target * data.v if start is None else squared_magnitude(start).squeeze(-2)]

    def step(self, data: Coupling, state: Tensor) -> tuple[Tensor, Tensor]:
        p = data.target * ((data.F @ state.unsqueeze(-1)).squeeze(-1) + data.v)
        return p, state.sum(-1)

    def verdict(self, data: Coupling, state: Tensor, after: Tensor, merit: Tensor, before: Tensor) -> Tensor:
        tolerance = max(self.tolerance, 8 * torch.finfo(merit.dtype).eps)
        close = ((after - state).abs() <= tolerance * after).all(-1)  # the SINRs' relative error
        verdict = torch.where(close, int(Status.CONVERGED), RUNNING)
        least, positive = linear(data)
        return torch.where(positive & data.kept(least), verdict, int(Status.INFEASIBLE))

    def attach(self, data: Coupling, state: Tensor) -> Tensor:
        return linear(data)[0]

    def beams(self, data: Coupling, state: Tensor) -> Tensor:
        return amplitudes(state)


class LogLevel(NamedTuple):
    """State of the max-min problem: log of the common level [B], and of the spectral radius there before [B]."""

    level: Tensor
    excess: Tensor


class MaxMinData(NamedTuple):
    """Data of the max-min problem: the coupling, the weights of the rates (0: SINRs) and users to balance, [B, K]."""

    coupling: Coupling
    weights: Tensor
    counted: Tensor


class PerronFrobenius(Newton):
    """Max-min power control by spectral radii: greatest common ``SINR_k / target_k`` or ``weights_k rate_k``.

    Under the limits ``a_l^T p <= P_l`` (the total power, each transmitter's, or both) SINRs ``gamma`` can be had
    exactly if ``max_l rho(diag(gamma) (F + v a_l^T / P_l)) <= 1``; at the optimum it is one, and p the Perron vector of
    the limit that binds. For SINR over target the level is the inverse of the largest radius; rates are found by
    Newton's method on the log of the radius, a convex function of the log of the level.

    A user without a direct gain, or with weight zero, is sent nothing and left out of the balance.

    Source: C. W. Tan, "Wireless Network Optimization by Perron-Frobenius Theory", Found. Trends Netw. 9 (2015).

    >>> from beamforge.core.problem import Problem
    >>> network = Network.power_control(torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64), noise=0.5)
    >>> solution = PerronFrobenius().solve(Problem(MinSinr(1.0), (PerTransmitterPower(1.0),)), network)
    >>> solution.W.abs().square().squeeze(-2).round(decimals=6)
    tensor([1., 1.], dtype=torch.float64)
    >>> network.sinr(solution.W).round(decimals=6)
    tensor([1., 1.], dtype=torch.float64)
    """

    capabilities = tuple(
        Capability(goal, (Form.POWER_CONTROL,), needs_one_of=(TotalPower, PerTransmitterPower))
        for goal in (MinSinr, MinRate)
    )

    def prepare(self, problem: Problem, observation: Observation) -> MaxMinData:
        network, goal = observation.network, problem.maximise
        if isinstance(goal, MinSinr):
            target, weights = goal.target, torch.zeros_like(goal.target)
        else:
            assert isinstance(goal, MinRate)
            target, weights = torch.ones_like(goal.weights), goal.weights
        counted = (own(network.gains) > 0) & ((weights > 0) | isinstance(goal, MinSinr))
        data = coupling(problem, network, target)
        pairs = counted.unsqueeze(-1) & counted.unsqueeze(-2)
        data = data._replace(F=torch.where(pairs, data.F, 0), v=torch.where(counted, data.v, 0))
        return MaxMinData(data, weights, counted)

    def init(self, data: MaxMinData, start: Tensor | None, generator: torch.Generator | None) -> Sequence[LogLevel]:
        """The level that the worst user would have alone: above the optimum, from where Newton's method only falls."""
        each = (data.coupling.bounds.unsqueeze(-1) / data.coupling.rows).amin(-2)  # the most that each could send
        alone = (each / data.coupling.v) / data.coupling.target
        rated = data.weights > 0
        level = torch.where(rated, data.weights * spectral_efficiency(alone), alone)
        level = torch.where(data.counted, level, torch.inf).amin(-1)
        return [LogLevel(torch.where(data.counted.any(-1), level, 1).log(), torch.full_like(level, torch.inf))]

    def step(self, data: MaxMinData, state: LogLevel) -> tuple[LogLevel, Tensor]:
        sinr, slope = required(data, state.level)
        limits = data.coupling.v[:, None, :, None] * (
            data.coupling.rows / data.coupling.bounds.unsqueeze(-1)
        ).unsqueeze(-2)
        matrices = sinr[:, None, :, None] * (data.coupling.F.unsqueeze(1) + limits)  # [B, L, K, K]
        right, left = perron(matrices.detach()), perron(matrices.detach().mT)
        weight = left * right / (left * right).sum(-1, keepdim=True).clamp_min(torch.finfo(left.dtype).tiny)
        radius = (left.unsqueeze(-2) @ matrices @ right.unsqueeze(-1)).flatten(-3) / (left * right).sum(-1)
        excess = torch.where(radius > 0, radius, torch.finfo(radius.dtype).tiny).log()
        worst = excess.argmax(-1, keepdim=True)
        steep = (weight * slope.unsqueeze(1)).sum(-1).gather(-1, worst).squeeze(-1)
        excess = excess.gather(-1, worst).squeeze(-1)
        level = state.level - excess / steep
        level = torch.where(data.counted.any(-1), level, -torch.inf)
        return LogLevel(level, torch.where(data.counted.any(-1), excess, 0)), state.level.exp()

    def verdict(self, data: MaxMinData, state: LogLevel, after: LogLevel, merit: Tensor, before: Tensor) -> Tensor:
        tolerance = max(self.tolerance, 64 * torch.finfo(merit.dtype).eps)
        return torch.where(after.excess.abs() <= tolerance, int(Status.CONVERGED), RUNNING)

    def beams(self, data: MaxMinData, state: LogLevel) -> Tensor:
        p, _ = linear(data.coupling._replace(target=required(data, state.level)[0]))
        spent = ((data.coupling.rows @ p.unsqueeze(-1)).squeeze(-1) / data.coupling.bounds).amax(-1, keepdim=True)
        return amplitudes(torch.where(data.counted, p / spent, 0))


def required(data: MaxMinData, level: Tensor) -> tuple[Tensor, Tensor]:
    """SINRs [B, K] that a log level [B] asks of the users that count (0 of others), and d log SINR / d log level."""
    level = level.exp().unsqueeze(-1)
    exponent = math.log(2) * level / torch.where(data.weights > 0, data.weights, 1)
    rated = data.weights > 0
    sinr = torch.where(rated, exponent.expm1(), level * data.coupling.target)
    slope = torch.where(rated, exponent / -torch.expm1(-exponent), 1)
    return torch.where(data.counted, sinr, 0), slope


def perron(matrix: Tensor) -> Tensor:
    """The non-negative eigenvector [..., K] of the largest eigenvalue of a non-negative matrix [..., K, K]."""
    values, vectors = torch.linalg.eig(matrix)
    largest = values.real.argmax(-1)[..., None, None].expand(*matrix.shape[:-1], 1)
    return vectors.gather(-1, largest).squeeze(-1).abs()


def amplitudes(p: Tensor) -> Tensor:
    """Beams [B, 1, K] of powers [B, K]."""
    root = torch.where(p > 0, p, 0).sqrt().unsqueeze(-2)
    return torch.complex(root, torch.zeros_like(root))
