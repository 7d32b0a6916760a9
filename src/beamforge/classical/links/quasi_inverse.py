"""Weighted sum rate of links where it is a convex problem in disguise, and told for each instance whether it is.

With ``F_lj = G_lj / G_ll`` off the diagonal, ``v_l = noise_l / G_ll`` and ``B = F + v 1^T / P``, all power spent, the
rates are ``log(z_l / (B~ z)_l)`` of ``z = (I + B) p`` and the quasi-inverse ``B~ = (I + B)^-1 B``. Where no entry of it
is negative, the weighted sum rate is concave in log z.

Source: C. W. Tan, "Wireless Network Optimization by Perron-Frobenius Theory", Found. Trends Netw. 9 (2015), Sec. 5.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.bounds import double
from beamforge.classical.links.starts import led
from beamforge.classical.links.wmmse import CAPABILITIES, LinkWMMSE, SharedPower
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.optim.iterate import IterativeSolver

FLOOR = 1e-3
"""Least share of an equal one from which a link is climbed."""


class Disguise(NamedTuple):
    """Data: links, their quasi-inverse [B, L, L], those that count [B, L], and whether it is non-negative [B]."""

    links: SharedPower
    inverse: Tensor
    counted: Tensor
    certified: Tensor


class QuasiInverse(IterativeSolver):
    """The optimum, with a proof, wherever the quasi-inverse ``B~`` has no negative entry; else a local optimum.

    Without regard to the signs of the powers the optimum is the fixed point of ::

        z_l <- a_l / sum_i a_i B~_il / (B~ z)_i,        p = (I - B~) z, scaled to the power P

    none of whose steps lowers the rate. Where all its powers are positive, that is it. Otherwise ``(B~ z)_l <= z_l``
    remains, a geometric program: convex in log z still, so that its only stationary point is the optimum, to which
    `LinkWMMSE` climbs. From there it climbs in the other instances, too, but to no more than a local optimum.
    Links that have no gain or no weight are sent nothing and left out. In double precision inside.

    ``info`` has ``certified`` [...], whether the quasi-inverse is non-negative and the answer therefore the optimum,
    and ``interior`` [...], whether the fixed point had positive powers.

    >>> from beamforge.core.named_problems import build_problem
    >>> from beamforge.scenarios.power_control import Weak
    >>> instance = Weak(links=3).sample(2, dtype=torch.complex128)
    >>> solution = QuasiInverse().solve(build_problem("sum-rate", instance.context), instance)
    >>> solution.info["certified"], solution.W.abs().square().sum((-2, -1)).round(decimals=6)
    (tensor([True, True]), tensor([2., 2.], dtype=torch.float64))
    """

    capabilities = CAPABILITIES

    def __init__(self, tolerance: float = 1e-13, max_iterations: int = 1000, acceleration: str = "squarem") -> None:
        super().__init__(tolerance, max_iterations, acceleration, "implicit")

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        dtype = observation.network.H.dtype
        problem, observation, start = double((problem, observation, start))
        data = self.prepare(problem, observation)
        with torch.no_grad():
            fixed = self.run(data, *self.init(data, start, generator))
            p = self.powers(data, fixed.state)
            interior = (p >= 0).all(-1)
            p = torch.where(p.isfinite().all(-1, keepdim=True), p, 0)  # of links in line there is no quasi-inverse
            p = p.maximum(data.counted * FLOOR / data.counted.sum(-1, keepdim=True).clamp_min(1))
            p = led(data.links, p.unsqueeze(1)).squeeze(1)
        climb = LinkWMMSE(self.tolerance, self.max_iterations)
        ended = climb.run(data.links, p.sqrt())
        W = climb.beams(data.links, ended.state).to(dtype)
        info = {"certified": data.certified, "interior": interior}
        trace = ended.trace.to(dtype.to_real())
        return Solution(W, ended.status, fixed.iterations + ended.iterations, trace, info)

    def prepare(self, problem: Problem, observation: Observation) -> Disguise:
        links = SharedPower.of(problem, observation.network)
        counted = (links.direct > 0) & (links.weights > 0)
        pairs = counted.unsqueeze(-1) & counted.unsqueeze(-2)
        direct = torch.where(counted, links.direct, 1).unsqueeze(-1)
        B = torch.where(pairs, (links.cross + 1) / direct, 0)
        eye = torch.eye(B.shape[-1], dtype=B.dtype, device=B.device)
        inverse = torch.linalg.solve_ex(eye + B, B)[0]
        rounding = 64 * torch.finfo(B.dtype).eps * inverse.abs().amax((-2, -1))
        return Disguise(links, inverse.clamp_min(0), counted, inverse.amin((-2, -1)) >= -rounding)

    def init(self, data: Disguise, start: Tensor | None, generator: torch.Generator | None) -> Sequence[Tensor]:
        return [torch.zeros_like(data.links.direct)]

    def step(self, data: Disguise, state: Tensor) -> tuple[Tensor, Tensor]:
        """The next log z, and the weighted rate at this one."""
        heard = (data.inverse @ state.exp().unsqueeze(-1)).squeeze(-1)
        heard = torch.where(data.counted, heard, 1)
        weights = data.links.weights * data.counted
        priced = ((weights / heard).unsqueeze(-2) @ data.inverse).squeeze(-2)
        z = torch.where(data.counted, (weights / torch.where(data.counted, priced, 1)), 1).log()
        z = torch.where(data.counted, z - z.amax(-1, keepdim=True), 0)
        return z, (weights * (state - heard.log())).sum(-1) / math.log(2)

    def powers(self, data: Disguise, state: Tensor) -> Tensor:
        """Shares [B, L] of a state; some may be negative."""
        z = state.exp()
        p = torch.where(data.counted, z - (data.inverse @ z.unsqueeze(-1)).squeeze(-1), 0)
        return p / p.sum(-1, keepdim=True)
