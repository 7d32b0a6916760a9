"""The wireless transformer: sum rate under a prescribed fairness by attention over the users' channels.

One network for one target. It sees the channels themselves, and gives directions of beams; powers are equal. Training
maximises the sum rate under a price of unfairness, and the price is found on the way by dual ascent.

Source: K. Lu, M. Rupp, S. Schwarz, "DNN-enabled multi-user beamforming for throughput maximization under adjustable
fairness"; equations are cited by their numbers there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from beamforge.classical.structure import unit
from beamforge.constraints import EqualPower, MeanJainAtLeast, jain_index
from beamforge.errors import ConfigError
from beamforge.instance import Instance
from beamforge.learned.frame import Frame, frame, phase
from beamforge.network import Network, own, squared_magnitude
from beamforge.problem import Problem
from beamforge.solver import Form, Serves, Solution, Solver
from beamforge.training.dual_ascent import DualAscent
from beamforge.training.weights import load
from beamforge.utilities import SumRate

USERS, ANTENNAS = 12, 16
WIDTH, BLOCKS, HEADS = 4 * (2 * ANTENNAS + 1), 8, 4

LEVEL_DB, SPREAD_DB = 20.0, 7.0
"""Mean and standard deviation of the users' SNR in the paper's cell."""

SIZES = (0.477, 0.424, 0.382, 0.343, 0.306, 0.272, 0.237, 0.204, 0.170, 0.137, 0.104, 0.068)
"""Root mean squares of a direction's coordinates in their frame, in that cell."""

VIEWS = 2
"""Users that take turns as the reference of the frame where beams are asked for; training has one."""

SLACK = 0.005
"""By how much the mean index of a trained network may be short of what is asked of it."""

FORFEIT = 100.0
"""Bit/s/Hz that a whole point of missing fairness costs in validation."""


