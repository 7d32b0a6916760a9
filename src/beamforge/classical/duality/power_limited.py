"""Least power, and max-min SINRs or rates, under any mix of power limits: an interior-point method on the prices.

See `dual_curvature` for the dual problem and its derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from beamforge.classical.duality.dual_curvature import Curvature, curvature, limit_rows
from beamforge.classical.duality.max_min import MaxMin, MaxMinData, MaxMinState, balance_of, balanced, scaled_to_budget
from beamforge.classical.duality.min_power import Newton, initial_powers, newton_step
from beamforge.classical.duality.rescaled_powers import balancing_factors
from beamforge.classical.duality.uplink import Uplink
from beamforge.classical.power_limits import LIMITS, allowances
from beamforge.core import batching
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import SinrAtLeast
from beamforge.core.evaluate import TOLERANCE
from beamforge.core.network import Network, spectral_efficiency, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.streams import Streams
from beamforge.core.utilities import MinRate, MinSinr, TransmitPower
from beamforge.optim.iterate import RUNNING


class InteriorState(NamedTuple):
    """State: price m and slack s of every limit [B, L], budget of weighted power [B] (max-min only), uplink powers q in
    watts [B, K], the last error of the optimality conditions [B], and the best lower bound on the least power [B]."""

    price: Tensor
    slack: Tensor
    budget: Tensor
    q: Tensor
    error: Tensor
    bound: Tensor


class InteriorPoint(Newton):
    """Base: the interior-point step. A subclass supplies `balance`, the uplink at given prices, and the weight `base`.

    Price and slack of a limit remain positive. Their product, the same for all limits, falls by a factor of ten or more
    in a step.
    """

    base = 0.0

    def __init__(self, tolerance: float = 1e-9, max_iterations: int = 60) -> None:
        super().__init__(tolerance, max_iterations)

    def balance(self, data: Any, state: InteriorState) -> tuple[Uplink, Tensor, Tensor, Tensor]:
        """The uplink at the prices of a state, its balanced powers x [B, K], their SINRs and d log SINR / d level."""
        raise NotImplementedError

    def weight(self, data: Any, price: Tensor) -> Tensor:
        """Weight of each antenna's power [B, T, N]."""
        return self.base + torch.einsum("bl,bltn->btn", price, data.rows)

    def curve(self, data: Any, price: Tensor, uplink: Uplink, x: Tensor, sinr: Tensor, slope: Tensor) -> Curvature:
        """Second derivatives at prices [B, L] and uplink powers x [B, K]."""
        return curvature(uplink, self.weight(data, price), data.rows, x, sinr, slope)

    def newton_change(self, curve: Curvature, price: Tensor, slack: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Newton step of prices [B, L] and budget [B] for the residual `right` [B, L] of ``f_l + mu / m_l = 1``."""
        matrix = torch.diag_embed(slack / price) - curve.over_price
        change = torch.linalg.solve_ex(matrix, right.unsqueeze(-1))[0].squeeze(-1)
        return change, torch.zeros_like(change[:, 0])

    def step(self, data: Any, state: InteriorState) -> tuple[InteriorState, Tensor]:
        price, slack = state.price, state.slack
        uplink, x, sinr, slope = self.balance(data, state)
        curve = self.curve(data, price, uplink, x, sinr, slope)
        total = (price * slack).sum(-1, keepdim=True)
        excess = (curve.used + slack - 1).abs().amax(-1)
        scale = uplink.power(x).unsqueeze(-1)
        gap = (total / scale).squeeze(-1)
        centring = torch.where(excess <= 10 * gap, 0.05, 1.0).unsqueeze(-1)  # first feasibility, then complementarity
        aim = torch.maximum(centring * total, 0.1 * self.tolerance * scale) / price.shape[-1]
        change, more = self.newton_change(curve, price, slack, curve.used - 1 + aim / price)
        fill = (aim - slack * change) / price - slack
        length = torch.minimum(self.longest(state, change, more, scale), longest_step(slack, fill, 1 + slack))
        after = InteriorState(
            price + length * change,
            slack + length * fill,
            state.budget + length.squeeze(-1) * more,
            uplink.watts(x),
            torch.maximum(excess, gap),
            torch.fmax(state.bound, (scale - price.sum(-1, keepdim=True)).squeeze(-1)),
        )
        return after, self.value(data, price, uplink, x, sinr)

    def longest(self, state: InteriorState, change: Tensor, more: Tensor, scale: Tensor) -> Tensor:
        """Longest step [B, 1] in prices and budget."""
        return longest_step(state.price, change, 10 * (state.price + scale))

    def value(self, data: Any, price: Tensor, uplink: Uplink, x: Tensor, sinr: Tensor) -> Tensor:
        """The merit [B]: a bound on the utility."""
        raise NotImplementedError

    def verdict(self, data: Any, state: InteriorState, after: InteriorState, merit: Tensor, before: Tensor) -> Tensor:
        return torch.where(after.error <= self.tolerance, int(Status.CONVERGED), RUNNING)

    def attach(self, data: Any, state: InteriorState) -> InteriorState:
        """The prices with their derivatives: a Newton step for the used shares as functions of all other data."""
        uplink, x, sinr, slope = self.balance(data, state)
        with torch.no_grad():
            frozen = batching.tree_map(Tensor.detach, (uplink, x, sinr, slope))
            plain = batching.tree_map(Tensor.detach, data)
            curve = self.curve(plain, state.price, *frozen)
        used = self.used(data, uplink, self.weight(data, state.price), x, sinr)
        change, more = self.newton_change(curve, state.price, state.slack, used - used.detach())
        price = state.price + change
        return state._replace(price=price, budget=state.budget + more)

    def used(self, data: Any, uplink: Uplink, weight: Tensor, x: Tensor, sinr: Tensor) -> Tensor:
        """Used share of every limit [B, L]."""
        return self.shares_used(data, self.sent(uplink, weight, x, sinr), uplink.transmitter)

    def shares_used(self, data: Any, W: Tensor, serving: Tensor) -> Tensor:
        """Share of every limit [B, L] that the beams W [B, N, K] use."""
        power = squared_magnitude(W)
        sent = Streams(serving).sent_by(data.rows.shape[2]).to(power.dtype)
        return torch.einsum("bnk,btk,bltn->bl", power, sent, data.rows)

    def sent(self, uplink: Uplink, weight: Tensor, x: Tensor, sinr: Tensor) -> Tensor:
        """Beams [B, N, K] at balanced powers x."""
        root = weight.rsqrt()
        return uplink.beams(x, sinr) * torch.take_along_dim(root, uplink.transmitter.unsqueeze(-1), 1).mT

    def beams(self, data: Any, state: InteriorState) -> Tensor:
        uplink, x, sinr, _ = self.balance(data, state)
        return self.sent(uplink, self.weight(data, state.price), x, sinr)


def longest_step(value: Tensor, change: Tensor, rise: Tensor, fall: float | Tensor = 0.99) -> Tensor:
    """Longest step in (0, 1] [B, 1] where no value rises by more than `rise` or falls by more than a share `fall`."""
    down = torch.where(change < 0, -fall * value / change, torch.inf)
    up = torch.where(change > 0, rise / change, torch.inf)
    return torch.minimum(down, up).amin(-1, keepdim=True).clamp_max(1)


class LimitedTargets(NamedTuple):
    """Data of least power: the network, SINR targets [B, K], rows [B, L, T, N] of the limits, and the most total power
    that the limits allow [B]."""

    network: Network
    target: Tensor
    rows: Tensor
    most: Tensor


class PowerLimitedMinPower(InteriorPoint):
    """Least total power for SINR targets under limits of antennas, transmitters and the total; any network.

    An instance is INFEASIBLE if no power meets the targets, or if the dual bound on the least power exceeds the total
    power that the limits allow. The bound is a proof, and it is found whenever no beams are feasible.

    info:  dual [B, K] and price [B, L] (of power relative to the limit; first the total, then transmitters, then
           antennas, if limited), with ``sum noise dual - sum price`` = least power; duality_gap [B], relative.
    """

    capabilities = (Capability(TransmitPower, (Form.MULTICELL,), needs=(SinrAtLeast,), needs_one_of=LIMITS),)
    base = 1.0

    def prepare(self, problem: Problem, observation: Observation) -> LimitedTargets:
        rows = limit_rows(problem, observation.network)
        return LimitedTargets(
            observation.network,
            problem.get(SinrAtLeast).target.double(),
            rows,
            allowances(problem, observation.network)[1].double(),
        )

    def init(
        self, data: LimitedTargets, start: Tensor | None, generator: torch.Generator | None
    ) -> Sequence[InteriorState]:
        uplink = Uplink.of(data.network)
        x, found = balanced_powers(uplink, data.target, initial_powers(uplink, data.target, start).x)
        x = torch.where(found.unsqueeze(-1), x, torch.nan)  # infeasible without limits
        power = uplink.power(x)
        used = self.used(data, uplink, torch.ones_like(data.rows[:, 0]), x, data.target)
        price = (0.1 * power / used.shape[-1]).unsqueeze(-1).expand_as(used)
        slack = (1 - used).clamp_min(0.1)
        none = torch.full_like(power, torch.inf)
        return [InteriorState(price, slack, power, uplink.watts(x), none, torch.where(found, -none, none))]

    def balance(self, data: LimitedTargets, state: InteriorState) -> tuple[Uplink, Tensor, Tensor, Tensor]:
        uplink = Uplink.of(data.network, self.weight(data, state.price))
        with torch.no_grad():
            x, _ = balanced_powers(uplink, data.target, state.q * uplink.gain)
        if torch.is_grad_enabled():
            x = newton_step(uplink, data.target, x).x
        return uplink, x, data.target, torch.ones_like(x)

    def value(self, data: LimitedTargets, price: Tensor, uplink: Uplink, x: Tensor, sinr: Tensor) -> Tensor:
        return uplink.power(x) - price.sum(-1)

    def verdict(
        self, data: LimitedTargets, state: InteriorState, after: InteriorState, merit: Tensor, before: Tensor
    ) -> Tensor:
        verdict = super().verdict(data, state, after, merit, before)
        return torch.where(after.bound > data.most * (1 + 1e-9), int(Status.INFEASIBLE), verdict)

    def certify(self, data: LimitedTargets, network: Network, state: InteriorState, solution: Solution) -> Solution:
        tolerance = TOLERANCE[network.noise.dtype]
        met = (network.sinr(solution.W) >= data.target * (1 - tolerance)).all(-1)
        kept = (
            self.shares_used(data, solution.W.to(torch.complex128), network.streams.transmitter) <= 1 + tolerance
        ).all(-1)
        wrong = (solution.status <= Status.MAX_ITERATIONS) & ~(met & kept)
        status = torch.where(wrong, int(Status.NUMERICAL_FAILURE), solution.status)
        power, dual = network.transmit_power(solution.W).sum(-1), state.q.sum(-1) - state.price.sum(-1)
        gap = torch.where(status <= Status.MAX_ITERATIONS, (power - dual).abs() / power, torch.inf)
        info = {"dual": state.q / network.noise, "price": state.price, "duality_gap": gap}
        return replace(solution, status=status, info=info)


def balanced_powers(uplink: Uplink, target: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Powers [B, K] that meet the targets, by Newton's method from x, and whether they were found [B]."""
    moved = torch.full_like(x[:, 0], torch.inf)
    for _ in range(40):
        after = newton_step(uplink, target, x)
        x = after.x
        going = (after.moved > 1e-9) & ((after.moved > 1e-6) | (after.moved < moved))  # false for NaN
        moved = after.moved
        if not going.any():
            break
    return x, moved < 1e-6


class BalanceData(NamedTuple):
    """Data of the max-min problem: the network, rows [B, L, T, N] of the limits; the rest as in `MaxMinData`."""

    network: Network
    rows: Tensor
    target: Tensor
    weights: Tensor
    counted: Tensor


class PowerLimitedMaxMin(InteriorPoint):
    """Greatest common ``SINR_k / target_k`` or ``weights_k rate_k`` under any mix of power limits; globally optimal.

    At any prices m, the level that is balanced with a weighted power of ``sum m`` watts is an upper bound on the
    optimum; its minimum over m is the optimum. During the iteration a smaller budget is used, so that every iterate
    meets the limits; at the end the powers are balanced along the directions found. If interference alone decides
    (several transmitters, too few antennas, some powers far below their limits), the dual is flat, and rounding weakens
    the bound or stops the prices early: by a share of 1e-5 at 20 dB and 1e-3 at 40 dB; above that some instances fail.
    An instance ends with MAX_ITERATIONS if its level is below the bound by more than 1e-6 (1e-4 in single precision)
    for every user. Users without a channel or with weight zero are left out, as in `MaxMin`.

    info:  dual [B, K], price [B, L] (first the total, then transmitters, then antennas, if limited; they sum to one),
           and duality_gap [B]: relative distance from the bound at these prices to the level, the largest over users.
    """

    capabilities = tuple(Capability(goal, (Form.MULTICELL,), needs_one_of=LIMITS) for goal in (MinSinr, MinRate))

    def __init__(self, tolerance: float = 1e-7, max_iterations: int = 60) -> None:
        super().__init__(tolerance, max_iterations)

    def prepare(self, problem: Problem, observation: Observation) -> BalanceData:
        gain = Uplink.of(observation.network).gain
        return BalanceData(observation.network, limit_rows(problem, observation.network), *balance_of(problem, gain))

    def init(
        self, data: BalanceData, start: Tensor | None, generator: torch.Generator | None
    ) -> Sequence[InteriorState]:
        price = torch.full_like(data.rows[:, :, 0, 0], 1 / data.rows.shape[1])
        uplink = Uplink.of(data.network, self.weight(data, price))
        x = torch.where(data.counted, data.target, 0)
        none = torch.full_like(price[:, 0], torch.inf)
        return [
            InteriorState(price, torch.full_like(price, 0.1), 0.9 * torch.ones_like(none), uplink.watts(x), none, -none)
        ]

    def balance(self, data: BalanceData, state: InteriorState) -> tuple[Uplink, Tensor, Tensor, Tensor]:
        uplink = Uplink.of(data.network, self.weight(data, state.price))
        shares = MaxMinData(uplink, state.budget, data.target, data.weights, data.counted)
        method, level = MaxMin(), initial_state(shares, state.q)
        with torch.no_grad():
            level = balanced_state(method, shares, level)
        if torch.is_grad_enabled():
            level = method.step(shares, level)[0]
        x = torch.where(data.counted, level.log_x.exp(), 0)
        sinr = torch.where(data.counted, uplink.receive(x)[0], 1)
        return uplink, x, sinr, 1 / balanced(shares, sinr)[1]

    def newton_change(self, curve: Curvature, price: Tensor, slack: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        drift = curve.over_level / curve.power_over_level.unsqueeze(-1)  # of the used shares by a watt of budget
        matrix = torch.diag_embed(slack / price) - curve.over_price + drift.unsqueeze(-1) * curve.used.unsqueeze(-2)
        plain, up = torch.linalg.solve_ex(matrix, torch.stack([right, drift], -1))[0].unbind(-1)
        more = -plain.sum(-1) / up.sum(-1)  # the scale of the prices is free; they sum to one
        return plain + more.unsqueeze(-1) * up, more

    def longest(self, state: InteriorState, change: Tensor, more: Tensor, scale: Tensor) -> Tensor:
        budget = state.budget.unsqueeze(-1)
        prices = longest_step(state.price, change, 3 * state.price)
        return torch.minimum(prices, longest_step(budget, more.unsqueeze(-1), budget, 0.5))

    def step(self, data: BalanceData, state: InteriorState) -> tuple[InteriorState, Tensor]:
        after, merit = super().step(data, state)
        served = data.counted.any(-1)
        return batching.where(served, after, state._replace(error=torch.zeros_like(after.error))), merit

    def value(self, data: BalanceData, price: Tensor, uplink: Uplink, x: Tensor, sinr: Tensor) -> Tensor:
        return self.levels(data, sinr)[0]

    def levels(self, data: BalanceData, sinr: Tensor) -> tuple[Tensor, Tensor]:
        """Least and greatest ``SINR / target`` or weighted rate [B] of the users that are balanced."""
        rate = data.weights * spectral_efficiency(sinr)
        u = torch.where(data.weights > 0, rate, sinr / data.target)
        return torch.where(data.counted, u, torch.inf).amin(-1), torch.where(data.counted, u, 0).amax(-1)

    def beams(self, data: BalanceData, state: InteriorState) -> Tensor:
        uplink, x, sinr, _ = self.balance(data, state)
        weight = self.weight(data, state.price)
        W = self.sent(uplink, weight, x, sinr)
        most = self.shares_used(data, W, uplink.transmitter).amax(-1)
        W = W * torch.where(most > 0, torch.where(most > 0, most, 1).rsqrt(), 0)[:, None, None]
        power = squared_magnitude(W.detach())
        sent = Streams(uplink.transmitter).sent_by(data.rows.shape[2]).to(power.dtype)
        cost = torch.einsum("bnk,btk,bltn->blk", power, sent, data.rows)
        exact = Network(data.network.H.to(W.dtype), data.network.noise.double(), data.network.streams)
        with torch.no_grad():  # one, up to rounding, for any channels: no derivatives
            factor = balancing_factors(exact, W, cost, data.target, data.weights)
        return W * factor.sqrt().unsqueeze(-2)

    def certify(self, data: BalanceData, network: Network, state: InteriorState, solution: Solution) -> Solution:
        exact = Network(network.H.to(torch.complex128), network.noise.double(), network.streams)
        reached, _ = self.levels(data, exact.sinr(solution.W.to(torch.complex128)))
        sinr = self.balance(data, state._replace(budget=state.price.sum(-1)))[2]
        served = data.counted.any(-1)
        short, gap = (torch.where(served, bound / reached - 1, 0) for bound in self.levels(data, sinr))
        tolerance = max(10 * self.tolerance, TOLERANCE[network.noise.dtype])
        status = torch.where(short > tolerance, int(Status.MAX_ITERATIONS), solution.status)
        status = torch.where(gap <= tolerance, int(Status.CONVERGED), status)
        status = torch.where(gap < 0.1, status, int(Status.NUMERICAL_FAILURE))
        status = torch.where(solution.status <= Status.MAX_ITERATIONS, status, solution.status)
        return replace(
            solution, status=status, info={"dual": state.q / network.noise, "price": state.price, "duality_gap": gap}
        )


def initial_state(shares: MaxMinData, q: Tensor) -> MaxMinState:
    """The state of `MaxMin` from uplink powers q in watts [B, K]."""
    x = torch.where(shares.counted & (q > 0), q * shares.uplink.gain, shares.target)
    return MaxMinState(scaled_to_budget(shares, x.log()), torch.full_like(shares.limit, torch.inf))


def balanced_state(method: MaxMin, shares: MaxMinData, level: MaxMinState) -> MaxMinState:
    """Balanced powers to rounding, by Newton's method from `level`."""
    for _ in range(40):
        after, _ = method.step(shares, level)
        going = (after.spread > 1e-12) & ((after.spread > 1e-6) | (after.spread < level.spread))
        level = after
        if not going.any():
            break
    return level
