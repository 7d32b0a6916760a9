"""DecentralisedSolver: a method whose base stations know only their own channels and exchange messages."""

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
    """Beams for an interference channel, each computed by its own base station.

    A method implements `beams` for any S of the K base stations, from their local knowledge and received messages.
    `solve` runs all base stations in one process; `beamforge.decentralised.processes` runs the same code with a process
    for each.

    ``info`` of a solution: ``scalars`` [B], numbers sent by all base stations per instance, and ``bits`` [B].
    """

    message_bits: int | None = None
    """Bits per number sent: 4, 8, 16 (`Quantised`), or None for the precision of the channels."""

    def beams(self, stations: BaseStations, backhaul: Backhaul) -> Tensor:
        """Beams [B, S, N] in sqrt(W), within the power of each base station."""
        raise NotImplementedError

    def over(self, backhaul: Backhaul) -> Backhaul:
        """The backhaul with messages of `message_bits` bits."""
        return backhaul if self.message_bits is None else Quantised(backhaul, self.message_bits)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        backhaul = self.over(SharedMemory())
        W = self.beams(BaseStations.of(problem, observation.network), backhaul)
        return decided_alone(W, backhaul.scalars, backhaul.bits)


def decided_alone(W: Tensor, scalars: int, bits: int) -> Solution:
    """Solution with beams [B, K, N]; `scalars` sent per instance, `bits` sent for the whole batch."""
    status = torch.full(W.shape[:1], int(Status.CONVERGED), device=W.device)
    each = torch.full_like(status, bits // max(1, len(W)))
    return Solution(
        W.mT, status, torch.ones_like(status), info={"scalars": torch.full_like(status, scalars), "bits": each}
    )
