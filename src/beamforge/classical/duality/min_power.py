"""Least total power for SINR targets, by uplink-downlink duality: K numbers, Newton's method, and a certificate.

Source: F. Rashid-Farrokhi, K. J. R. Liu, L. Tassiulas, "Transmit beamforming and power control for cellular wireless
systems", IEEE J. Sel. Areas Commun. 16 (1998) (the fixed point); A. Wiesel, Y. Eldar, S. Shamai, "Linear precoding via
conic optimization for fixed MIMO receivers", IEEE Trans. Signal Process. 54 (2006) (its dual meaning).
Newton's method on it, in the powers and in their logarithms, is ours.
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


class Targets(NamedTuple):
    """Data: the uplink, the SINR targets [B, K] and the most power [B] (infinite where there is no limit)."""

    uplink: Uplink
    target: Tensor
    limit: Tensor


class Powers(NamedTuple):
    """State: uplink powers x [B, K] (see `uplink`), and how they were come by: the largest relative change [B]
    (infinite for a step in log x) and whether the receivers before could meet the targets at all [B]."""

    x: Tensor
    moved: Tensor
    reachable: Tensor


class Newton(IterativeSolver):
    """Base of the methods that are Newton's on the uplink: one start, and derivatives by one more step.

    tolerance  of the last step, of which the result is the square away from the optimum.

    Newton's map has a zero Jacobian at its fixed point, so a single differentiable step from there carries the whole
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
        data = batching.where(solved, data, batching.tree_map(Tensor.detach, data))  # no gradient from what has none
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
    """Least total power for SINR targets; any network, any serving, O(K^2 N + T K^3) an instance and iteration.

    ::

        minimise sum_k |w_k|^2   subject to   SINR_k >= target_k   (and sum_k |w_k|^2 <= limit)

    The uplink powers ``q_k = target_k / (h_k^H (I + sum_{j != k} q_j h_j h_j^H)^-1 h_k)`` (noise one) have the same
    total. Newton's step fixes the receivers and solves for the powers that meet the targets with them; from there on
    powers only fall, quadratically. While no powers can do with the receivers at hand, the step is taken in log q.

    An instance is INFEASIBLE if its targets cannot be met: because a user has no channel, because ``sum_k target_k/(1 +
    target_k) >= N`` (one transmitter), because the least power exceeds the limit, or because q outgrows what a user
    would need alone by 1/rounding. Beams are looked at before they are handed out, so that a solved instance is proof
    of itself; within about 1e-8 of the edge of what is feasible rounding decides.

    info:  dual [B, K]       the multipliers ``q_k / noise_k`` of the targets, ``sum_k noise_k dual_k`` = least power.
           duality_gap [B]   relative difference of primal and dual power, the certificate of optimality; infinite
                             where nothing was found.

    >>> from beamforge.core.problem import Problem
    >>> network = Network.broadcast(torch.diag(torch.tensor([1.0, 2.0], dtype=torch.complex128)), noise=1.0)
    >>> solution = Duality().solve(Problem(TransmitPower(), (SinrAtLeast(4.0),)), network)
    >>> solution.W.abs().square().round(decimals=6)
    tensor([[4., 0.],
            [0., 1.]], dtype=torch.float64)
    """

    capabilities = (Capability(TransmitPower, (Form.MULTICELL,), needs=(SinrAtLeast,), allows=(TotalPower,)),)

    def prepare(self, problem: Problem, observation: Observation) -> Targets:
        uplink = Uplink.of(observation.network)
        total = problem.find(TotalPower)
        limit = uplink.gain.new_full((uplink.gain.shape[0],), torch.inf) if total is None else total.limit
        return Targets(uplink, problem.get(SinrAtLeast).target.double(), limit.double())

    def init(self, data: Targets, start: Tensor | None, generator: torch.Generator | None) -> Sequence[Powers]:
        return [first_powers(data.uplink, data.target, start)]

    def step(self, data: Targets, state: Powers) -> tuple[Powers, Tensor]:
        return approach(data.uplink, data.target, state.x), data.uplink.power(state.x)

    def verdict(self, data: Targets, state: Powers, after: Powers, merit: Tensor, before: Tensor) -> Tensor:
        return newton_verdict(data.uplink, data.target, state, after, self.tolerance)

    def beams(self, data: Targets, state: Powers) -> Tensor:
        return data.uplink.beams(state.x, data.target)

    def certify(self, data: Targets, network: Network, state: Powers, solution: Solution) -> Solution:
        tolerance = TOLERANCE[network.noise.dtype]
        status = judge(data, network, solution, state.x)
        power, dual = network.transmit_power(solution.W).sum(-1), data.uplink.power(state.x)
        solved = status <= Status.MAX_ITERATIONS
        status = torch.where(solved & (power > data.limit * (1 + tolerance)), int(Status.INFEASIBLE), status)
        gap = torch.where(status <= Status.MAX_ITERATIONS, (power - dual).abs() / dual, torch.inf)
        multipliers = data.uplink.watts(state.x) / network.noise
        return replace(solution, status=status, info={"dual": multipliers, "duality_gap": gap})


