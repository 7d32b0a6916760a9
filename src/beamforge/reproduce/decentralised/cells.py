"""Cells of the paper's Table 1: a number of base stations and an SNR, and the utilities of the methods there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from beamforge.bench.statistics import Values
from beamforge.classical.sum_rate.wmmse import MulticellWMMSE
from beamforge.core.evaluate import evaluate
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.problem import Problem
from beamforge.core.solver import Solver
from beamforge.registry import create
from beamforge.scenarios import Interference
from beamforge.scenarios.base import TEST_SEEDS

USERS = (2, 3, 4, 5, 6)
SNRS_DB = (-5, 0, 5, 10, 15, 20, 25)

SUM_RATE, MAX_MIN = "sum-rate", "max-min"

CHUNK = 500
"""Realisations in one batch."""


@dataclass(frozen=True)
class Cell:
    """K base stations of N antennas each, and the SNR."""

    users: int
    snr_db: float
    antennas: int = 8

    def sample(self, count: int, first: int = 0) -> Instance:
        """Held-out realisations."""
        scenario = Interference(cells=self.users, antennas=self.antennas, snr_db=float(self.snr_db))
        return scenario.sample(count, seed=TEST_SEEDS[0], first=first)


class Beamformer(Protocol):
    """Maps channels to beams."""

    def beams(self, problem: Problem, instance: Instance) -> Tensor:
        """W [B, N, K]."""
        raise NotImplementedError


@dataclass(frozen=True)
class Method:
    """A method of the registry, and its settings."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def beams(self, problem: Problem, instance: Instance) -> Tensor:
        """W [B, N, K]."""
        return self.solver(problem, instance).solve(problem, instance).W

    def solver(self, problem: Problem, instance: Instance) -> Solver:
        """The solver for this problem and network, with its weights loaded."""
        return create(problem, instance.truth, self.name, self.settings)


class WmmseFromZeroForcing:
    """WMMSE from zero forcing, until the sum rate changes by less than 1e-6: the paper's reference, converged."""

    def beams(self, problem: Problem, instance: Instance) -> Tensor:
        """W [B, N, K]."""
        start = Method("zf").beams(problem, instance)
        return MulticellWMMSE(tolerance=1e-6).solve(problem, instance, start=start).W


@dataclass(frozen=True)
class StoppedWmmse:
    """WMMSE stopped after some plain iterations from random beams of full power."""

    iterations: int

    def beams(self, problem: Problem, instance: Instance) -> Tensor:
        """W [B, N, K]."""
        full = Method("mrt").beams(problem, instance)
        drawn = torch.randn(full.shape, dtype=full.dtype, generator=torch.Generator().manual_seed(0))
        length = torch.linalg.vector_norm(full, dim=-2, keepdim=True)
        start = drawn * (length / torch.linalg.vector_norm(drawn, dim=-2, keepdim=True))
        solver = MulticellWMMSE(tolerance=0.0, max_iterations=self.iterations, acceleration="none")
        return solver.solve(problem, instance, start=start).W


def utilities(problem: str, methods: Mapping[str, Beamformer], cell: Cell, count: int) -> dict[str, Values]:
    """Utilities [count] of each method on the same held-out realisations of a cell."""
    found: dict[str, list[Values]] = {name: [] for name in methods}
    for first in range(0, count, CHUNK):
        instance = cell.sample(min(CHUNK, count - first), first)
        question = build_problem(problem, instance.context).bind(instance.truth)
        for name, method in methods.items():
            report = evaluate(question, instance, method.beams(question, instance))
            found[name].append(report.utility.double().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}
