"""Weighted sum rate of links under one total power, by a sequence of geometric programs.

Source: M. Chiang, C. W. Tan, D. Palomar, D. O'Neill, D. Julian, "Power control by geometric programming", IEEE Trans.
Wireless Commun. 6 (2007), Sec. IV: single condensation. The power limit absorbed into the noise, which leaves programs
without constraints, and their solver are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.links.starts import spread
from beamforge.classical.links.wmmse import CAPABILITIES, SharedPower, attached, unit_power
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.optim.iterate import Outcome
from beamforge.optim.starts import SeveralStarts

NEWTON = 50
"""Newton steps of a geometric program at most; 4 to 8 are usual."""

LEAST = 1e-30
"""Share of the power below which a link is as good as off."""


class Program(NamedTuple):
    """``min sum_l w_l log(sum_j C_lj p_j) - sum_j b_j log p_j`` with ``sum b = sum w``: C [B, L, L], w and b [B, L].

    All of it positive but weights, which may be zero. The scale of p is free.
    """

    C: Tensor
    w: Tensor
    b: Tensor


class SuccessiveGP(SeveralStarts):
    """Successive convex approximation: all that a link receives is condensed to a monomial, again and again.

    With the noise scaled by the powers' sum (see `links`), ``I_l = sum_{j != l} A_lj p_j + sum_j p_j`` and ``T_l``,
    which has the link's own signal too, are posynomials. ``T_l`` is at least the monomial ``prod_j (term_j /
    alpha_lj)^alpha_lj``, alpha the share of each term at the powers at hand, where they are equal. What is left to
    minimise, ``prod_l (I_l / monomial_l)^a_l``, is a geometric program: convex in log p, solved by Newton's method. No
    step lowers the weighted sum rate.

    starts  how many of equal powers, then `spread`'s; each instance keeps its best. A `start` replaces them all.

    >>> from beamforge.core.named_problems import build_problem
    >>> from beamforge.scenarios.power_control import ThreeLinks
    >>> instance = ThreeLinks().sample(1, dtype=torch.complex128)
    >>> solution = SuccessiveGP().solve(build_problem("sum-rate", instance.context), instance)
    >>> solution.W.abs().square().squeeze(-2).round(decimals=3)
    tensor([[0.7420, 0.1910, 0.9170]], dtype=torch.float64)
    """

    capabilities = CAPABILITIES

    def __init__(
        self, tolerance: float = 1e-9, max_iterations: int = 1000, acceleration: str = "squarem", starts: int = 1
    ) -> None:
        super().__init__(tolerance, max_iterations, acceleration, starts, "implicit")

    def prepare(self, problem: Problem, observation: Observation) -> SharedPower:
        return SharedPower.of(problem, observation.network)

    def init(self, data: SharedPower, start: Tensor | None, generator: torch.Generator | None) -> Iterator[Tensor]:
        points = spread(data, self.starts, generator) if start is None else data.shares(start).unsqueeze(1)
        yield from points.sqrt().unbind(1)

    def step(self, data: SharedPower, state: Tensor) -> tuple[Tensor, Tensor]:
        p = unit_power(state).square().clamp_min(LEAST)
        received = data.interference(p.unsqueeze(1)).squeeze(1) + data.direct * p
        share = data.weights / received
        b = p * ((share.unsqueeze(1) @ (data.cross + 1)).squeeze(1) + data.direct * share)
        after = solve_program(Program(data.cross + 1, data.weights, b), p)
        return unit_power(after.sqrt()), data.rate(p.unsqueeze(1)).squeeze(1)

    def run(self, data: SharedPower, state: Tensor) -> Outcome:
        with torch.no_grad():
            outcome = super().run(data, state)
        return outcome._replace(state=attached(data, unit_power(outcome.state).square()).sqrt())

    def beams(self, data: SharedPower, state: Tensor) -> Tensor:
        return data.beams(unit_power(state).square())


def solve_program(program: Program, p: Tensor) -> Tensor:
    """The minimiser [B, L] of geometric programs, scaled to sum one, by damped Newton steps in ``x = log p``.

    The Hessian ``diag(S^T w) - S^T diag(w) S``, S [l, j] the share of p_j in row l, is singular along the scale of p,
    where it is filled up; it is solved scaled to a diagonal of one. The third derivative is at most the second times
    the range r of the direction (that of log-sum-exp is a third central moment), so that a step of length
    ``log(1 + r)/r`` always descends, and steps become full ones as they become small.

    p  where to start [B, L], positive.

    >>> program = Program(torch.tensor([[[1.0, 2.0], [2.0, 1.0]]]), torch.ones(1, 2), torch.ones(1, 2))
    >>> solve_program(program, torch.tensor([[0.9, 0.1]])).round(decimals=3)
    tensor([[0.5000, 0.5000]])
    """
    eps = torch.finfo(p.dtype).eps
    x, going = p.log(), torch.ones_like(p[:, 0], dtype=torch.bool)
    rounding = torch.diag_embed(torch.full_like(p, 16 * eps))
    for _ in range(NEWTON):
        terms = program.C * torch.softmax(x, -1).unsqueeze(-2)
        S = terms / terms.sum(-1, keepdim=True)
        weighted = S * program.w.unsqueeze(-1)
        rise = weighted.sum(-2)
        scale = torch.where(rise > 0, rise, 1).rsqrt()
        null = torch.nn.functional.normalize(1 / scale, dim=-1)
        H = (torch.diag_embed(rise) - S.mT @ weighted) * scale.unsqueeze(-1) * scale.unsqueeze(-2)
        factor, _ = torch.linalg.cholesky_ex(H + null.unsqueeze(-1) * null.unsqueeze(-2) + rounding)
        step = scale * torch.cholesky_solve(((program.b - rise) * scale).unsqueeze(-1), factor).squeeze(-1)
        reach = (step.amax(-1) - step.amin(-1)).clamp_min(eps)
        x = torch.where(going.unsqueeze(-1), x + (reach.log1p() / reach).unsqueeze(-1) * step, x)
        going = going & (reach > eps**0.5)  # not where it is NaN
        if not going.any():
            break
    return torch.softmax(x, -1)