class Transformer(nn.Module):
    """Features [B, K, 2N + 1] to corrections of beams [B, K, 2N], real and imaginary parts; 873,476 parameters.

    The last layer starts at zero, so that training begins with what is corrected. Users are a set and have no
    positions, so relabelling them relabels the beams.

    Source: Fig. 1 and Table I.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(2 * ANTENNAS + 1, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)
        last = nn.Linear(WIDTH, 2 * ANTENNAS)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), last)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(features))))


class Block(nn.Module):
    """``x <- x + attention(norm x)``, then ``x <- x + feed-forward(norm x)`` as wide as x.

    A dozen users are so few that attention is quicker written out than fused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.ask = nn.Linear(WIDTH, 3 * WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.feed = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        asked = self.ask(self.norm(x)).unflatten(-1, (3, HEADS, WIDTH // HEADS))
        query, key, value = asked.permute(2, 0, 3, 1, 4)
        heard = torch.softmax(query @ key.mT / math.sqrt(WIDTH // HEADS), -1) @ value
        x = x + self.mix(heard.transpose(1, 2).flatten(2))
        return x + self.feed(x)


class WiT(Solver):
    """Sum rate with mean Jain's index at least a target, equal powers, on the paper's cell (K = 12, N = 16).

    The network trained for the nearest target that is not more than 0.005 below the one asked for gives unit beams,
    and each gets P/K watts. Where a batch's mean index is further below than that, as it may be on other channels than
    those of that cell, a network trained for a higher target takes its place.

    jain     target J_LB of a training; left out, that of the weights, or 0.86.
    price    lambda that a training begins with; left out, that of the weights, or 2.
    weights  "shipped" (for every target that there are some for), "random" (untrained), the name of one that is
             shipped (`wit-86`), or a file that `beamforge train` wrote; the last three can be trained on.

    Raises `ConfigError` for a target above those that there are weights for, and for a mean that none of the shipped
    networks reaches, with the largest that can be met.
    """

    knob = "trained_jain"
    serves = (Serves(SumRate, (Form.BROADCAST,), needs=(EqualPower, MeanJainAtLeast)),)
    tried_on = (USERS, ANTENNAS)
    scope = f"made for {USERS} users and {ANTENNAS} antennas"

    def __init__(self, jain: float | None = None, price: float | None = None, weights: str = "shipped") -> None:
        super().__init__()
        self.network: Transformer | None = None
        if weights == "shipped":
            return
        file = Path(weights) if weights.endswith(".safetensors") else None
        trained = None if weights == "random" else load("wit", file, name=weights)
        if jain is None:
            jain = 0.86 if trained is None else float(trained.header["recipe"]["model"]["jain"])
        if not 1 / USERS < jain < 1:
            raise ConfigError(f"jain must be between 1/{USERS} and 1, got {jain:g}")
        self.network, self.dual = Transformer(), DualAscent(jain, 2.0 if price is None else price)
        if trained is None:
            return
        kept = {"dual.price": self.dual.price} if price is not None else {}
        try:
            self.load_state_dict({**trained.tensors, **kept})
        except RuntimeError:
            raise ConfigError(f"weights must fit this version's transformer, got others in {weights}") from None
        self.requires_grad_(False)

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        return (network.users, network.antennas) == (USERS, ANTENNAS) and super().supports(problem, network)

    @property
    def trained_jain(self) -> float | None:
        """The target of the weights, None where it is to be found."""
        return None if self.network is None else self.dual.target

    def tuned(self, problem: Problem, instance: Instance | Network) -> Solver:
        if self.network is not None:
            return self
        found = self.solve(problem, instance).info[self.knob].reshape(-1)[0].item()
        return shipped(min(targets(), key=lambda target: abs(target - found)))

    def solve_batch(
        self, problem: Problem, instance: Instance, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        limit, power = problem.get(MeanJainAtLeast).limit, problem.get(EqualPower).limit
        asked = limit.amax().item()
        if self.network is None:
            target, W = fair_enough(asked, instance.seen, power)
        elif asked <= self.dual.target + SLACK:
            target, W = self.dual.target, self.beams(instance.seen, power, VIEWS)
        else:
            raise ConfigError(f"jain must be at most {self.dual.target:g} for these weights, got {asked:g}")
        return Solution.closed_form(W, trained_jain=torch.full_like(limit, target))

    def beams(self, network: Network, power: Tensor, views: int = 1) -> Tensor:
        """Beams [B, N, K] of P/K watts each; P is `power` [B].

        views  of the same channels whose directions are averaged: with each of so many users as the reference of the
               `frame`, and if more than one also of the conjugate channels, whose best beams are conjugate too.
        """
        H = network.whitened().channel
        found = []
        for rank in range(views):
            found.append(in_phase(H, self.directions(H, power, rank)))
            if views > 1:
                found.append(in_phase(H, self.directions(H.conj(), power, rank).conj()))
        return unit(torch.stack(found).mean(0)) * (power / USERS).sqrt()[:, None, None]

    def directions(self, H: Tensor, power: Tensor, rank: int = 0) -> Tensor:
        """Unit beams [B, N, K] for channels H [B, K, N] in units of the noise's square root."""
        assert self.network is not None
        x, frame = features(H, power, rank)
        weights = {name: value.to(x) for name, value in self.network.state_dict(keep_vars=True).items()}
        found = functional_call(self.network, weights, (x,)).to(x).unflatten(-1, (2, ANTENNAS))[..., :USERS]
        return unit(frame.basis @ (math.sqrt(USERS) * frame.forced + torch.complex(*found.unbind(-2))).mT)

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """``-(S + lambda min(J - J_LB, 0))`` with S the mean of the sum rates scaled to [0, 1] over the batch.

        The extremes of the batch are its scale, and not to be learned from: their gradients would reward a worse worst
        instance. Since scaled means of different moments cannot be compared, validation has a loss of its own: minus
        the sum rate in bit/s/Hz, and `FORFEIT` times what is missing of J_LB.

        instance  channels with `p_max` in their context.

        Source: Eqs. 11 and 12.
        """
        rate = instance.truth.rate(self.beams(instance.seen, instance.context["p_max"]))
        total, fairness = rate.sum(-1), jain_index(rate).mean()
        mean, missing = total.mean(), self.dual.target - fairness
        if self.training:
            least, largest = total.detach().aminmax()
            loss = self.dual.penalty(fairness) - (mean - least) / (largest - least)
        else:
            loss = FORFEIT * missing.clamp_min(0) - mean
        figures = {"sum_rate": mean, "jain": fairness, "violation": missing, "price": self.dual.price}
        return loss, {name: value.detach().clone() for name, value in figures.items()}

    def adapt(self, figures: Mapping[str, float]) -> None:
        """The dual step, by the mean index of the whole batch."""
        self.dual.adapt(figures["jain"])


def in_phase(H: Tensor, W: Tensor) -> Tensor:
    """Beams turned so that every user hears its own as a positive number."""
    return W * phase(own(H @ W)).conj().unsqueeze(-2)


def features(H: Tensor, power: Tensor, rank: int = 0) -> tuple[Tensor, Frame]:
    """``[Re x_k, Im x_k, 10 log10(P |h_k|^2)]`` [B, K, 2N + 1], and the `Frame` in which x_k are what is seen.

    K of the N coordinates are not zero, and each feature is scaled to about one in size. The paper's network sees the
    coordinates as the antennas have them, and always 10 W; here only ``P / s^2`` matters.

    H  channels [B, K, N] in units of the noise's square root.

    Source: Eq. 10.
    """
    coordinates = frame(H, rank)
    x = functional.pad(coordinates.seen / torch.tensor(SIZES).to(H), (0, ANTENNAS - USERS))
    gain = power.unsqueeze(-1) * squared_magnitude(H).sum(-1)
    snr_db = 10 * gain.clamp_min(torch.finfo(gain.dtype).tiny).log10()
    return torch.cat([x.real, x.imag, ((snr_db - LEVEL_DB) / SPREAD_DB).unsqueeze(-1)], -1), coordinates


def targets() -> dict[float, str]:
    """The targets that weights are shipped for, and the names of these: ``wit-86`` is for 0.86."""
    names = (item.name for item in (files("beamforge") / "weights").iterdir())
    found = (name.removesuffix(".safetensors") for name in names if name.startswith("wit-"))
    return {float(f"0.{name.removeprefix('wit-')}"): name for name in sorted(found) if not name.endswith(".md")}


def nearest(asked: float) -> float:
    """The target with weights that is nearest to the one asked for, among those at most `SLACK` below it."""
    known = targets()
    able = [target for target in known if target >= asked - SLACK]
    if not able:
        raise ConfigError(
            f"jain must be one that wit was trained for ({', '.join(f'{target:g}' for target in known)}) or less, "
            f"got {asked:g}; methods that reach further: multipliers, pareto"
        )
    return min(able, key=lambda target: abs(target - asked))


def fair_enough(asked: float, network: Network, power: Tensor) -> tuple[float, Tensor]:
    """The least target from `nearest` on that brings a batch's mean index within `SLACK` of what is asked; its beams.

    Instances without a channel do not count.
    """
    heard, best = network.H.flatten(1).ne(0).any(-1), 0.0
    for target in sorted(known for known in targets() if known >= nearest(asked)):
        W = shipped(target).beams(network, power, VIEWS)
        mean = jain_index(network.rate(W)[heard]).mean().item()
        if not mean < asked - SLACK:
            return target, W
        best = max(best, mean)
    most = math.floor(1e3 * best) / 1e3
    raise ConfigError(
        f"jain must be at most {most:g}, the largest mean that WiT reaches on these channels, got {asked:g}"
    )


@cache
def shipped(target: float) -> WiT:
    """The trained network for one of `targets`."""
    return WiT(weights=targets()[target])
