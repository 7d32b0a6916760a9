"""Base class of the learned methods: from beams and streams of every layer to the best that meets all targets."""

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
from beamforge.learned.isac.power_split import Answer, balanced, fitted, repaired
from beamforge.learned.isac.question import Question

WEIGHT, LOSS_EDGE = 2e-3, 0.1
"""Of the barrier in the loss, beside the logarithm of the rate; and the margin below which it is a parabola there."""


class LearnedSensing(Solver):
    """A map from users and targets to data beams and sensing streams, by networks.

    A method supplies `model`, its name, and `walk`: pairs (W, F) of a `Question`, the last one its answer. `check_size`
    may refuse a size, `learning` says which pairs the loss looks at, and `steps` counts iterations.
    """

    capabilities = (
        Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower, SensingSnrAtLeast), handles=(Feature.SENSING,)),
    )
    model: ClassVar[str]

    def walk(self, asked: Question) -> list[tuple[Tensor, Tensor]]:
        """Beams W [B, N, K] and streams F [B, N, M] of power one together."""
        raise NotImplementedError

    def check_size(self, K: int, N: int) -> None:
        """`UnsupportedProblem` for a size that the weights are not for."""

    def learning(self, found: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Those pairs that the loss looks at."""
        return found[-1:]

    @property
    def steps(self) -> int:
        """Iterations of an answer."""
        return 0

    def filled(self, trained: Weights | None, checkpoint: str) -> None:
        """Load trained weights, if there are any; `ConfigError` for those of another form."""
        if trained is None:
            return
        try:
            self.load_state_dict(trained.tensors)
        except RuntimeError:
            raise ConfigError(f"checkpoint must fit this version's {self.model}, got others in {checkpoint}") from None
        self.requires_grad_(False)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        network, dtype = observation.network, observation.network.H.dtype
        self.check_size(network.users, network.antennas)
        wide_problem, wide = batching.tree_map(doubled, (problem, observation))
        asked = Question.of(wide.network, wide_problem)
        best, trace = self.best(asked)
        best = fitted(asked, best, network.streams.count - network.users)
        W = torch.cat([best.W, best.F], -1) * wide_problem.get(TotalPower).limit.sqrt()[:, None, None]
        W = W.to(dtype)
        limit = problem.get(SensingSnrAtLeast)
        met = (limit.sensing_snr(W) >= limit.level * (1 - 4 * torch.finfo(dtype.to_real()).eps)).all(-1)
        status = torch.where(best.met & met, int(Status.CONVERGED), int(Status.INFEASIBLE))
        return Solution(W, status, torch.full_like(status, self.steps), trace.to(dtype.to_real()))

    def best(self, asked: Question) -> tuple[Answer, Tensor]:
        """The best repaired pair of each instance, and the rates [B, pairs] in bits of the best one so far.

        Zero stands for none that meets all targets; where there is none in the end, the last pair is the answer.
        """
        streams = balanced(asked)
        answers = [repaired(asked, W, F, streams) for W, F in self.walk(asked)]
        rates = torch.stack([torch.where(each.met, each.rate, 0).nan_to_num(0) for each in answers], -1)
        last = torch.full_like(rates[:, 0], len(answers) - 1, dtype=torch.long)
        place = torch.where(rates.amax(-1) > 0, rates.argmax(-1), last)
        rows = torch.arange(len(place), device=place.device)
        chosen = Answer(*(torch.stack(each)[place, rows] for each in zip(*answers, strict=True)))
        return chosen, rates.cummax(-1).values / math.log(2)

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """``-log R - w sum_m phi(SNR_m / level_m - 1)``, the mean over layers and batch (Eqs. 30 and 31).

        R is the rate after the power was divided exactly, where that meets all targets, and else the plain one; the
        barrier looks at the plain pair. The logarithm makes a percent of every instance count the same.

        instance  of the scenario or the training data `isac`.
        """
        asked = Question.posed(instance)
        self.check_size(*asked.H.shape[-2:])
        streams = balanced(asked)
        losses, answer = [], None
        for W, F in self.learning(self.walk(asked)):
            answer = repaired(asked, W, F, streams)
            missed = barrier(asked.sensed(torch.cat([W, F], -1)) - 1, LOSS_EDGE).value
            missed = torch.where(asked.targets, missed, 0).sum(-1)
            rate = answer.rate.clamp_min(torch.finfo(answer.rate.dtype).tiny ** 0.5)
            losses.append(-rate.log() - WEIGHT * missed)
        assert answer is not None
        met = answer.met.to(answer.rate)
        figures = {"sum_rate": (answer.rate * met).sum() / met.sum().clamp_min(1) / math.log(2), "met": met.mean()}
        return torch.stack(losses).mean(), {name: value.detach() for name, value in figures.items()}
