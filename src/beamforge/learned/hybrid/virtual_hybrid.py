"""Hybrid beams of least power under an outage constraint, by virtual channels: the hybrid beamforming paper's method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from beamforge.classical.hybrid.digital import Digital, digital_beams
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.solver import Solver
from beamforge.io.weights import trained_weights
from beamforge.learned.hybrid.codebook import dft_codebook
from beamforge.learned.hybrid.graph_convolution import GraphNetwork
from beamforge.learned.hybrid.straight_through import selected
from beamforge.learned.hybrid.sweep import Codebook, Chosen, priced, swept
from beamforge.learned.hybrid.virtual_channels import (
    FEATURES,
    START,
    Virtual,
    channel_gain,
    channel_shift,
    virtual_channels,
)
from beamforge.training.outage import Measured, OutageConstraint

KINDS, USERS = 4, 8
"""Most kinds of channel knowledge, and most users, with a price of their own in training."""

PACE = 0.05
"""Weight of a batch in the mean power of its group."""

VIOLATION_COST = 30.0
"""Cost in validation of outage above the nominal one, watts per unit, an upper bound on the prices (Eq. 54)."""

LEAST_SINR = 1e-4
"""Least ratio of a SINR to its target whose logarithm counts as a margin."""


class Seen(NamedTuple):
    """What the method knows, noise one: channels H [B, K, N], SINR targets and quality [B, K], power limit [B]."""

    H: Tensor
    targets: Tensor
    quality: Tensor
    limit: Tensor


class Built(NamedTuple):
    """Beams A B diag(sqrt p): A [B, N, M], the digital solution, and the codewords (None without a codebook)."""

    analog: Tensor
    digital: Digital
    codewords: Tensor | None

    @property
    def W(self) -> Tensor:
        """The beams [B, N, K]; without gradient where infeasible."""
        feasible = self.digital.feasible.unsqueeze(-1)
        root = torch.where(feasible, self.digital.p, 1).sqrt() * feasible
        return self.analog @ (self.digital.beams * root.unsqueeze(-2))


class VirtualHybrid(Solver):
    """Base class: a network gives virtual channels, the greedy sweep and the digital kernel solve for these."""

    model: ClassVar[str]
    training_only: tuple[str, ...] = ("constraint.", "scale")
    scale: Tensor

    def __init__(
        self,
        rf_chains: int = 5,
        selections: int = 10,
        checkpoint: str = "shipped",
        outage: float = 0.1,
        constraint: str = "annealed",
        width: int = 16,
        layers: int = 3,
        degree: int = 2,
    ) -> None:
        super().__init__()
        if rf_chains < 1 or selections < 0:
            raise ConfigError(f"rf_chains must be at least 1 and selections at least 0, got {rf_chains}, {selections}")
        self.rf_chains, self.selections = rf_chains, selections
        trained = trained_weights(self.model, checkpoint)
        form = {"width": width, "layers": layers, "degree": degree}
        if trained is not None:
            form |= {name: int(trained.settings[name]) for name in form if name in trained.settings}
            outage = float(trained.settings.get("outage", outage))
        self.network = GraphNetwork(FEATURES, START, **form)
        self.constraint = OutageConstraint(KINDS * USERS, outage, constraint)
        self.register_buffer("scale", torch.zeros(KINDS * USERS))
        if trained is None:
            return
        try:
            missing, extra = self.load_state_dict(trained.tensors, strict=False)
            if extra or any(not name.startswith(self.training_only) for name in missing):
                raise RuntimeError
        except RuntimeError:
            raise ConfigError(f"checkpoint must fit this version's network, got {checkpoint}") from None
        self.requires_grad_(False)

    @property
    def outage(self) -> float:
        """Nominal outage of the weights."""
        return self.constraint.probability

    def virtual(self, seen: Seen) -> Virtual:
        """Virtual channels of what is seen, levels [B, K]."""
        return virtual_channels(
            self.network, channel_shift(seen.H), channel_gain(seen.H), seen.targets, seen.quality
        )

    def build(self, seen: Seen, codebook: Tensor) -> Built:
        """Beams for the virtual channels, with gradients if the network has them; codebook [B, N, C]."""
        levels = self.virtual(seen)
        chosen, A = self.analog(seen, levels, codebook)
        return Built(A, digital(seen, levels, A, chosen), chosen.codewords)

    def analog(self, seen: Seen, levels: Virtual, codebook: Tensor) -> tuple[Chosen, Tensor]:
        """The selection of codewords, and A [B, N, M]; the last codeword selected has a gradient."""
        book = Codebook.of(seen.H, codebook)
        sides = Virtual(*(each.mT for each in levels))
        known, targets = Virtual(*(each.detach() for each in sides)), seen.targets.mT
        learns = self.selections > 0 and torch.is_grad_enabled() and levels.wanted.requires_grad
        chosen = swept(book, known, targets, self.rf_chains, self.selections - learns)
        A = torch.take_along_dim(codebook, chosen.codewords.unsqueeze(1), -1)
        if learns:
            chain = (self.selections - 1) % self.rf_chains
            costs = priced(book, sides, targets, chosen, chain)
            column = selected(costs, codebook.mT)
            keep = torch.arange(self.rf_chains, device=A.device) != chain
            A = torch.where(keep, A, column.unsqueeze(-1))
        return chosen, A

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Power over the mean power of the group, averaged over groups, plus the priced outage constraint of each group.

        A group is a kind of channel knowledge (label ``group``) with a number of users. Figures: the mean power, the
        share of users in outage and the price of each kind.
        """
        seen = observed(instance)
        built = self.build(seen, codebook_of(instance, seen.H))
        power = torch.where(built.digital.feasible, built.digital.cost, 0)
        within = (seen.limit / torch.where(power > 0, power, 1)).clamp_max(1)
        W = built.W * within.sqrt()[:, None, None]
        sinr = instance.truth.sinr(W)
        margin = (sinr / seen.targets).clamp_min(LEAST_SINR).log()
        kind = instance.labels.get("group", torch.zeros(len(power), dtype=torch.long, device=power.device))
        group = kind + KINDS * (min(seen.H.shape[-2], USERS) - 1)
        spent = power * within
        relative = self.relative(spent, group)
        priced_outage, measured = self.constraint(margin, group)
        figures = {"power": spent.detach().mean(), "users": power.new_tensor(float(seen.H.shape[-2]))}
        figures["infeasible"] = 1 - built.digital.feasible.to(power).mean()
        for g, one in measured.items():
            figures |= {f"outage_{g % KINDS + 1}": one.outage, f"quantile_{g % KINDS + 1}": one.quantile}
            figures[f"price_{g % KINDS + 1}"] = self.constraint.price[g % KINDS :: KINDS][:4].mean()
        return relative + priced_outage, figures

    def relative(self, power: Tensor, group: Tensor) -> Tensor:
        """Sum over the groups of a batch of their mean power over its running mean, a constant."""
        total = power.new_zeros(())
        for g in group.unique().tolist():
            mean = power[group == g].mean()
            with torch.no_grad():
                if self.training:
                    before = self.scale[g] if self.scale[g] > 0 else mean
                    self.scale[g] = before + PACE * (mean - before)
                scale = self.scale[g] if self.scale[g] > 0 else mean
            total = total + mean / scale.clamp_min(1e-6)
        return total

    def adapt(self, figures: Mapping[str, float]) -> None:
        """Update the prices of the groups of a batch."""
        first = KINDS * (min(round(figures["users"]), USERS) - 1)
        kinds = [kind for kind in range(KINDS) if f"outage_{kind + 1}" in figures]
        self.constraint.adapt(
            {
                first + kind: Measured(
                    torch.tensor(figures[f"outage_{kind + 1}"]), torch.tensor(figures[f"quantile_{kind + 1}"])
                )
                for kind in kinds
            }
        )

    def criterion(self, figures: Mapping[str, float]) -> float:
        """Mean power plus the cost of outage above the nominal one, of each kind of channel knowledge (Eq. 54)."""
        outages = [value for name, value in figures.items() if name.startswith("outage_")]
        return figures["power"] + VIOLATION_COST * sum(max(value - self.outage, 0.0) for value in outages)


def digital(seen: Seen, levels: Virtual, A: Tensor, chosen: Chosen | None = None) -> Digital:
    """Digital beams for virtual channels behind A."""
    D = A.mH @ A
    heard = A.mH @ seen.H.mH  # A^H h_k, [B, M, K]
    G = torch.einsum("bmk,bnk->bkmn", heard, heard.conj())
    start = None if chosen is None else chosen.q.mT
    return digital_beams(*levels.matrices(G, D), D, seen.targets, start)


def observed(instance: Instance) -> Seen:
    """What the method knows of an instance of training data."""
    network = instance.observation.network.whitened()
    context = instance.context
    quality = context["csi_quality"]
    quality = quality if quality.ndim > 1 else quality.unsqueeze(-1).expand(network.noise.shape)
    return Seen(network.channel, context["sinr_target"], quality, context["p_max"])


def codebook_of(instance: Instance, H: Tensor) -> Tensor:
    """The codebook [B, N, C] of an instance, by default the scenario's."""
    given = instance.context.get("codebook")
    if given is None:
        given = dft_codebook().to(H)
    return given.expand(len(H), -1, -1)


class HybridGCN(VirtualHybrid):
    """U-G-HBF-GCN"""

    model = "hybrid-gcn"
