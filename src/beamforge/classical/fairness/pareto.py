"""The Pareto frontier of sum rate and fairness on one transmitter, by quasi-Newton ascent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.fairness.trade_off import FairnessSolver, fairness_capabilities
from beamforge.classical.linear import WeightedSLNR
from beamforge.core import batching
from beamforge.core.constraints import EqualPower, JainAtLeast, MeanJainAtLeast, TotalPower, jain_index
from beamforge.core.errors import ConfigError
from beamforge.core.network import others, own, spectral_efficiency, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.utilities import SumRate
from beamforge.optim import lbfgs
from beamforge.optim.iterate import RUNNING, IterativeSolver
from beamforge.optim.lbfgs import Climb

ALPHAS = (0.0, 1.0, 0.5, 2.0, 3.0)
"""The starts are weighted SLNR beams with these alphas."""

ROUNDS, PENALTY_GROWTH = 6, 3.0
"""Rounds of the augmented Lagrangian, and the factor of its penalty from one round to the next."""

LEAST_LENGTH = 1e-6
"""Length of a trial step below which an instance stops, because rounding forbids an increase."""


class AscentData(NamedTuple):
    """Data: channels [B, K, n] in a basis [B, N, n] of their span, n = min(K, N), in units of the noise and of the
    power [B] of a point of norm one; weights [B, K]; price [B]; whether each beam has norm one or all beams together;
    and for the augmented Lagrangian the required fairness [B] and the penalty [B] (0: not used).
    """

    H: Tensor
    basis: Tensor
    power: Tensor
    weights: Tensor
    price: Tensor
    each: bool
    aim: Tensor
    penalty: Tensor


class Pareto(FairnessSolver, IterativeSolver):
    """Quasi-Newton ascent of ``sum_k a_k R_k + price J`` over the directions of beams of equal power.

    Jain's index J is smooth in the rates, ``dJ/dR_u = 2 S / (K Q) (1 - S R_u / Q)`` with ``S = sum R, Q = sum R^2``. So
    the gradient is that of a weighted sum rate, where users with rates above Q/S may have negative weights. Beams are
    points ``v_u / |v_u|`` in the span of the channels (``V / |V|`` with `TotalPower`, which adds power control). The
    objective never decreases, up to rounding. O(K^2 N) once and O(K^2 min(K, N)) per step.

    price   of fairness, in bit/s/Hz; by default the least price that meets the required fairness. The fairness of a
            single instance may jump above that; then an augmented Lagrangian is solved: its iterations are added, and
            the trace of the instance has its final value only.
    starts  1 to 5, from weighted SLNR with different alphas; each instance keeps its best. A `start` replaces them.

    Source: the objective is the Lagrangian of the fairness-controlled beamforming paper's Eq. 9.
    """

    capabilities = fairness_capabilities(EqualPower, TotalPower)
    differentiable = False
    parameter = "price"
    grid = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0, 1e4, 1e5)
    accuracy = 2e-4

    def __init__(
        self, price: float | None = None, starts: int = 2, tolerance: float = 1e-7, max_iterations: int = 400
    ) -> None:
        super().__init__(tolerance, max_iterations)
        if price is not None and not 0 <= price < math.inf:
            raise ConfigError(f"price must be finite and not negative, got {price:g}")
        if not 1 <= starts <= len(ALPHAS):
            raise ConfigError(f"starts must be 1 to {len(ALPHAS)}, got {starts}")
        self.price = price
        self.starts = starts

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        found = super().solve_batch(problem, observation, start, generator)
        asked = problem.find(JainAtLeast) or (
            problem.find(MeanJainAtLeast) if len(observation.network.noise) == 1 else None
        )
        if self.price is not None or asked is None:
            return found
        beyond = found.solved & (jain_index(observation.network.rate(found.W)) > asked.limit + 10 * self.accuracy)
        beyond &= found.info[self.parameter] > 0
        if not beyond.any():
            return found
        rows = beyond.nonzero().flatten()
        part = batching.take((problem, observation, asked.limit, found.info[self.parameter], found.W), rows)
        W, price, iterations = self.inside_gap(*part, None if start is None else start[rows])
        info = {**found.info, self.parameter: found.info[self.parameter].index_copy(0, rows, price)}
        trace = found.trace
        if trace is not None:  # for these instances only the last value, ``a' R + price J``
            rate = part[1].network.rate(W)
            last = part[0].value(part[1].network, W) + price * jain_index(rate)
            trace = trace.index_copy(0, rows, last.unsqueeze(-1).expand(-1, trace.shape[-1]))
        return replace(
            found,
            W=found.W.index_copy(0, rows, W),
            iterations=found.iterations.index_add(0, rows, iterations),
            trace=trace,
            info=info,
        )

    @torch.no_grad()
    def inside_gap(
        self,
        problem: Problem,
        observation: Observation,
        limit: Tensor,
        price: Tensor,
        best: Tensor,
        start: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Beams [B, N, K] inside a gap of the frontier that are better than `best`; their price and iterations.

        The fairness jumps over a gap as a function of the price, so no price leads inside. The augmented Lagrangian
        ``a' R - p^2 / (2 c)`` with ``p = max(price + c (aim - J), 0)`` does; after each of `ROUNDS` ascents p is the
        new price, and the penalty c grows by the factor `PENALTY_GROWTH`. (M. Hestenes, "Multiplier and gradient
        methods", J. Optim. Theory Appl. 4, 1969.)
        """
        assert isinstance(problem.maximise, SumRate)
        network, weights = observation.network, problem.maximise.weights
        rate = network.rate(best)
        utility, excess = (weights * rate).sum(-1), jain_index(rate) - limit
        data = self.ascent_data(problem, observation, price)
        data = data._replace(aim=limit + self.accuracy / 2, penalty=price / excess)
        beams = torch.cat([self.start_beams(problem, observation, start), best.unsqueeze(1)], 1)
        iterations = torch.zeros(len(best), dtype=torch.long, device=best.device)
        for _ in range(ROUNDS):
            ended = self.answer(data, beams, None)
            W, iterations = ended.W, iterations + ended.iterations
            rate = network.rate(W)
            fairness, reached = jain_index(rate), (weights * rate).sum(-1)
            better = (fairness >= limit) & (reached > utility)
            best, utility, price = batching.where(better, (W, reached, data.price), (best, utility, price))
            asked = (data.price + data.penalty * (data.aim - fairness)).clamp_min(0)
            data = data._replace(price=asked, penalty=PENALTY_GROWTH * data.penalty)
            beams = W.unsqueeze(1)
        return best, price, iterations

    @torch.no_grad()
    def solve_at(self, problem: Problem, observation: Observation, parameter: Tensor, start: Tensor | None) -> Solution:
        return self.answer(
            self.ascent_data(problem, observation, parameter), self.start_beams(problem, observation, start), None
        )

    def ascent_data(self, problem: Problem, observation: Observation, price: Tensor) -> AscentData:
        """The problem in normalised units, at a price [B]."""
        assert isinstance(problem.maximise, SumRate)
        network, equal = observation.network, problem.find(EqualPower)
        power = equal.limit / network.users if equal else problem.get(TotalPower).limit
        basis, coordinates = torch.linalg.qr(network.channel.mH)
        H = coordinates.mH * (power.unsqueeze(-1) / network.noise).sqrt().unsqueeze(-1)
        nothing = torch.zeros_like(price)
        return AscentData(H, basis, power, problem.maximise.weights, price, equal is not None, nothing, nothing)

    def start_beams(self, problem: Problem, observation: Observation, start: Tensor | None) -> Tensor:
        """Initial beams [B, starts, N, K]."""
        slnr = (WeightedSLNR(alpha) for alpha in ALPHAS[: self.starts])
        beams = [each.solve_batch(problem, observation, None, None).W for each in slnr] if start is None else [start]
        return torch.stack(beams, 1)

    def init(self, data: AscentData, start: Tensor | None, generator: torch.Generator | None) -> Iterator[Climb]:
        assert start is not None
        for W in start.unbind(1):
            V = data.basis.mH @ W
            if data.each:  # a zero beam has no ascent direction
                V = torch.where(squared_magnitude(V).sum(-2, keepdim=True) > 0, V, data.H.mH)
            yield lbfgs.begin(lambda point: objective(data, point), flat(unit_norm(data, V)))

    def step(self, data: AscentData, state: Climb) -> tuple[Climb, Tensor]:
        return lbfgs.advance(lambda point: objective(data, point), state), state.value

    def verdict(self, data: AscentData, state: Climb, after: Climb, merit: Tensor, before: Tensor) -> Tensor:
        tolerance = max(self.tolerance, 8 * torch.finfo(merit.dtype).eps)
        close = (after.expected_increase <= tolerance * after.value.abs()) | (after.length < LEAST_LENGTH)
        return torch.where(close, int(Status.CONVERGED), RUNNING)

    def beams(self, data: AscentData, state: Climb) -> Tensor:
        V = unit_norm(data, shaped(data, state.point))
        return data.basis @ V * data.power.sqrt()[:, None, None]


