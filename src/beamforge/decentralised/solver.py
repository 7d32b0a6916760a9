"""DecentralisedSolver: a method whose base stations know their own channels alone, and say how they talk."""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.decentralised.backhaul import Backhaul, SharedMemory
from beamforge.decentralised.base_stations import BaseStations
from beamforge.decentralised.quantised import Quantised


class DecentralisedSolver(Solver):
    """Beams for an interference channel, each made by the base station that sends it.

    A method implements `beams`: what any S base stations of the K do, with what they know and what they hear. `solve`
    runs all of them in one process; `beamforge.decentralised.processes` runs each in its own, by the same code.

    ``info`` of a solution: ``scalars`` [B], numbers that base stations sent for an instance, and ``bits`` [B] of them.
    """

    message_bits: int | None = None
    """Bits of every number that base stations send: 4, 8, 16, or None for the channels' precision (`Quantised`)."""

    def beams(self, stations: BaseStations, backhaul: Backhaul) -> Tensor:
        """Beams [B, S, N] in sqrt(W), within the power of each base station."""
        raise NotImplementedError

    def over(self, backhaul: Backhaul) -> Backhaul:
        """The backhaul as this method uses it: with messages of `message_bits`."""
        return backhaul if self.message_bits is None else Quantised(backhaul, self.message_bits)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        backhaul = self.over(SharedMemory())
        W = self.beams(BaseStations.of(problem, observation.network), backhaul)
        return decided_alone(W, backhaul.scalars, backhaul.bits)


def decided_alone(W: Tensor, scalars: int, bits: int) -> Solution:
    """The solution of beams [B, K, N], and what the messages behind them cost: `bits` for the whole batch."""
    status = torch.full(W.shape[:1], int(Status.CONVERGED), device=W.device)
    each = torch.full_like(status, bits // max(1, len(W)))
    return Solution(
        W.mT, status, torch.ones_like(status), info={"scalars": torch.full_like(status, scalars), "bits": each}
    )
