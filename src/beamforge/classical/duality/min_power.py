"""Least total power for SINR targets, by uplink-downlink duality: Newton's method on K powers, with a certificate.

Source: F. Rashid-Farrokhi, K. J. R. Liu, L. Tassiulas, "Transmit beamforming and power control for cellular wireless
systems", IEEE J. Sel. Areas Commun. 16 (1998) (the fixed point); A. Wiesel, Y. Eldar, S. Shamai, "Linear precoding via
conic optimization for fixed MIMO receivers", IEEE Trans. Signal Process. 54 (2006) (the dual problem).
Newton's method for the fixed point, in the powers and in their logarithms, is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from beamforge.classical.duality.uplink import Uplink
from beamforge.core import batching
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import SinrAtLeast, TotalPower
from beamforge.core.evaluate import TOLERANCE
from beamforge.core.network import Network
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.utilities import TransmitPower
from beamforge.optim.iterate import RUNNING, IterativeSolver, iterate


class MinPowerData(NamedTuple):
    """Data: the uplink, the SINR targets [B, K] and the power limit [B] (infinite if there is none)."""

    uplink: Uplink
    target: Tensor
    limit: Tensor


class MinPowerState(NamedTuple):
    """State: uplink powers x [B, K] (see `uplink`), their largest relative change in the last step [B] (infinite for a
    step in log x), and whether the targets could be met with the receivers of that step [B]."""

    x: Tensor
    moved: Tensor
    reachable: Tensor


class Newton(IterativeSolver):
    """Base of the Newton methods on the uplink: one start, and derivatives by one more step.

    tolerance  of the last step; the error of the result is about its square.

    The Jacobian of Newton's map is zero at its fixed point, so one differentiable step from there gives the exact
    derivative of the implicit function theorem.
    """

    def __init__(self, tolerance: float = 1e-6, max_iterations: int = 60) -> None:
        super().__init__(tolerance, max_iterations, "none", "implicit")

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        data, real = self.prepare(problem, observation), observation.network.noise.dtype
        with torch.no_grad():
            (state,) = self.init(data, start, generator)
            outcome = iterate(self, data, state)
        solved = outcome.status <= Status.MAX_ITERATIONS
        data = batching.where(solved, data, batching.tree_map(Tensor.detach, data))  # unsolved: no gradient
        if any(leaf.requires_grad for leaf in batching.leaves(data)):
            outcome = outcome._replace(state=self.attach(data, outcome.state))
        W = self.beams(data, outcome.state).to(observation.network.H.dtype)
        solution = Solution(W, outcome.status, outcome.iterations, outcome.trace.to(real))
        solution = self.certify(data, observation.network, outcome.state, solution)
        return replace(solution, info={name: value.to(real) for name, value in solution.info.items()})

    def attach(self, data: Any, state: Any) -> Any:
        """The fixed point with its derivatives."""
        return self.step(data, state)[0]

    def certify(self, data: Any, network: Network, state: Any, solution: Solution) -> Solution:
        """The solution with its final status, and its certificate as info."""
        return solution


class Duality(Newton):
    """Least total power for SINR targets; any network, any serving, O(K^2 N + T K^3) per instance and iteration.

    ::

        minimise sum_k |w_k|^2   subject to   SINR_k >= target_k   (and sum_k |w_k|^2 <= limit)

    The uplink powers ``q_k = target_k / (h_k^H (I + sum_{j != k} q_j h_j h_j^H)^-1 h_k)`` (noise one) have the same
    total. A Newton step solves for the powers that meet the targets with the current receivers; after the first such
    step powers decrease, with quadratic convergence. As long as no powers meet the targets with the current receivers,
    the step is taken in log q.

    An instance is INFEASIBLE if its targets cannot be met: a user has no channel, ``sum_k target_k/(1 + target_k) >=
    N`` (one transmitter), the least power exceeds the limit, or q exceeds the power without interference by a factor of
    about 1/rounding. The beams of solved instances are checked to meet their targets. Within about 1e-8 of the
    boundary of the feasible set, rounding decides.

    info:  dual [B, K]       the multipliers ``q_k / noise_k`` of the targets, ``sum_k noise_k dual_k`` = least power.
           duality_gap [B]   relative difference of primal and dual power, the certificate of optimality; infinite
                             for unsolved instances.

    >>> from beamforge.core.problem import Problem
    >>> network = Network.broadcast(torch.diag(torch.tensor([1.0, 2.0], dtype=torch.complex128)), noise=1.0)
    >>> solution = Duality().solve(Problem(TransmitPower(), (SinrAtLeast(4.0),)), network)
    >>> solution.W.abs().square().round(decimals=6)
    tensor([[4., 0.],
            [0., 1.]], dtype=torch.float64)
    """

    capabilities = (Capability(TransmitPower, (Form.MULTICELL,), needs=(SinrAtLeast,), allows=(TotalPower,)),)

    def prepare(self, problem: Problem, observation: Observation) -> MinPowerData:
        uplink = Uplink.of(observation.network)
        total = problem.find(TotalPower)
        limit = uplink.gain.new_full((uplink.gain.shape[0],), torch.inf) if total is None else total.limit
        return MinPowerData(uplink, problem.get(SinrAtLeast).target.double(), limit.double())

    def init(
        self, data: MinPowerData, start: Tensor | None, generator: torch.Generator | None
    ) -> Sequence[MinPowerState]:
        return [initial_powers(data.uplink, data.target, start)]

    def step(self, data: MinPowerData, state: MinPowerState) -> tuple[MinPowerState, Tensor]:
        return newton_step(data.uplink, data.target, state.x), data.uplink.power(state.x)

    def verdict(
        self, data: MinPowerData, state: MinPowerState, after: MinPowerState, merit: Tensor, before: Tensor
    ) -> Tensor:
        return newton_verdict(data.uplink, data.target, state, after, self.tolerance)

    def beams(self, data: MinPowerData, state: MinPowerState) -> Tensor:
        return data.uplink.beams(state.x, data.target)

    def certify(self, data: MinPowerData, network: Network, state: MinPowerState, solution: Solution) -> Solution:
        tolerance = TOLERANCE[network.noise.dtype]
        status = checked_status(data, network, solution, state.x)
        power, dual = network.transmit_power(solution.W).sum(-1), data.uplink.power(state.x)
        solved = status <= Status.MAX_ITERATIONS
        status = torch.where(solved & (power > data.limit * (1 + tolerance)), int(Status.INFEASIBLE), status)
        gap = torch.where(status <= Status.MAX_ITERATIONS, (power - dual).abs() / dual, torch.inf)
        multipliers = data.uplink.watts(state.x) / network.noise
        return replace(solution, status=status, info={"dual": multipliers, "duality_gap": gap})


def initial_powers(uplink: Uplink, target: Tensor, start: Tensor | None) -> MinPowerState:
    """Initial uplink powers: those of the beams `start`, or four times the powers without interference."""
    alone = 4 * target
    if start is not None:
        sent = (start.real.square() + start.imag.square()).sum(-2) * uplink.gain
        alone = torch.where(sent > 0, sent, alone)
    return MinPowerState(
        alone, torch.full_like(alone[:, 0], torch.inf), torch.zeros_like(alone[:, 0], dtype=torch.bool)
    )


def newton_step(uplink: Uplink, target: Tensor, x: Tensor) -> MinPowerState:
    """One Newton step on ``target = SINR(x)``: in x where the receivers at x can meet the targets, else in log x."""
    sinr, J, noise = uplink.receive(x)
    ratio = target / sinr
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    right = torch.stack([ratio - 1, ratio * noise], -1)
    change, powers = torch.linalg.solve_ex(eye - ratio.unsqueeze(-1) * J, right)[0].unbind(-1)
    reachable = (powers > 0).all(-1)  # M-matrix: powers exist that meet the targets with these receivers
    step = torch.where(change > -0.5, 1 + change, powers)  # equal up to rounding: use the more accurate one
    moved = torch.where(reachable, change.abs().amax(-1), torch.inf)
    if reachable.all():
        return MinPowerState(x * step, moved, reachable)
    balance = torch.diag_embed(J.sum(-1) + noise) - J  # I - J, computed accurately
    climb = torch.linalg.solve_ex(balance, ratio.log().unsqueeze(-1))[0].squeeze(-1)
    mean = climb.mean(-1, keepdim=True)  # J is almost stochastic here: the common level increases most
    climb = mean.abs().clamp_max(LONGEST_STEP) + (climb - mean).clamp(-LONGEST_STEP, LONGEST_STEP)
    return MinPowerState(x * torch.where(reachable.unsqueeze(-1), step, climb.exp()), moved, reachable)


LONGEST_STEP = 5.0
"""Largest change of the common level in a step in log x, and of each user relative to it."""


def newton_verdict(
    uplink: Uplink, target: Tensor, state: MinPowerState, after: MinPowerState, tolerance: float
) -> Tensor:
    """Verdict: converged when powers change by at most `tolerance`, or when rounding stops their decrease."""
    eps = torch.finfo(target.dtype).eps
    risen = uplink.power(after.x) >= uplink.power(state.x) * (1 - 4 * eps)
    stalled = state.reachable & after.reachable & risen
    lost = ~after.reachable & ~((state.x / target).amax(-1) < 0.01 / eps)
    lost = lost | (state.reachable & ~after.reachable)  # only possible by rounding, while powers grow to infinity
    lost = lost | (uplink.gain <= 0).any(-1)
    if uplink.H.shape[1] == 1:
        lost = lost | ((target / (1 + target)).sum(-1) >= uplink.H.shape[-1])
    verdict = torch.where(stalled | (after.moved <= tolerance), int(Status.CONVERGED), RUNNING)
    return torch.where(lost, int(Status.INFEASIBLE), verdict)


def checked_status(data: MinPowerData, network: Network, solution: Solution, x: Tensor) -> Tensor:
    """Status after a check of the beams: only beams that meet the targets are a solution."""
    exact = Network(network.H.to(torch.complex128), network.noise.double(), network.streams)
    sinr = exact.sinr(solution.W.to(torch.complex128))
    met = (sinr >= data.target * (1 - TOLERANCE[network.noise.dtype])).all(-1)
    far = ~((x / data.target).amax(-1) < 0.01 * torch.finfo(x.dtype).eps ** -0.5)
    unmet = torch.where(far, int(Status.INFEASIBLE), int(Status.NUMERICAL_FAILURE))
    return torch.where((solution.status <= Status.MAX_ITERATIONS) & ~met, unmet, solution.status)
