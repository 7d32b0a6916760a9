"""The frontier of sum rate and fairness on one transmitter: what any beams, learned or not, are measured against."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.fairness.trade_off import FairnessSolver, fair
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
"""Weighted SLNR with these is where the starts are."""

ROUNDS, STIFFER = 6, 3.0
"""Climbs to a fairness that no price ends at, and how much stiffer each is than the one before."""

STUCK = 1e-6
"""Share of a step below which rounding forbids more."""


class Scene(NamedTuple):
    """Data: channels [B, K, n] in coordinates of a basis [B, N, n] of their span, n = min(K, N), in units of the noise
    and of the power [B] that a point of norm one has; weights [B, K]; price [B]; whether each beam is such a point, or
    all of them together; and, where a fairness is aimed at [B], how stiffly [B].
    """

    H: Tensor
    basis: Tensor
    power: Tensor
    weights: Tensor
    price: Tensor
    each: bool
    aim: Tensor
    stiffness: Tensor


class Pareto(FairnessSolver, IterativeSolver):
    """Quasi-Newton ascent of ``sum_k a_k R_k + price J`` over the directions of beams of equal power.

    Jain's index J is smooth in the rates, ``dJ/dR_u = 2 S / (K Q) (1 - S R_u / Q)`` with ``S = sum R, Q = sum R^2``, so
    each step is that of a weighted sum rate, in which users above Q/S may weigh less than nothing. Beams are points
    ``v_u / |v_u|`` in the span of the channels (with `TotalPower`, which adds power control, ``V / |V|``), and the
    objective never falls, up to rounding. O(K^2 N) once and O(K^2 min(K, N)) a step.

    price   of fairness, in bit/s/Hz; left out, the least that meets the fairness that the problem asks for. Where it
            leaps beyond that, as it may for an instance by itself, an augmented Lagrangian leads back; iterations and
            trace are those of the climb at that price.
    starts  1 to 5, from weighted SLNR with unlike alphas; each instance keeps its best. A `start` replaces them.

    Source: the objective is the Lagrangian of the fairness-controlled beamforming paper's Eq. 9.
    """

    capabilities = fair(EqualPower, TotalPower)
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
        W, price, iterations = self.back(*part, None if start is None else start[rows])
        info = {**found.info, self.parameter: found.info[self.parameter].index_copy(0, rows, price)}
        trace = found.trace
        if trace is not None:  # of these instances its last value alone, ``a' R + price J`` at the end
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
    def back(
        self,
        problem: Problem,
        observation: Observation,
        limit: Tensor,
        price: Tensor,
        best: Tensor,
        start: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Beams [B, N, K] within a gap of the frontier, and better than `best`; their price and iterations.

        No price ends within a gap. There the augmented Lagrangian does: ``a' R - p^2 / (2 c)`` with the price
        ``p = max(price + c (aim - J), 0)``; after each of `ROUNDS` climbs that is the price, and c grows to `STIFFER`
        times as much. (M. Hestenes, "Multiplier and gradient methods", J. Optim. Theory Appl. 4, 1969.)
        """
        assert isinstance(problem.maximise, SumRate)
        network, weights = observation.network, problem.maximise.weights
        rate = network.rate(best)
        utility, excess = (weights * rate).sum(-1), jain_index(rate) - limit
        scene = self.scene(problem, observation, price)
        scene = scene._replace(aim=limit + self.accuracy / 2, stiffness=price / excess)
        begun = torch.cat([self.ways(problem, observation, start), best.unsqueeze(1)], 1)
        iterations = torch.zeros(len(best), dtype=torch.long, device=best.device)
        for _ in range(ROUNDS):
            ended = self.answer(scene, begun, None)
            W, iterations = ended.W, iterations + ended.iterations
            rate = network.rate(W)
            fairness, reached = jain_index(rate), (weights * rate).sum(-1)
            better = (fairness >= limit) & (reached > utility)
            best, utility, price = batching.where(better, (W, reached, scene.price), (best, utility, price))
            asked = (scene.price + scene.stiffness * (scene.aim - fairness)).clamp_min(0)
            scene = scene._replace(price=asked, stiffness=STIFFER * scene.stiffness)
            begun = W.unsqueeze(1)
        return best, price, iterations

    @torch.no_grad()
    def solve_at(self, problem: Problem, observation: Observation, parameter: Tensor, start: Tensor | None) -> Solution:
        return self.answer(self.scene(problem, observation, parameter), self.ways(problem, observation, start), None)

    def scene(self, problem: Problem, observation: Observation, price: Tensor) -> Scene:
        """The problem in units of its own, at a price [B]."""
        assert isinstance(problem.maximise, SumRate)
        network, equal = observation.network, problem.find(EqualPower)
        power = equal.limit / network.users if equal else problem.get(TotalPower).limit
        basis, coordinates = torch.linalg.qr(network.channel.mH)
        H = coordinates.mH * (power.unsqueeze(-1) / network.noise).sqrt().unsqueeze(-1)
        nothing = torch.zeros_like(price)
        return Scene(H, basis, power, problem.maximise.weights, price, equal is not None, nothing, nothing)

    def ways(self, problem: Problem, observation: Observation, start: Tensor | None) -> Tensor:
        """Beams [B, starts, N, K] to begin with."""
        slnr = (WeightedSLNR(alpha) for alpha in ALPHAS[: self.starts])
        ways = [each.solve_batch(problem, observation, None, None).W for each in slnr] if start is None else [start]
        return torch.stack(ways, 1)

    def init(self, data: Scene, start: Tensor | None, generator: torch.Generator | None) -> Iterator[Climb]:
        assert start is not None
        for W in start.unbind(1):
            V = data.basis.mH @ W
            if data.each:  # from no beam there is no way uphill
                V = torch.where(squared_magnitude(V).sum(-2, keepdim=True) > 0, V, data.H.mH)
            yield lbfgs.begin(lambda point: height(data, point), flat(unit_norm(data, V)))

    def step(self, data: Scene, state: Climb) -> tuple[Climb, Tensor]:
        return lbfgs.advance(lambda point: height(data, point), state), state.value

    def verdict(self, data: Scene, state: Climb, after: Climb, merit: Tensor, before: Tensor) -> Tensor:
        tolerance = max(self.tolerance, 8 * torch.finfo(merit.dtype).eps)
        close = (after.expected_increase <= tolerance * after.value.abs()) | (after.length < STUCK)
        return torch.where(close, int(Status.CONVERGED), RUNNING)

    def beams(self, data: Scene, state: Climb) -> Tensor:
        V = unit_norm(data, shaped(data, state.point))
        return data.basis @ V * data.power.sqrt()[:, None, None]


