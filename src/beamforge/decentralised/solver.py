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


class DecentralisedSolver(Solver):
    """Beams for an interference channel, each made by the base station that sends it.

    A method implements `beams`: what any S base stations of the K do, with what they know and what they hear. `solve`
    runs all of them in one process; `beamforge.decentralised.processes` runs each in its own, by the same code.
    """

    def beams(self, stations: BaseStations, backhaul: Backhaul) -> Tensor:
        """Beams [B, S, N] in sqrt(W), within the power of each base station."""
        raise NotImplementedError

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        W = self.beams(BaseStations.of(problem, observation.network), SharedMemory()).mT
        status = torch.full(W.shape[:1], int(Status.CONVERGED), device=W.device)
        return Solution(W, status, torch.ones_like(status))
