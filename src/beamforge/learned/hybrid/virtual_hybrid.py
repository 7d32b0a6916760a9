"""Beams of least power under an outage constraint by virtual channels, and the base class of such methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from beamforge.classical.hybrid.digital import Digital, digital_beams
from beamforge.core import batching
from beamforge.core.beams import Factors
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.errors import ConfigError
from beamforge.core.hybrid import AnalogCodebook, MeanSinrOutage
from beamforge.core.instance import Instance
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.core.utilities import TransmitPower
from beamforge.io.weights import trained_weights
from beamforge.learned.hybrid.estimates import Estimates, of_instance, of_problem
from beamforge.learned.hybrid.graph_convolution import GraphNetwork
from beamforge.learned.hybrid.outage_training import OutageTraining
from beamforge.learned.hybrid.virtual_channels import (
    FEATURES,
    START,
    Virtual,
    channel_gain,
    channel_shift,
    virtual_channels,
)

SHARES = (0.5, 0.25, 0.0)
"""Shares of the floors of virtual channels that are tried where the whole floors leave no beams."""

ARRAY = (8, 4)
"""Columns and rows of the array of the training."""


class Built(NamedTuple):
    """Hybrid beams ``A B diag(sqrt p)``: A [B, N, M], its codewords [B, M] (None without a codebook), and the digital
    beams for virtual channels."""

    analog: Tensor
    codewords: Tensor | None
    digital: Digital

    def limited(self, limit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """p [B, K] scaled down to the power limit [B], the power [B], and W [B, N, K]; all 0 where infeasible."""
        feasible = self.digital.feasible
        cost = torch.where(feasible, self.digital.cost, 1)
        scale = (limit / cost).clamp_max(1)
        p = torch.where(feasible.unsqueeze(-1), self.digital.p, 1) * scale.unsqueeze(-1)
        W = self.analog @ (self.digital.beams * p.sqrt().unsqueeze(-2))
        return p * feasible.unsqueeze(-1), cost * scale * feasible, W * feasible[:, None, None]


class VirtualHybrid(Solver):
    """Base class: a network gives virtual channels, for which analog and digital beams are then chosen.

    checkpoint   "shipped", "random" (untrained), or a file that `beamforge train` wrote.
    outage       nominal outage of a training; otherwise the weights determine it.
    constraint   form of the outage constraint in a training: "annealed" or "quantile".
    width        of a random graph network; otherwise the weights determine it, as the next two.
    layers       of the same.
    degree       of the graph convolutions of the same.
    """

    capabilities = (
        Capability(TransmitPower, (Form.BROADCAST,), needs=(MeanSinrOutage, AnalogCodebook), allows=(TotalPower,)),
    )
    differentiable = False
    model: ClassVar[str]
    network: GraphNetwork
    networks: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(self, checkpoint: str, outage: float, constraint: str, width: int, layers: int, degree: int) -> None:
        super().__init__()
        trained = trained_weights(self.model, checkpoint)
        form = {"width": width, "layers": layers, "degree": degree}
        if trained is not None:
            form |= {name: int(trained.settings[name]) for name in form if name in trained.settings}
            outage = float(trained.settings.get("outage", outage))
        for name in self.networks:
            setattr(self, name, GraphNetwork(FEATURES, START, **form))
        self.outage, self.priced = outage, OutageTraining(outage, constraint)
        if trained is None:
            return
        try:
            self.load_state_dict(trained.tensors)
        except RuntimeError:
            raise ConfigError(f"checkpoint must fit this version's graph network, got {checkpoint}") from None
        self.requires_grad_(False)

    def build(self, seen: Estimates, share: float = 1.0) -> Built:
        """Beams for virtual channels, with gradients if the networks have them; their floors are times `share`."""
        raise NotImplementedError

    def relaxed(self, seen: Estimates) -> Built:
        """Beams for virtual channels; where these cannot be served, their floors are lowered until they can."""
        built = self.build(seen)
        for share in SHARES:
            left = (~built.digital.feasible).nonzero().squeeze(-1)
            if not len(left):
                break
            part = Estimates(*(None if each is None else each[left] for each in seen))  # type: ignore[arg-type]
            built = batching.put(built, left, self.build(part, share))
        return built

    @torch.no_grad()
    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        asked = problem.get(MeanSinrOutage).probability.min().item()
        if asked < self.outage * (1 - 1e-6):
            raise ConfigError(
                f"outage must be at least {self.outage:g}, for which these weights were trained, got {asked:g}: train "
                f"others by `beamforge train {self.model} --set model.outage={asked:g}`"
            )
        seen = of_problem(problem, observation)
        training = self.training
        built = self.eval().relaxed(seen)
        self.train(training)
        p, _, W = built.limited(seen.limit)
        status = torch.where(built.digital.feasible, int(Status.CONVERGED), int(Status.INFEASIBLE))
        iterations = torch.zeros_like(status)
        if built.codewords is None:
            return Solution(W, status, iterations)
        return Solution.hybrid(Factors(built.analog, built.digital.beams, p, built.codewords), status, iterations)

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Power and priced outage (see `OutageTraining`) of the beams on the true channels.

        instance  with ``sinr_target`` and ``p_max`` in its context, and the label ``group``.
        """
        seen = of_instance(instance, ARRAY)
        built = self.build(seen)
        _, power, W = built.limited(seen.limit)
        found: tuple[Tensor, dict[str, Tensor]] = self.priced(instance, W, power)
        feasible = built.digital.feasible
        return found[0], found[1] | {"infeasible": 1 - feasible.to(power).mean()}

    def adapt(self, figures: Mapping[str, float]) -> None:
        """Update the prices."""
        self.priced.adapt(figures)

    def criterion(self, figures: Mapping[str, float]) -> float:
        """The validation loss: mean power and the cost of outage above the nominal one."""
        return self.priced.criterion(figures)


def levels_of(network: GraphNetwork, seen: Estimates) -> Virtual:
    """Virtual channels of the instantaneous channels."""
    return virtual_channels(network, channel_shift(seen.H), channel_gain(seen.H), seen.targets, seen.quality)


def digital(seen: Estimates, levels: Virtual, A: Tensor, start: Tensor | None = None) -> Digital:
    """Digital beams for virtual channels behind A [B, N, M]."""
    D = A.mH @ A
    heard = A.mH @ seen.H.mH  # A^H h_k, [B, M, K]
    G = torch.einsum("bmk,bnk->bkmn", heard, heard.conj())
    return digital_beams(*levels.matrices(G, D), D, seen.targets, start)