def first_powers(uplink: Uplink, target: Tensor, start: Tensor | None) -> Powers:
    """Uplink powers to begin from: those of the beams `start`, or four times what each user would need alone."""
    alone = 4 * target
    if start is not None:
        sent = (start.real.square() + start.imag.square()).sum(-2) * uplink.gain
        alone = torch.where(sent > 0, sent, alone)
    return Powers(alone, torch.full_like(alone[:, 0], torch.inf), torch.zeros_like(alone[:, 0], dtype=torch.bool))


def approach(uplink: Uplink, target: Tensor, x: Tensor) -> Powers:
    """One Newton step on ``target = SINR(x)``: in x where the receivers at x can meet the targets, else in log x."""
    sinr, J, noise = uplink.receive(x)
    ratio = target / sinr
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    right = torch.stack([ratio - 1, ratio * noise], -1)
    change, powers = torch.linalg.solve_ex(eye - ratio.unsqueeze(-1) * J, right)[0].unbind(-1)
    reachable = (powers > 0).all(-1)  # an M-matrix: with these receivers powers exist that meet the targets
    step = torch.where(change > -0.5, 1 + change, powers)  # equal but for rounding: each where it keeps its digits
    moved = torch.where(reachable, change.abs().amax(-1), torch.inf)
    if reachable.all():
        return Powers(x * step, moved, reachable)
    balance = torch.diag_embed(J.sum(-1) + noise) - J  # I - J, without its rounding
    climb = torch.linalg.solve_ex(balance, ratio.log().unsqueeze(-1))[0].squeeze(-1)
    mean = climb.mean(-1, keepdim=True)  # J is almost stochastic here: the level moves far, and up, the balance little
    climb = mean.abs().clamp_max(STRIDE) + (climb - mean).clamp(-STRIDE, STRIDE)
    return Powers(x * torch.where(reachable.unsqueeze(-1), step, climb.exp()), moved, reachable)


STRIDE = 5.0
"""Most that a step in log x changes the level of all users, and each user beside it."""


def newton_verdict(uplink: Uplink, target: Tensor, state: Powers, after: Powers, tolerance: float) -> Tensor:
    """Verdict: converged when powers move by at most `tolerance`, or when powers that should fall no longer do."""
    eps = torch.finfo(target.dtype).eps
    risen = uplink.power(after.x) >= uplink.power(state.x) * (1 - 4 * eps)
    stalled = state.reachable & after.reachable & risen
    lost = ~after.reachable & ~((state.x / target).amax(-1) < 0.01 / eps)
    lost = lost | (state.reachable & ~after.reachable)  # cannot be but for rounding, on the way to infinity
    lost = lost | (uplink.gain <= 0).any(-1)
    if uplink.H.shape[1] == 1:
        lost = lost | ((target / (1 + target)).sum(-1) >= uplink.H.shape[-1])
    verdict = torch.where(stalled | (after.moved <= tolerance), int(Status.CONVERGED), RUNNING)
    return torch.where(lost, int(Status.INFEASIBLE), verdict)


def judge(data: Targets, network: Network, solution: Solution, x: Tensor) -> Tensor:
    """Status after looking at the beams: only beams that meet the targets are a solution."""
    exact = Network(network.H.to(torch.complex128), network.noise.double(), network.streams)
    sinr = exact.sinr(solution.W.to(torch.complex128))
    met = (sinr >= data.target * (1 - TOLERANCE[network.noise.dtype])).all(-1)
    far = ~((x / data.target).amax(-1) < 0.01 * torch.finfo(x.dtype).eps ** -0.5)
    unmet = torch.where(far, int(Status.INFEASIBLE), int(Status.NUMERICAL_FAILURE))
    return torch.where((solution.status <= Status.MAX_ITERATIONS) & ~met, unmet, solution.status)
