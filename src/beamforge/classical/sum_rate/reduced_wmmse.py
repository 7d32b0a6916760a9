"""Weighted sum rate on a broadcast network by the reduced WMMSE iteration.

With a total power limit every non-trivial stationary point lies in the span of the channels, ``W = H^H X``, and the
limit can be absorbed into the noise. What remains is a K x K iteration without a search for a multiplier, independent
of the number of antennas.

Source: Zhao, Lu, Shi, Luo, "Rethinking WMMSE: Can Its Complexity Scale Linearly With the Number of BS Antennas?",
arXiv 2205.06225, Table I. The 2K real numbers kept as the state, and the symmetric form of the solve, are ours.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.structure import loaded_inverse, of_norm_one
from beamforge.classical.sum_rate.uplink_newton import DualUplink, newton
from beamforge.classical.sum_rate.user_selection import (
    LEFT_OUT,
    OFF,
    backward_elimination,
    orthogonal_users,
    removal_gain,
)
from beamforge.core import batching
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.network import others, own, spectral_efficiency, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.utilities import SumRate
from beamforge.optim.implicit import attach_fixed_point
from beamforge.optim.iterate import Outcome, better, together
from beamforge.optim.starts import SeveralStarts

HEAT = (10.0, 3.0, 0.9, 0.27)
"""Shares by which annealing increases the ridge, iteration by iteration."""

TILT = 0.7
"""Standard deviation over the users, in nats, by which a tilted start scales the roots."""

SCOUT_TOLERANCE = 3e-5
"""Tolerance to which each of several starts is run before Newton's method continues."""

SMALL = 1 << 12
"""Number of entries of the Gram matrices of a batch up to which all starts are run as one batch."""

SCOUT_ITERATIONS = 100
"""Maximum number of iterations of each of several starts before Newton's method continues."""

HIGH_SNR = 1e3
"""SNR of the best user, with equal powers, above which every start is run to its end.

WMMSE is slow there, so its rate after few iterations says little about the local optimum that it leads to.
"""

PARALLEL = 0.98
"""Squared correlation of two users' channels above which there are many local optima."""

DROP = 1e-6
"""Least relative gain of the rate for which a user is switched off."""


class WhitenedChannel(NamedTuple):
    """Data: channel [B, K, N] and its Gram matrix [B, K, K] in units of noise over power, weights [B, K], power [B]."""

    H: Tensor
    gram: Tensor
    weights: Tensor
    power: Tensor


class Multipliers(NamedTuple):
    """State, 2K real numbers: ``root_k = sqrt(a_k w_k) |u_k|`` (0: switched off) and ``gain_k = sqrt(a_k w_k)``."""

    root: Tensor
    gain: Tensor


