"""Weighted sum rate of single-antenna links, each with a power limit of its own.

In units where every limit and every noise are one, with gains ``A_lj = G_lj P_j / noise_l`` and shares p of the limits,
``SINR_l = A_ll p_l / (sum_{j != l} A_lj p_j + 1)`` with ``0 <= p <= 1``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.links.balancing import amplitudes
from beamforge.classical.links.starts import handed_out, random_subsets
from beamforge.core import batching
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import PerAntennaPower, PerTransmitterPower
from beamforge.core.network import Network, own, spectral_efficiency, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.core.utilities import SumRate
from beamforge.optim.starts import SeveralStarts

CLIMB = 40
"""Plain steps from every start, after which the best are known; over-relaxed ones leap over good optima."""

FINALISTS = 8
"""Points that are followed to the end."""

CROWD = 2**14
"""Numbers in flight at once on a processor: what is made of this many stays within its cache."""

REST = 1e-3
"""Share of its limit with which a link starts that is off, so that it can come back.

At 20 dB and more a rest of some percent is loud: all starts then lead to the same few optima.
"""


class LimitedLinks(NamedTuple):
    """Data: gains A without their diagonal [B, L, L] (rx, tx), their diagonal [B, L], weights and limits [B, L]."""

    cross: Tensor
    direct: Tensor
    weights: Tensor
    limit: Tensor

    @classmethod
    def of(cls, problem: Problem, network: Network) -> LimitedLinks:
        """The data of a bound problem."""
        assert isinstance(problem.maximise, SumRate)
        limits = [each.limit for each in problem.subject_to if isinstance(each, PerTransmitterPower)]
        limits += [each.limit.squeeze(-1) for each in problem.subject_to if isinstance(each, PerAntennaPower)]
        limit = torch.stack(limits).amin(0)
        gains = network.gains * limit.unsqueeze(-2) / network.noise.unsqueeze(-1)
        itself = torch.eye(gains.shape[-1], dtype=torch.bool, device=gains.device)
        return cls(gains.masked_fill(itself, 0), own(gains), problem.maximise.weights, limit)

    def step(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """What WMMSE makes of any S points of amplitudes v [B, S, L], and their weighted sum rate [B, S]."""
        p, direct, weights = v.square(), self.direct.unsqueeze(-2), self.weights.unsqueeze(-2)
        interference = p @ self.cross.mT + 1
        signal = direct * p
        worth = weights / interference
        q = worth * (signal / (interference + signal))
        price = q @ self.cross + direct * q
        pull = worth * direct / torch.where(price > 0, price, 1)
        rate = (weights * spectral_efficiency(signal / interference)).sum(-1)
        return (v * pull).clamp_max(1), rate


class LimitedLinkWMMSE(SeveralStarts):
    """L links with a limit each, O(S L^2) an iteration from S starts and nothing inverted.

    With ``I_l`` interference and noise and ``T_l`` all that is received, WMMSE is a map of the amplitudes alone::

        v_l <- min(1, v_l a_l A_ll / (I_l sum_i q_i A_il)),     q_l = a_l A_ll p_l / (I_l T_l),     p = v^2

    The weighted sum rate never falls from one plain step to the next. Local optima differ in which links are switched
    off. So all starts climb side by side, and the best `FINALISTS` are followed to the end by extrapolated steps: all
    links at their limits, one link at its limit and the others faint, two links so, and random subsets of links. A
    symmetric network is thereby left by starts that are not symmetric.

    starts  how many. A `start` given to `solve` replaces them all.

    Source: Q. Shi, M. Razaviyayn, Z.-Q. Luo, C. He, "An iteratively weighted MMSE approach to distributed sum-utility
    maximization for a MIMO interfering broadcast channel", IEEE Trans. Signal Process. 59 (2011), Table I. The map of
    the amplitudes and the starts are ours.

    >>> network = Network.power_control(torch.ones(3, 3, dtype=torch.float64), noise=0.01)
    >>> solution = LimitedLinkWMMSE().solve(Problem(SumRate(), (PerTransmitterPower(1.0),)), network)
    >>> solution.W.abs().square().squeeze(-2).sum().round(decimals=6)  # one link alone
    tensor(1., dtype=torch.float64)
    """

    capabilities = (Capability(SumRate, (Form.POWER_CONTROL,), needs_one_of=(PerTransmitterPower, PerAntennaPower)),)

    def __init__(
        self,
        tolerance: float = 1e-10,
        max_iterations: int = 2000,
        acceleration: str = "squarem",
        starts: int = 128,
        gradient: str = "implicit",
    ) -> None:
        super().__init__(tolerance, max_iterations, acceleration, starts, gradient)

    def prepare(self, problem: Problem, observation: Observation) -> LimitedLinks:
        return LimitedLinks.of(problem, observation.network)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        data = self.prepare(problem, observation)
        (v,) = self.init(data, start, generator)
        outcome = self.run(data, v)  # which gives the optimum its derivatives
        return Solution(self.beams(data, outcome.state), outcome.status, outcome.iterations, outcome.trace)

    def init(self, data: LimitedLinks, start: Tensor | None, generator: torch.Generator | None) -> Iterator[Tensor]:
        """The best end of all starts, [B, L]."""
        if start is not None:
            yield (squared_magnitude(start).squeeze(-2) / data.limit).clamp_max(1).sqrt()
            return
        with torch.no_grad():
            B, L = data.direct.shape
            leaders = self.leaders(data, self.patterns(data, self.starts, generator))
            S = leaders.shape[1]
            many = batching.tree_map(lambda leaf: leaf.repeat_interleave(S, 0), data)
            ended = self.run(many, leaders.flatten(0, 1))
            best = ended.merit.reshape(B, S).nan_to_num(-torch.inf).argmax(-1)
            yield ended.state.reshape(B, S, L)[torch.arange(B, device=best.device), best]

    def patterns(self, data: LimitedLinks, count: int, generator: torch.Generator | None) -> Tensor:
        """Amplitudes [B, S, L] to start from; which links a pattern favours goes by their rates alone."""
        L = data.direct.shape[-1]
        on = torch.eye(L, dtype=data.direct.dtype, device=data.direct.device)
        first, second = torch.triu_indices(L, L, 1, device=on.device)
        pairs = (on[first] + on[second])[(first + second).argsort(stable=True)]  # those of the best links first
        chosen = torch.cat([torch.ones_like(on[:1]), on, pairs[: max(0, count // 2 - L - 1)]])[:count]
        if (more := count - len(chosen)) > 0:
            chosen = torch.cat([chosen, random_subsets(data.direct, more, generator)])
        return handed_out(data, chosen.clamp_min(REST)).sqrt()

    def leaders(self, data: LimitedLinks, v: Tensor) -> Tensor:
        """The best [B, F, L] of where points v [B, S, L] have come after some steps."""
        return climb(data, v, CLIMB, FINALISTS)

    def step(self, data: LimitedLinks, state: Tensor) -> tuple[Tensor, Tensor]:
        v, rate = data.step(state.unsqueeze(1))
        return v.squeeze(1), rate.squeeze(1)

    def admissible(self, data: LimitedLinks, state: Tensor) -> Tensor:
        return state.clamp(0, 1)

    def beams(self, data: LimitedLinks, state: Tensor) -> Tensor:
        return amplitudes(data.limit * state.square())


def climb(data: LimitedLinks, v: Tensor, steps: int, finalists: int) -> Tensor:
    """The best [B, F, L] of where points v [B, S, L] have come after plain steps, none of which lowers the rate."""
    together = max(1, CROWD // v[:1].numel()) if v.device.type == "cpu" else len(v)
    found = []
    for part in torch.arange(len(v), device=v.device).split(together):
        some, point = batching.take((data, v), part)
        for _ in range(steps):
            point, rate = some.step(point)
        leading = rate.nan_to_num(-torch.inf).topk(min(finalists, v.shape[1]), -1).indices
        found.append(torch.take_along_dim(point, leading.unsqueeze(-1), 1))
    return torch.cat(found)
