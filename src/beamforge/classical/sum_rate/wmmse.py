"""Weighted sum rate on any network, within any combination of power limits, by WMMSE.

Source: Q. Shi, M. Razaviyayn, Z.-Q. Luo, C. He, "An iteratively weighted MMSE approach to distributed sum-utility
maximization for a MIMO interfering broadcast channel", IEEE Trans. Signal Process. 59 (2011), Table I.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.power_limits import LIMITS, budget, equal_power, within_limits
from beamforge.classical.structure import directions
from beamforge.classical.sum_rate import limited_newton
from beamforge.classical.sum_rate.least_squares import LeastSquares
from beamforge.classical.sum_rate.power_duals import Limits
from beamforge.classical.sum_rate.reduced_wmmse import (
    SCOUT_ITERATIONS,
    SCOUT_TOLERANCE,
    SMALL,
    Multipliers,
    ReducedWMMSE,
    doubled,
    nearly_parallel,
    receivers,
)
from beamforge.classical.sum_rate.user_selection import served_users
from beamforge.core import batching
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import PerAntennaPower, PerTransmitterPower, TotalPower
from beamforge.core.network import Network, others, own, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.utilities import SumRate
from beamforge.optim.implicit import attach_fixed_point
from beamforge.optim.iterate import Outcome, better, together
from beamforge.optim.starts import SeveralStarts


class WMMSEData(NamedTuple):
    """Data: the network with unit noise, the problem, its power limits, and whether t sends stream k [B, T, K]."""

    network: Network
    problem: Problem
    limits: Limits
    sends: Tensor


class MulticellWMMSE(SeveralStarts):
    """T transmitters, K users on any of them; total, per-transmitter and per-antenna power limits in any combination.

    With receivers ``u_k``, weights ``w_k = 1/MSE_k`` and ``q_k = a_k w_k |u_k|^2``, noise one, the beams minimise ::

        sum_k (w_k^H A_t(k) w_k - 2 sqrt(q_k a_k w_k) Re h_k^H w_k),    A_t = sum_j q_j h_tj h_tj^H

    within the limits (see `least_squares`). Then u and w follow in closed form, and the weighted sum rate never
    decreases. A state is the 2K real numbers (sqrt q, sqrt(a w)): phases of u can be taken as zero.

    With limits on antennas, several starts are first run with limits on whole transmitters instead (with one
    transmitter, by `ReducedWMMSE`). From there Newton's method (`limited_newton`) finds a point that meets all limits;
    it also finishes all other runs. If it fails, WMMSE continues to that point. No Newton steps are taken with
    "unrolled" gradients, or if `max_iterations` are used up.

    starts  how many of: regularised zero forcing, MRT, the first without the users who cost the others more than they
            have, and both its extremes (with single antennas, equal powers and ever more for users of good quality);
            each instance keeps its best. A `start` replaces them all.

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
        starts: int = 5,
        gradient: str = "implicit",
    ) -> None:
        super().__init__(tolerance, max_iterations, acceleration, starts, gradient)

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
            ridge = RIDGES[number]
            if ridge is None:
                W = beams_of_served_users(data)
            elif single:
                W = beams_from_ridge(data.problem, data.network, 1.0) * quality(data.network)[:, None, :] ** number
            else:
                W = beams_from_ridge(data.problem, data.network, ridge)
            yield receivers_for_beams(data, W)[0]

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        data = self.prepare(problem, observation)
        asked = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in batching.leaves(data))
        if asked and self.gradient == "unrolled":
            return self.answer(data, start, generator)
        wide = self.prepare(*batching.tree_map(doubled, (problem, observation)))
        with torch.no_grad():
            if start is not None or self.starts == 1 or self.max_iterations <= SCOUT_ITERATIONS:
                outcome = self.polished(wide, self.climb(data, start, generator))
            else:
                outcome = self.searched(wide)
        state = outcome.state
        if asked:
            state = attach_fixed_point(lambda s: self.step(wide, s)[0], state)
        W = within_limits(problem, observation.network, self.beams(wide, state).to(observation.network.H.dtype))
        return Solution(W, outcome.status, outcome.iterations, outcome.trace)

    def searched(self, data: WMMSEData) -> Outcome:
        """The best of several starts, each run to its end; data in double precision."""
        relaxed = self.relaxed(data)
        scouted, many = self.scouted(data, relaxed), nearly_parallel(gram_of_all(data.network))
        ends = [self.newton(data, outcome, relaxed) for outcome in scouted]
        for number, outcome in enumerate(scouted):
            done = [torch.where(end.status == 0, one.merit, -torch.inf) for end, one in zip(ends, scouted, strict=True)]
            behind = outcome.merit > torch.stack(done).amax(0)  # no start of such a merit has converged
            lost = ends[number].status != Status.CONVERGED
            behind = behind | (many & lost & (outcome.merit > functools.reduce(better, ends).merit))
            if behind.any():
                places = behind.nonzero().squeeze(-1)
                slow = self.followed(batching.take(data, places), batching.take(outcome, places))
                ends[number] = replaced(ends[number], places, slow)
        best = functools.reduce(better, ends)
        if (unfinished := best.status != Status.CONVERGED).any():
            places = unfinished.nonzero().squeeze(-1)
            last = self.followed(*batching.take((data, best), places))
            last = replaced(best, places, last)
            best = batching.where(unfinished & (last.merit >= best.merit * (1 - SCOUT_TOLERANCE)), last, best)
        return best

    def scouted(self, data: WMMSEData, relaxed: WMMSEData) -> list[Outcome]:
        """Outcomes of the starts with limits on whole transmitters; for one transmitter, also the starts themselves."""
        if data.network.transmitters > 1:
            scout = copy.copy(self)
            scout.tolerance, scout.max_iterations = max(self.tolerance, SCOUT_TOLERANCE), SCOUT_ITERATIONS
            states = list(self.init(relaxed, None, None))
            if nearly_parallel(gram_of_all(data.network)).any():
                states += [
                    receivers_for_beams(relaxed, beams_of_served_users(relaxed, draw))[0] for draw in range(1, DRAWS)
                ]
            return together(scout, relaxed, states, relaxed.network.H.numel() <= SMALL)
        total = Problem(data.problem.maximise, (TotalPower(budget(data.problem, data.network).squeeze(-1)),))
        reduced = ReducedWMMSE(self.tolerance, starts=self.starts)
        channel = reduced.prepare(total, Observation(data.network))
        beams = [reduced.beams(channel, state) for state in reduced.ends(channel)]
        found = [receivers_for_beams(relaxed, W) for W in beams]
        found += [(state, torch.zeros_like(found[0][1])) for state in self.init(data, None, None)]
        running = torch.full_like(data.network.streams.transmitter[:, 0], int(Status.MAX_ITERATIONS))
        return [Outcome(state, rate, running, 0 * running, rate.unsqueeze(-1)) for state, rate in found]

    def followed(self, data: WMMSEData, outcome: Outcome) -> Outcome:
        """An outcome found with other limits, continued with those of `data`: some steps of WMMSE, then Newton's
        method; if that fails, WMMSE to the end."""
        scout = copy.copy(self)
        scout.tolerance = max(self.tolerance, SCOUT_TOLERANCE)
        near = scout.run(data, outcome.state)
        end = self.newton(data, near, data)
        lost = (end.status != Status.CONVERGED) | (end.merit < near.merit * (1 - 1e-9))
        if lost.any():
            places = lost.nonzero().squeeze(-1)
            part = batching.take((data, near), places)
            end = replaced(end, places, self.polished(part[0], self.run(part[0], part[1].state)))
        return end._replace(iterations=outcome.iterations + end.iterations)

    def polished(self, data: WMMSEData, outcome: Outcome) -> Outcome:
        """An outcome that has converged, refined by Newton's method; data in double precision."""
        slack = 1e-9 if outcome.merit.dtype == torch.float64 else 1e-5
        outcome = batching.tree_map(doubled, outcome)
        end = self.newton(data, outcome, data)
        finished = (outcome.status == Status.CONVERGED) & (end.status == Status.CONVERGED)
        taken = finished & (end.merit >= outcome.merit * (1 - slack))
        if not taken.any():
            return outcome
        stays = outcome._replace(trace=torch.cat([outcome.trace, outcome.trace[:, -1:]], -1))
        return batching.where(taken, end, stays)

    def newton(self, data: WMMSEData, outcome: Outcome, within: WMMSEData) -> Outcome:
        """The point that Newton's method finds for the limits of `data`, from an outcome for the limits of `within`."""
        assert isinstance(data.problem.maximise, SumRate)
        network, q = data.network, outcome.state.root.square()
        whole = q.sum(-1, keepdim=True)
        whole = torch.where(whole > 0, whole, 1)
        paid = (q.unsqueeze(-2) * data.sends).sum(-1)
        F = outcome.state.root[:, None, :, None] * network.H
        found = LeastSquares(F, outcome.state.gain.unsqueeze(-2) * data.sends, within.limits).duals(paid)
        unit = within.limits.spread(found.prices)
        unit = unit.repeat_interleave(data.limits.groups.shape[-1] // unit.shape[-1], -1)
        shared = unit / data.limits.spread(torch.ones_like(data.limits.bound))
        prices = data.limits.load(shared) / data.limits.load(torch.ones_like(unit))
        prices = prices.maximum(LEAST * whole / data.limits.bound)
        start = limited_newton.Point(q.maximum(LEAST * whole).log(), prices.log())
        scene = limited_newton.NewtonData(network.H, data.problem.maximise.weights, data.limits, data.sends)
        end = limited_newton.newton(scene, start)
        W = within_limits(data.problem, network, limited_newton.beams(scene, end.point, end.error))
        rate = receivers_for_beams(data, W)[1]
        finite = torch.isfinite(rate)
        q = end.point.x.exp()
        root = torch.where(q > OFF * q.sum(-1, keepdim=True), q, 0).sqrt()
        state = Multipliers(root, (data.problem.maximise.weights / end.error).sqrt())
        state = batching.where(finite, state, outcome.state)
        rate = torch.where(finite, rate, 0)
        status = torch.where(finite & end.converged, int(Status.CONVERGED), int(Status.MAX_ITERATIONS))
        trace = torch.cat([outcome.trace, rate.unsqueeze(-1)], -1)
        return Outcome(state, rate, status, outcome.iterations + end.steps, trace)

    def relaxed(self, data: WMMSEData) -> WMMSEData:
        """The same problem with limits on antennas replaced by limits on their transmitters."""
        antenna = data.problem.find(PerAntennaPower)
        if antenna is None:
            return data
        limit, each = antenna.limit.sum(-1), data.problem.find(PerTransmitterPower)
        whole = PerTransmitterPower(limit if each is None else limit.minimum(each.limit))
        total = data.problem.find(TotalPower)
        problem = Problem(data.problem.maximise, (whole,) if total is None else (total, whole))
        return data._replace(
            problem=problem, limits=Limits.of(problem, data.network.transmitters, data.network.antennas)
        )

    def step(self, data: WMMSEData, state: Multipliers) -> tuple[Multipliers, Tensor]:
        return receivers_for_beams(data, self.beams(data, state))

    def beams(self, data: WMMSEData, state: Multipliers) -> Tensor:
        F = state.root[:, None, :, None] * data.network.H
        q = (state.root.detach().square().unsqueeze(-2) * data.sends).sum(-1)
        W = LeastSquares(F, state.gain.unsqueeze(-2) * data.sends, data.limits).solve(q).sum(-3)
        return within_limits(data.problem, data.network, W)


RIDGES = (1.0, math.inf, None, 30.0, 0.0)
"""Ridges of the starts (1 converges in 2 to 5 steps if users are well separated); None: some users are left out."""

DRAWS = 8
"""Number of user selections that are tried where some channels are nearly parallel."""

LEAST = 1e-8
"""Least share of the total from which the logarithm of a user's power or of a limit's price starts."""

OFF = 1e-9
"""Share of the dual uplink power below which a user is switched off."""


def replaced(outcome: Outcome, places: Tensor, others: Outcome) -> Outcome:
    """An outcome with the instances `places` replaced by `others`, of whose traces the last value is kept."""
    others = others._replace(trace=others.trace[:, -1:].expand(-1, outcome.trace.shape[-1]))
    return batching.put(outcome, places, others)


def beams_from_ridge(problem: Problem, network: Network, ridge: float) -> Tensor:
    """Equal powers for regularised zero forcing with `ridge` times the usual ridge; 0 is zero forcing, inf MRT.

    Every transmitter uses its own channels to all users, in units of the noise.
    """
    sent = network.streams.sent(network.transmitters).to(network.noise.dtype)
    share = budget(problem, network) / sent.clamp_min(1)
    multipliers = share / ridge if ridge else torch.full_like(share, 1e12)
    columns = directions(network.H, multipliers.unsqueeze(-1).expand(network.H.shape[:-1]))
    chosen = columns.gather(1, network.streams.transmitter[:, None, None, :].expand(-1, -1, network.antennas, -1))
    return equal_power(problem, network, chosen.squeeze(1))


def gram_of_all(network: Network) -> Tensor:
    """Gram matrix [B, K, K] of the users' channels to all transmitters together."""
    return (network.H @ network.H.mH).sum(1)


def beams_of_served_users(data: WMMSEData, draw: int = 0) -> Tensor:
    """Regularised zero forcing for the users that `served_users` selects, with equal powers for each transmitter.

    draw  number of a draw of random weights for the selection, assigned by rank of the channels; 0: the true weights.
    """
    assert isinstance(data.problem.maximise, SumRate)
    network, sends, weights = data.network, data.sends, data.problem.maximise.weights
    gram = network.H @ network.H.mH
    if draw:
        factor = torch.rand(network.users, generator=torch.Generator().manual_seed(draw), dtype=torch.float64) + 0.5
        rank = own(gram_of_all(network)).real.argsort(dim=-1, stable=True).argsort(-1)
        weights = weights * factor.to(weights)[rank]
    on = served_users(gram, weights, sends, budget(data.problem, network))
    W = beams_from_ridge(data.problem, replace(network, H=network.H * on[:, None, :, None]), 1.0)
    more = sends.sum(-1) / (sends * on.unsqueeze(1)).sum(-1).clamp_min(1)
    return within_limits(data.problem, network, W * (more.unsqueeze(-1) * sends).sum(1).sqrt().unsqueeze(-2))


def quality(network: Network) -> Tensor:
    """Own gain over noise plus the gains of all interference caused and received [B, K], relative to the best user."""
    gain = squared_magnitude(network.stream_channel).sum(-1)
    ratio = own(gain) / (others(gain) + others(gain.mT) + 1)
    best = ratio.amax(-1, keepdim=True)
    return ratio / torch.where(best > 0, best, 1)


def receivers_for_beams(data: WMMSEData, W: Tensor) -> tuple[Multipliers, Tensor]:
    """Receivers and weights for the beams W, and their weighted sum rate."""
    assert isinstance(data.problem.maximise, SumRate)
    power = squared_magnitude(data.network.apply(W))
    return receivers(data.problem.maximise.weights, own(power), others(power))