class ReducedWMMSE(SeveralStarts):
    """One transmitter, total power; K users, N antennas; O(K^2 N) once and O(K^3) per iteration.

    With receivers u, weights ``w = 1/MSE`` and ``q_k = a_k w_k |u_k|^2``, in units where noise and power are one::

        M = Q^1/2 H H^H Q^1/2 + (sum q) I,      X = Q^1/2 M^-1 diag(sqrt(a_k w_k)),      W = H^H X scaled to power P

    The phases of u can be taken as zero without loss, so a state is the pair (sqrt q, sqrt(a w)). The weighted sum rate
    never decreases in plain iterations; an extrapolation that would lower it is rejected.

    Local optima differ in the users that are switched off. So several different starts are run, and each instance keeps
    its best: regularised zero forcing, annealed by four iterations with an increased ridge (not counted among the
    iterations); the same with more power for the user of the best single-user rate; heavily regularised zero forcing;
    the same with less power for users of large summed squared correlation with the others; then random preferences,
    annealed. SQUAREM in these 2K numbers needs about a quarter of the plain iterations at 20 dB.

    The shares ``q_k / sum q`` are the powers of the dual uplink. Newton's method in these powers (`uplink_newton`)
    finishes the iteration in few steps, also at high SNR, where WMMSE is slow. This part and the beams are computed in
    double precision, and the rate is at least that of zero forcing and of regularised zero forcing with equal powers.
    It is left out if `max_iterations` are used up, and with "unrolled" gradients.

    With several starts, Newton's method is also run from the users selected by `backward_elimination`.

    starts  how many of these; a `start` given to `solve` replaces them all.
    """

    capabilities = (Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower,)),)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        data = self.prepare(problem, observation)
        asked = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in batching.leaves(data))
        if asked and self.gradient == "unrolled":
            return self.answer(data, start, generator)
        wide = self.prepare(*batching.tree_map(doubled, (problem, observation)))
        with torch.no_grad():
            outcome = self.finished(wide, self.scouted(data, start, generator), start is not None)
        state = outcome.state
        if asked:
            state = attach_fixed_point(lambda s: self.step(wide, s)[0], state)
        W = self.beams(wide, state).to(data.H.dtype)
        return Solution(W, outcome.status, outcome.iterations, outcome.trace)

    def prepare(self, problem: Problem, observation: Observation) -> WhitenedChannel:
        assert isinstance(problem.maximise, SumRate)
        network, power = observation.network, problem.get(TotalPower).limit
        H = network.channel * (power.sqrt().unsqueeze(-1) * network.noise.rsqrt()).unsqueeze(-1)
        return WhitenedChannel(H, H @ H.mH, problem.maximise.weights, power)

    def init(
        self, data: WhitenedChannel, start: Tensor | None, generator: torch.Generator | None
    ) -> Iterator[Multipliers]:
        if start is not None:
            yield receivers_for_amplitudes(data, data.H @ start, squared_magnitude(start).sum((-2, -1)))[0]
            return
        generator = generator or torch.Generator(data.gram.device).manual_seed(0)
        for number in range(self.starts):
            if number == 0:
                yield annealed(data, from_ridge(data, 10))
            elif number == 1:
                yield annealed(data, best_user_first(data, from_ridge(data, 30)))
            elif number == 2:
                yield from_ridge(data, 30)
            elif number == 3:
                yield tilted(from_ridge(data, 30), -crowding(data.gram))
            else:
                yield annealed(data, tilted(from_ridge(data, 30), by_rank(data, generator)))

    def scouted(self, data: WhitenedChannel, start: Tensor | None, generator: torch.Generator | None) -> list[Outcome]:
        """Outcome of each start: a single start is run to its end, several to `SCOUT_TOLERANCE`."""
        states, scout = list(self.init(data, start, generator)), copy.copy(self)
        if len(states) == 1:
            return [self.run(data, states[0])]
        scout.tolerance = max(self.tolerance, SCOUT_TOLERANCE)
        scout.max_iterations = min(self.max_iterations, SCOUT_ITERATIONS)
        return together(scout, data, states, data.gram.numel() <= SMALL)

    def finished(self, data: WhitenedChannel, scouted: list[Outcome], given: bool) -> Outcome:
        """The best outcome of all starts, finished by Newton's method; data in double precision.

        given  whether the start was given by the caller; then zero forcing is not tried.
        """
        best = functools.reduce(better, scouted)
        exact = best.state.root.dtype == torch.float64
        best = batching.tree_map(doubled, best)
        spent = (best.status == Status.MAX_ITERATIONS) & (len(scouted) == 1 or self.max_iterations <= SCOUT_ITERATIONS)
        found = self.newton(data, best.state.root)
        if len(scouted) > 1:
            apart = backward_elimination(data.gram, data.weights)
            fewer = (apart < 2 * LEFT_OUT).any(-1)
            if fewer.any():
                found = self.best_of(data, found, fewer, [apart.sqrt()])
        if not given:
            strong = (own(data.gram).real.amax(-1) > HIGH_SNR * data.gram.shape[-1]) | nearly_parallel(data.gram)
            states = [from_ridge(data, 1.0).root, torch.ones_like(data.weights)]
            if strong.any() and not spent.all():
                scouts = [outcome.state.root.double() for outcome in scouted]
                apart = orthogonal_users(data.gram, data.weights).sqrt()
                found = self.best_of(data, found, strong, [*scouts, states[1], apart])
            low = found.rate < floor(data)
            if low.any():
                found = self.best_of(data, found, low, states)
        found = self.without_some(data, found)
        state = Multipliers((found.shares * (found.shares > OFF)).sqrt(), (data.weights * found.inverse_error).sqrt())
        image, rate = self.step(data, state)
        slack = 1e-12 if exact else 1e-5
        taken = ~spent & ~(rate < best.merit * (1 - slack))
        status = torch.where(found.converged, int(Status.CONVERGED), int(Status.MAX_ITERATIONS))
        status = torch.where(taken, status, torch.where(spent, best.status, int(Status.MAX_ITERATIONS)))
        merit = torch.where(taken, rate, best.merit)
        return Outcome(
            batching.where(taken, image, best.state),
            merit,
            status,
            best.iterations + torch.where(taken, found.steps, 0),
            torch.cat([best.trace, merit.unsqueeze(-1)], -1),
        )

    def ends(self, data: WhitenedChannel) -> list[Multipliers]:
        """Local optima from every start and from two user selections; data in double precision."""
        roots = [outcome.state.root for outcome in self.scouted(data, None, None)]
        roots += [choose(data.gram, data.weights).sqrt() for choose in (orthogonal_users, backward_elimination)]
        ends = [self.without_some(data, self.newton(data, root)) for root in roots]
        return [Multipliers(end.shares.sqrt(), (data.weights * end.inverse_error).sqrt()) for end in ends]

    def newton(self, data: WhitenedChannel, root: Tensor) -> DualUplink:
        """Newton's method from the uplink powers of a state; from equal powers if they are all zero."""
        size = root.square()
        shares = torch.where(size.sum(-1, keepdim=True) > 0, size, 1)
        return newton(data.gram, data.weights, shares, self.tolerance)

    def best_of(self, data: WhitenedChannel, found: DualUplink, which: Tensor, roots: list[Tensor]) -> DualUplink:
        """`found`; for the instances `which` [B] the best of it and of Newton's method from the other `roots`."""
        places = which.nonzero().squeeze(-1)
        part, best = batching.take((data, found), places)
        for root in roots:
            other = self.newton(part, root[places])
            best = batching.where(other.rate > best.rate, other, best)
        return batching.put(found, places, best)

    def without_some(self, data: WhitenedChannel, found: DualUplink) -> DualUplink:
        """Switch users off as long as that increases the rate, first the user of the greatest gain.

        Without user j the errors are ``B_kk - |B_kj|^2 / B_jj``, and its own error is one, so the gain is known before.
        Newton's method alone only increases the rate locally, and may keep a user that should be off.
        """
        for _ in range(data.gram.shape[-1] - 1):
            gain = removal_gain(data.gram, data.weights, found.shares)
            better = gain.amax(-1) > DROP * found.rate
            if not better.any():
                break
            keep = 1 - torch.nn.functional.one_hot(gain.argmax(-1), gain.shape[-1]).to(gain.dtype)
            found = self.best_of(data, found, better, [(found.shares * keep).sqrt()])
        return found

    def step(self, data: WhitenedChannel, state: Multipliers) -> tuple[Multipliers, Tensor]:
        X = beam_coefficients(data, state)
        D = data.gram @ X
        return receivers_for_amplitudes(data, D, inner_product(X, D))

    def beams(self, data: WhitenedChannel, state: Multipliers) -> Tensor:
        W = data.H.mH @ beam_coefficients(data, state)
        spent = squared_magnitude(W).sum((-2, -1))
        return W * (data.power / torch.where(spent > 0, spent, 1)).sqrt()[:, None, None]


