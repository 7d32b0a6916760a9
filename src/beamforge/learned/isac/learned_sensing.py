"""Base class of the learned methods: exact repair of the beams of all layers, and choice of the best."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from beamforge.classical.sum_rate.reduced_wmmse import doubled
from beamforge.core import batching
from beamforge.core.capability import Capability, Feature, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.sensing import SensingSnrAtLeast
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.core.utilities import SumRate
from beamforge.io.weights import Weights
from beamforge.learned.isac.barrier import barrier
from beamforge.learned.isac.isac_data import IsacData
from beamforge.learned.isac.power_split import Answer, fitted, repaired
from beamforge.learned.isac.streams import steered
from beamforge.learned.l2o.ascent import of_full_power

WEIGHT, LOSS_EDGE = 2e-3, 0.1
"""Weight of the barrier in the loss relative to the logarithm of the rate, and its relative margin (see `barrier`)."""


class LearnedSensing(Solver):
    """Base: data beams and sensing streams by networks, with an exact power split that meets all targets.

    A subclass supplies its name `model` and `walk`, the pairs (W, F) before and after each of its layers; it may refuse
    sizes by `check_size`, choose the pairs for the loss by `learning`, and state its iterations by `steps`. The
    beams of `solve` have no gradients.
    """

    capabilities = (
        Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower, SensingSnrAtLeast), handles=(Feature.SENSING,)),
    )
    differentiable = False
    model: ClassVar[str]

    def walk(self, data: IsacData) -> list[tuple[Tensor, Tensor]]:
        """Pairs of data beams W [B, N, K] and sensing streams F [B, N, M] of total power one."""
        raise NotImplementedError

    def check_size(self, K: int, N: int) -> None:
        """Raise `UnsupportedProblem` for numbers of users and antennas that the weights do not support."""

    def learning(self, found: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """The pairs that contribute to the loss."""
        return found[-1:]

    @property
    def steps(self) -> int:
        """Number of iterations."""
        return 0

    def filled(self, trained: Weights | None, checkpoint: str) -> None:
        """Load trained weights, if any; raise `ConfigError` if they do not fit."""
        if trained is None:
            return
        try:
            self.load_state_dict(trained.tensors)
        except RuntimeError:
            raise ConfigError(f"checkpoint must fit this version's {self.model}, got others in {checkpoint}") from None
        self.requires_grad_(False)

    @torch.no_grad()
    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        network, dtype = observation.network, observation.network.H.dtype
        self.check_size(network.users, network.antennas)
        wide_problem, wide = batching.tree_map(doubled, (problem, observation))
        data = IsacData.of(wide.network, wide_problem)
        best, trace = self.best(data)
        best = fitted(data, best, network.streams.count - network.users)
        power = wide_problem.get(TotalPower).limit
        W = (of_full_power(torch.cat([best.W, best.F], -1)) * power.sqrt()[:, None, None]).to(dtype)
        limit = problem.get(SensingSnrAtLeast)
        met = (limit.sensing_snr(W) >= limit.level * (1 - 4 * torch.finfo(dtype.to_real()).eps)).all(-1)
        status = torch.where(best.feasible & met, int(Status.CONVERGED), int(Status.INFEASIBLE))
        return Solution(W, status, torch.full_like(status, self.steps), trace.to(dtype.to_real()))

    def best(self, data: IsacData) -> tuple[Answer, Tensor]:
        """The best feasible pair of each instance after repair, and the best rate so far [B, pairs] in bits.

        The rate is zero before the first feasible pair; without any, the answer is the last pair.
        """
        streams = steered(data)
        answers = [repaired(data, W, F, streams) for W, F in self.walk(data)]
        rates = torch.stack([torch.where(each.feasible, each.rate, 0).nan_to_num(0) for each in answers], -1)
        last = torch.full_like(rates[:, 0], len(answers) - 1, dtype=torch.long)
        place = torch.where(rates.amax(-1) > 0, rates.argmax(-1), last)
        rows = torch.arange(len(place), device=place.device)
        chosen = Answer(*(torch.stack(each)[place, rows] for each in zip(*answers, strict=True)))
        return chosen, rates.cummax(-1).values / math.log(2)

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """``-log R - w sum_m phi(SNR_m / level_m - 1)``, averaged over layers and batch (Eqs. 30 and 31).

        R is the sum rate after the exact power split, and left out where that does not meet all targets; the barrier is
        that of the beams before it. With the logarithm, relative gains of all instances have equal weight.

        instance  a batch of the scenario or the training data `isac`.
        """
        data = IsacData.posed(instance)
        self.check_size(*data.H.shape[-2:])
        directed, losses, answers = steered(data), [], []
        for W, F in self.learning(self.walk(data)):
            answers.append(repaired(data, W, F, directed))
            missed = barrier(data.margins(torch.cat([W, F], -1)), LOSS_EDGE).value
            missed = torch.where(data.targets, missed, 0).sum(-1)
            rate = answers[-1].rate.clamp_min(torch.finfo(missed.dtype).tiny ** 0.5)
            losses.append(-torch.where(answers[-1].feasible, rate.log(), 0) - WEIGHT * missed)
        feasible = answers[-1].feasible.to(losses[-1].dtype)
        rate = (answers[-1].rate.detach() * feasible).sum() / feasible.sum().clamp_min(1) / math.log(2)
        return torch.stack(losses).mean(), {"sum_rate": rate, "feasible": feasible.mean()}