def height(data: Scene, point: Tensor) -> tuple[Tensor, Tensor]:
    """``sum_k a_k R_k + price J`` [B] of points [B, 2 n K], and its gradient."""
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
    price = (data.price + data.stiffness * (data.aim - fairness)).clamp_min(0)
    worth = data.weights + price.unsqueeze(-1) * 2 * S / (rate.shape[-1] * Q) * (1 - S * rate / Q)
    # dR_u / dP_ul is 1/T_u for the user's own beam and 1/T_u - 1/I_u for the others', over ln 2
    slope = -(own(power) / interference).unsqueeze(-1).expand_as(power)
    slope = torch.diagonal_scatter(slope, torch.ones_like(rate), dim1=-2, dim2=-1)
    slope = slope * (worth / total).unsqueeze(-1) * (2 / math.log(2))
    gradient = data.H.mH @ (slope * A)
    radial = V.real * gradient.real + V.imag * gradient.imag
    radial = radial.sum(-2, keepdim=True) if data.each else radial.sum((-2, -1), keepdim=True)
    stiff = data.stiffness > 0
    aimed = -price.square() / (2 * torch.where(stiff, data.stiffness, 1))
    value = (data.weights * rate).sum(-1) + torch.where(stiff, aimed, data.price * fairness)
    return value, flat((gradient - V * radial) / size)


def length(data: Scene, V: Tensor) -> Tensor:
    """Norms of the columns of V [B, n, K], or of V, to divide by: 1 where there is nothing."""
    square = squared_magnitude(V)
    square = square.sum(-2, keepdim=True) if data.each else square.sum((-2, -1), keepdim=True)
    return torch.where(square > 0, square, 1).sqrt()


def unit_norm(data: Scene, V: Tensor) -> Tensor:
    """Points of norm one."""
    return V / length(data, V)


def flat(V: Tensor) -> Tensor:
    """Complex [B, n, K] as real [B, 2 n K]."""
    return torch.view_as_real(V.contiguous()).flatten(1)


def shaped(data: Scene, point: Tensor) -> Tensor:
    """Undo `flat`."""
    return torch.view_as_complex(point.reshape(len(point), data.H.shape[-1], data.H.shape[-2], 2))