def doubled(leaf: Tensor) -> Tensor:
    """A real or complex tensor in double precision; others are unchanged."""
    return leaf.to({torch.complex64: torch.complex128, torch.float32: torch.float64}.get(leaf.dtype, leaf.dtype))


def from_ridge(data: WhitenedChannel, ridge: float) -> Multipliers:
    """Receivers for regularised zero forcing with `ridge` times the usual ridge ``K s2/P``; infinity is MRT."""
    K = data.gram.shape[-1]
    if math.isinf(ridge):
        X = torch.eye(K, dtype=data.gram.dtype, device=data.gram.device).expand_as(data.gram)
    else:
        X = loaded_inverse(data.gram, ridge * K + 4 * torch.finfo(data.weights.dtype).eps * own(data.gram).real)
    D = data.gram @ X
    return receivers_for_amplitudes(data, D, inner_product(X, D))[0]


def floor(data: WhitenedChannel) -> Tensor:
    """Rate [B] of regularised zero forcing with equal powers, the better of downlink and dual uplink.

    On the uplink it is the rate of linear MMSE receivers, which is at least that of zero forcing with equal powers.
    """
    K = data.gram.shape[-1]
    X = loaded_inverse(data.gram, K + 4 * torch.finfo(data.weights.dtype).eps * own(data.gram).real)
    uplink = -(data.weights * (K * own(X).real).log()).sum(-1) / math.log(2)
    D = data.gram @ (X := of_norm_one(data.gram, X))
    return torch.maximum(uplink, receivers_for_amplitudes(data, D, torch.full_like(data.power, K))[1])


def best_user_first(data: WhitenedChannel, state: Multipliers) -> Multipliers:
    """A start with roots scaled by 0.1, except for the user with the largest weighted single-user rate."""
    alone = data.weights * torch.log1p(own(data.gram).real)
    leads = torch.nn.functional.one_hot(alone.argmax(-1), alone.shape[-1]).to(alone.dtype)
    return state._replace(root=state.root * (0.1 + 0.9 * leads))


