"""The best of many local optima of the weighted sum rate of links, all climbed at once."""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.classical.links.starts import handed_out, led, patterns
from beamforge.classical.links.wmmse import CAPABILITIES, LinkWMMSE, SharedPower, ascend
from beamforge.core import batching
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.core.solver import Solver
from beamforge.optim.starts import at_least_one

SCOUTING = 40
"""Plain steps from every start, after which the best are known."""

FINALISTS = 4
"""Points that are climbed to the end."""

CROWD = 2**19
"""Numbers in flight at once: what is made of this many stays within a processor's cache."""


class ManyStarts(Solver):
    """The best local optimum of `starts`, for links that share one total power: no certificate, but seldom beaten.

    Every start (see `spread`) is climbed some way by `LinkWMMSE`'s map, all of an instance's in one matrix product; the
    leaders go on to the end. A `start` given to `solve` joins them.

    starts          how many.
    tolerance       relative change of the utility at which a leader stops.
    max_iterations  map evaluations after which a leader is stopped.

    >>> from beamforge.scenarios.power_control import ThreeLinks
    >>> from beamforge.core.named_problems import build_problem
    >>> instance = ThreeLinks().sample(1, dtype=torch.complex128)
    >>> solution = ManyStarts().solve(build_problem("sum-rate", instance.context), instance)
    >>> solution.W.abs().square().squeeze(-2).round(decimals=3)
    tensor([[0.7420, 0.1910, 0.9170]], dtype=torch.float64)
    """

    capabilities = CAPABILITIES

    def __init__(self, starts: int = 100, tolerance: float = 1e-13, max_iterations: int = 2000) -> None:
        super().__init__()
        self.starts = at_least_one(starts)
        self.finish = LinkWMMSE(tolerance, max_iterations)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        data = self.finish.prepare(problem, observation)
        ranked = patterns(data, self.starts, generator)
        known = data.direct[:, None][:, :0] if start is None else data.shares(start).unsqueeze(1)
        parts = torch.arange(len(known), device=known.device).split(max(1, CROWD // ranked.numel()))
        with torch.no_grad():
            found = [self.search(*batching.take((data, known), part), ranked) for part in parts]
            v, spent = (torch.cat(leaf) for leaf in zip(*found, strict=True))
        outcome = self.finish.run(data, v)  # which gives the optimum its derivatives
        W = self.finish.beams(data, outcome.state)
        return Solution(W, outcome.status, spent + outcome.iterations, outcome.trace)

    def search(self, data: SharedPower, known: Tensor, ranked: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitudes [B, L] of the best end, and the iterations [B] from where its scout was, for some instances."""
        leaders = scout(data, torch.cat([known, led(data, handed_out(data, ranked))], 1).sqrt())
        B, F, _ = leaders.shape
        many = batching.tree_map(lambda leaf: leaf.repeat_interleave(F, 0), data)
        ended = self.finish.run(many, leaders.flatten(0, 1))
        best = ended.merit.reshape(B, F).nan_to_num(-torch.inf).argmax(-1)
        winner = batching.take(ended, best + F * torch.arange(B, device=best.device))
        return winner.state, winner.iterations


def scout(data: SharedPower, v: Tensor) -> Tensor:
    """Where the leaders [B, F, L] among points v [B, S, L] have come after some plain steps."""
    for _ in range(SCOUTING):
        v, rate = ascend(data, v)
    leading = rate.nan_to_num(-torch.inf).topk(min(FINALISTS, v.shape[1]), -1).indices
    return torch.take_along_dim(v, leading.unsqueeze(-1), 1)
