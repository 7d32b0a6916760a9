"""Max-min SINRs or rates under a total power limit, solved on the virtual uplink by Newton's method.

Source: M. Schubert, H. Boche, IEEE Trans. Veh. Technol. 53 (2004), Sec. III (the balanced fixed point and its duality).
The Newton step in log powers, with the common level as a further unknown, is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.duality.min_power import Newton
from beamforge.classical.duality.uplink import Uplink
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.network import Network, spectral_efficiency, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.utilities import MinRate, MinSinr
from beamforge.optim.iterate import RUNNING


class MaxMinData(NamedTuple):
    """Data: the uplink, the total power [B], targets and weights [B, K], and the users that are balanced [B, K]. The
    balanced quantity is ``log(SINR/target)`` where weights are 0, else ``weights log2(1 + SINR)``."""

    uplink: Uplink
    limit: Tensor
    target: Tensor
    weights: Tensor
    counted: Tensor


class MaxMinState(NamedTuple):
    """State: log uplink powers [B, K] (see `uplink`), and the spread of the balanced quantity at the last step [B]."""

    log_x: Tensor
    spread: Tensor


class MaxMin(Newton):
    """Greatest common ``SINR_k / target_k`` or ``weights_k rate_k`` under a total power limit; globally optimal.

    ::

        maximise min_k u_k(SINR_k)   subject to   sum_k |w_k|^2 <= limit,     u = log(SINR/target) or weights·rate

    Serves any network and any serving. On the uplink with powers q and the best receivers, Newton's method solves
    ``u_k(SINR_k(q)) = t`` for all k and ``sum q = limit`` in (log q, t). At every q the optimal level lies between the
    least and the greatest u_k, so their spread certifies the result.

    Users without a channel or with weight zero are left out and get no power: the utility is then 0, and the other
    users get the solution without them.

    info:  dual [B, K]  uplink powers over noise.     spread [B]  greatest minus least u_k (for rates: relative).

    >>> from beamforge.core.problem import Problem
    >>> network = Network.broadcast(torch.diag(torch.tensor([1.0, 2.0], dtype=torch.complex128)), noise=1.0)
    >>> solution = MaxMin().solve(Problem(MinSinr(1.0), (TotalPower(5.0),)), network)
    >>> network.sinr(solution.W).round(decimals=6)
    tensor([4., 4.], dtype=torch.float64)
    """

    capabilities = tuple(Capability(goal, (Form.MULTICELL,), needs=(TotalPower,)) for goal in (MinSinr, MinRate))

    def prepare(self, problem: Problem, observation: Observation) -> MaxMinData:
        uplink = Uplink.of(observation.network)
        return MaxMinData(uplink, problem.get(TotalPower).limit.double(), *balance_of(problem, uplink.gain))

    def init(self, data: MaxMinData, start: Tensor | None, generator: torch.Generator | None) -> Sequence[MaxMinState]:
        uplink = data.uplink
        x = data.target
        if start is not None:
            sent = (start.real.square() + start.imag.square()).sum(-2) * uplink.gain
            x = torch.where(sent > 0, sent, x)
        spread = torch.full_like(data.limit, torch.inf)
        return [MaxMinState(scaled_to_budget(data, x.log()), spread)]

    def step(self, data: MaxMinData, state: MaxMinState) -> tuple[MaxMinState, Tensor]:
        x = torch.where(data.counted, state.log_x.exp(), 0)
        sinr, J, noise = data.uplink.receive(x)
        sinr = torch.where(data.counted, sinr, 1)
        u, slope = balanced(data, sinr)  # slope: d u / d log SINR
        off = torch.where(data.counted, 0.0, 1.0)
        J = torch.nan_to_num(J) * (data.counted.unsqueeze(-1) & data.counted.unsqueeze(-2))
        balance = torch.diag_embed(J.sum(-1) + torch.where(data.counted, noise, 0) + off) - J
        right = torch.stack([u / slope, 1 / slope], -1) * data.counted.unsqueeze(-1)
        back, up = torch.linalg.solve_ex(balance, right)[0].unbind(-1)
        watts = data.uplink.watts(x)
        missing = data.limit - watts.sum(-1)  # its value is rounding; its derivatives are needed
        level = ((watts * back).sum(-1) + missing) / (watts * up).sum(-1)
        change = level.unsqueeze(-1) * up - back
        after = scaled_to_budget(data, state.log_x + change.clamp(-LONGEST_STEP, LONGEST_STEP))
        highest = torch.where(data.counted, u, -torch.inf).amax(-1)
        lowest = torch.where(data.counted, u, torch.inf).amin(-1)
        relative = torch.where((data.weights > 0).any(-1), highest.abs(), 1)
        spread = torch.where(data.counted.any(-1), (highest - lowest) / relative, 0)
        return MaxMinState(after, spread), torch.where((data.weights > 0).any(-1), lowest, lowest.exp())

    def verdict(
        self, data: MaxMinData, state: MaxMinState, after: MaxMinState, merit: Tensor, before: Tensor
    ) -> Tensor:
        stalled = (after.spread < 1e-6) & (after.spread >= state.spread)  # rounding forbids a smaller spread
        return torch.where((after.spread <= self.tolerance) | stalled, int(Status.CONVERGED), RUNNING)

    def beams(self, data: MaxMinData, state: MaxMinState) -> Tensor:
        x = torch.where(data.counted, state.log_x.exp(), 0)
        sinr = torch.where(data.counted, data.uplink.receive(x)[0], 1)
        W = data.uplink.beams(x, sinr)
        spent = squared_magnitude(W).sum((-2, -1))  # the limit, up to rounding that nearly parallel users amplify
        return W * torch.where(spent > 0, data.limit / torch.where(spent > 0, spent, 1), 1).sqrt()[:, None, None]

    def certify(self, data: MaxMinData, network: Network, state: MaxMinState, solution: Solution) -> Solution:
        dual = data.uplink.watts(torch.where(data.counted, state.log_x.exp(), 0)) / network.noise
        return replace(solution, info={"dual": dual, "spread": state.spread})


LONGEST_STEP = 3.0
"""Largest change of a log power in one step."""


def balance_of(problem: Problem, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Targets, weights (0: SINRs are balanced) and the users that are balanced, [B, K], of a max-min problem."""
    goal = problem.maximise
    if isinstance(goal, MinSinr):
        return goal.target.double(), torch.zeros_like(gain), gain > 0
    assert isinstance(goal, MinRate)
    return torch.ones_like(gain), goal.weights.double(), (gain > 0) & (goal.weights > 0)


def balanced(data: MaxMinData, sinr: Tensor) -> tuple[Tensor, Tensor]:
    """The balanced quantity u [B, K] and its derivative with respect to log SINR."""
    rated = data.weights > 0
    weights = torch.where(rated, data.weights, 1)
    u = torch.where(rated, weights * spectral_efficiency(sinr), (sinr / data.target).log())
    return u, torch.where(rated, weights / math.log(2) * sinr / (1 + sinr), 1)


def scaled_to_budget(data: MaxMinData, log_x: Tensor) -> Tensor:
    """Log powers [B, K] shifted such that the total power equals the limit."""
    spent = data.uplink.power(torch.where(data.counted, log_x.exp(), 0)).unsqueeze(-1)
    return log_x + torch.where(spent > 0, data.limit.unsqueeze(-1) / spent, 1).log()