def tilted(state: Multipliers, exponent: Tensor) -> Multipliers:
    """A start with the root of each user scaled by ``exp(TILT * exponent)``, exponents standardised over the users."""
    centred = exponent - exponent.mean(-1, keepdim=True)
    spread = centred.square().mean(-1, keepdim=True).sqrt()
    return state._replace(root=state.root * torch.exp(TILT * centred / torch.where(spread > 0, spread, 1)))


def crowding(gram: Tensor) -> Tensor:
    """Summed squared correlation of user k with all users, ``sum_j |h_k^H h_j|^2 / (|h_k|^2 |h_j|^2)`` [B, K]."""
    size = own(gram).real
    inverse = torch.where(size > 0, size, torch.inf).rsqrt()
    return (squared_magnitude(gram * inverse.unsqueeze(-1) * inverse.unsqueeze(-2))).sum(-1)


def nearly_parallel(gram: Tensor) -> Tensor:
    """Boolean [B]: two users' channels are nearly parallel."""
    size = own(gram).real
    inverse = torch.where(size > 0, size, torch.inf).reciprocal()
    same = squared_magnitude(gram) * inverse.unsqueeze(-1) * inverse.unsqueeze(-2)
    return torch.diagonal_scatter(same, torch.zeros_like(size), 0, -2, -1).amax((-2, -1)) > PARALLEL


def by_rank(data: WhitenedChannel, generator: torch.Generator) -> Tensor:
    """Random numbers [B, K] assigned by rank of channel gain: the same draw for all instances, in any user order."""
    draw = torch.randn(data.gram.shape[-1], generator=generator, dtype=torch.float64, device=generator.device)
    rank = own(data.gram).real.argsort(-1).argsort(-1)
    return draw.to(data.weights)[rank]


def annealed(data: WhitenedChannel, state: Multipliers) -> Multipliers:
    """A few iterations with the ridge ``sum q`` increased by the shares `HEAT`: few users are switched off too early.

    At 20 dB the iteration then converges to optima that are 1 to 2 % better, in half the steps.
    """
    for heat in HEAT:
        X = beam_coefficients(data, state, 1 + heat)
        D = data.gram @ X
        state = receivers_for_amplitudes(data, D, inner_product(X, D))[0]
    return state


def beam_coefficients(data: WhitenedChannel, state: Multipliers, ridge: Tensor | float = 1.0) -> Tensor:
    """X [B, K, K] of ``W = H^H X``, up to a common scale; `ridge`, [B] or a number, scales the multiplier ``sum q``."""
    root, gain = state
    level = (ridge * root.square().sum(-1)).unsqueeze(-1).expand_as(root)
    scaled = data.gram * (root.unsqueeze(-1) * root.unsqueeze(-2))
    level = level + 4 * torch.finfo(root.dtype).eps * own(scaled).real  # rounding, at any scale of the users
    level = torch.where(level > 0, level, 1)  # no user has a channel
    return loaded_inverse(scaled, level) * (root.unsqueeze(-1) * gain.unsqueeze(-2))


def inner_product(X: Tensor, D: Tensor) -> Tensor:
    """``Re tr(X^H D)`` [B], the power of the beams ``H^H X`` where ``D = H H^H X``."""
    return (torch.view_as_real(X) * torch.view_as_real(D)).sum((-3, -2, -1))


def receivers_for_amplitudes(data: WhitenedChannel, D: Tensor, spent: Tensor) -> tuple[Multipliers, Tensor]:
    """`receivers` for amplitudes D [B, K, K] of beams that spend `spent` [B]."""
    return receivers_for_powers(data, squared_magnitude(D), spent)


def receivers_for_powers(data: WhitenedChannel, power: Tensor, spent: Tensor) -> tuple[Multipliers, Tensor]:
    """`receivers` for powers [B, K, K] of beams that spend `spent` [B]."""
    scale = torch.where(spent > 0, spent, 1).reciprocal().unsqueeze(-1)
    return receivers(data.weights, own(power) * scale, others(power) * scale)


def receivers(weights: Tensor, signal: Tensor, interference: Tensor) -> tuple[Multipliers, Tensor]:
    """Receivers and weights for received powers [B, K] in units of the noise, and the weighted sum rate [B]."""
    disturbance = interference + 1
    total = disturbance + signal
    amplitude = torch.where(signal > 0, signal, 1).sqrt() * (signal > 0)  # the gradient of sqrt at 0 is not finite
    gain = weights.sqrt() * (total / disturbance).sqrt()
    rate = (weights * spectral_efficiency(signal / disturbance)).sum(-1)
    return Multipliers(gain * amplitude / total, gain), rate