def objective(data: AscentData, point: Tensor) -> tuple[Tensor, Tensor]:
    """``sum_k a_k R_k + price J`` [B] of points [B, 2 n K] (or the augmented Lagrangian), and its gradient."""
    V = shaped(data, point)
    size = length(data, V)
    V = V / size
    A = data.H @ V
    power = squared_magnitude(A)
    interference = others(power) + 1
    total = interference + own(power)
    rate = spectral_efficiency(own(power) / interference)
    S, Q = rate.sum(-1, keepdim=True), rate.square().sum(-1, keepdim=True)
    Q = torch.where(Q > 0, Q, 1)
    fairness = jain_index(rate)
    price = (data.price + data.penalty * (data.aim - fairness)).clamp_min(0)
    worth = data.weights + price.unsqueeze(-1) * 2 * S / (rate.shape[-1] * Q) * (1 - S * rate / Q)
    # ln 2 dR_u / dP_ul is 1/T_u for the user's own beam and 1/T_u - 1/I_u for other beams
    slope = -(own(power) / interference).unsqueeze(-1).expand_as(power)
    slope = torch.diagonal_scatter(slope, torch.ones_like(rate), dim1=-2, dim2=-1)
    slope = slope * (worth / total).unsqueeze(-1) * (2 / math.log(2))
    gradient = data.H.mH @ (slope * A)
    radial = V.real * gradient.real + V.imag * gradient.imag
    radial = radial.sum(-2, keepdim=True) if data.each else radial.sum((-2, -1), keepdim=True)
    penalised = data.penalty > 0
    augmented = -price.square() / (2 * torch.where(penalised, data.penalty, 1))
    value = (data.weights * rate).sum(-1) + torch.where(penalised, augmented, data.price * fairness)
    return value, flat((gradient - V * radial) / size)


def length(data: AscentData, V: Tensor) -> Tensor:
    """Norms of the columns of V [B, n, K], or of V, as divisors: 1 instead of 0."""
    square = squared_magnitude(V)
    square = square.sum(-2, keepdim=True) if data.each else square.sum((-2, -1), keepdim=True)
    return torch.where(square > 0, square, 1).sqrt()


def unit_norm(data: AscentData, V: Tensor) -> Tensor:
    """V with columns of norm one, or of norm one itself."""
    return V / length(data, V)


def flat(V: Tensor) -> Tensor:
    """Complex [B, n, K] as real [B, 2 n K]."""
    return torch.view_as_real(V.contiguous()).flatten(1)


def shaped(data: AscentData, point: Tensor) -> Tensor:
    """Undo `flat`."""
    return torch.view_as_complex(point.reshape(len(point), data.H.shape[-1], data.H.shape[-2], 2))
