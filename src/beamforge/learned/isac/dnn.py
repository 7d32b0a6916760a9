"""Three fully connected networks for one size, as a baseline: data beams, sensing streams and the division of power."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from beamforge.core.errors import ConfigError, UnsupportedProblem
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.io.weights import trained_weights
from beamforge.learned.isac.learned_sensing import LearnedSensing
from beamforge.learned.isac.power_split import balanced, first
from beamforge.learned.isac.question import Question
from beamforge.learned.l2o.ascent import of_full_power
from beamforge.learned.l2o.whitening import call

SHIPPED = 16
"""Users, and antennas, of the shipped weights."""


class IsacDNN(LearnedSensing):
    """Weighted sum rate with sensing SNRs to keep, by three fully connected networks for K = N = `size`.

    The first sees the channels and changes the data beams, the second sees channels and a target and changes its
    stream, the third sees them too and divides the power. They begin with regularised zero forcing and streams towards
    the targets, and learn in turns, each while the others stand still. In the end the power is divided exactly, as
    `sao-isac` does it, and an instance whose targets are then not met is infeasible for this method.

    checkpoint  "shipped", "random" (untrained), or a file that `beamforge train` wrote.
    size        K and N, where the weights are random.     width  of the hidden layers.

    Raises `UnsupportedProblem` for another number of users or antennas, `ConfigError` for settings out of range.

    Source: the baseline "DNN" of the masked-transformer paper, Section IV-C. What its networks see, their widths, and
    what they begin with are ours.
    """

    tried_on = (SHIPPED, SHIPPED)
    scope = f"{SHIPPED} users and {SHIPPED} antennas, or as many as its own weights were trained for"
    model: ClassVar[str] = "isac-dnn"
    turns: Mapping[str, float] = {"communication": 1.0, "sensing": 1.0, "power": 1.0}

    def __init__(self, checkpoint: str = "shipped", size: int = SHIPPED, width: int = 160) -> None:
        super().__init__()
        trained = trained_weights(self.model, checkpoint)
        form = {"size": size, "width": width}
        if trained is not None:
            form |= {name: int(trained.settings[name]) for name in form if name in trained.settings}
        if min(form.values()) < 1:
            raise ConfigError(f"size and width must be at least 1, got {form['size']} and {form['width']}")
        self.size, width = form["size"], form["width"]
        entries = 2 * self.size**2
        self.communication = perceptron(entries, width, entries)
        self.sensing = perceptron(entries + 2 * self.size, width, 2 * self.size)
        self.power = perceptron(entries + 2 * self.size, width // 2 or 1, 1)
        self.filled(trained, checkpoint)

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        return super().supports(problem, network) and {network.users, network.antennas} == {SHIPPED}

    def fits(self, problem: Problem, network: Network) -> bool:
        return super(IsacDNN, type(self)).supports(problem, network)

    def check_size(self, K: int, N: int) -> None:
        if {K, N} != {self.size}:
            raise UnsupportedProblem(
                f"{self.model} has weights for {self.size} users and {self.size} antennas, got {K} and {N}; "
                "isac-wmmse serves any number"
            )

    def walk(self, asked: Question) -> list[tuple[Tensor, Tensor]]:
        """What the networks begin with, and what they make of it."""
        W, F = first(asked, balanced(asked))
        share = F.abs().square().sum((-2, -1))
        seen = numbers(asked.H.flatten(1))
        moved = joined(call(self.communication, seen), asked.H.shape[-2])
        data = of_full_power(W / (1 - share).sqrt()[:, None, None] + moved.mT / self.size)
        each = torch.cat([seen.unsqueeze(1).expand(-1, F.shape[-1], -1), numbers(asked.C.mT)], -1)
        turned = joined(call(self.sensing, each), 1).squeeze(-2)  # [B, M, N]
        streams = F + torch.where(asked.targets.unsqueeze(-1), turned, 0).mT * F.abs().square().sum(-2, True).sqrt()
        towards = call(self.power, each).squeeze(-1)
        count = asked.targets.sum(-1).clamp_min(1)
        ratio = share / (1 - share) * (torch.where(asked.targets, towards, 0).sum(-1) / count).clamp(-6, 6).exp()
        streams = of_full_power(streams) * ratio.sqrt()[:, None, None]
        both = of_full_power(torch.cat([data, streams], -1))
        return [(W, F), (both[..., : W.shape[-1]], both[..., W.shape[-1] :])]

    def turn(
        self, part: str, instance: Instance, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss, of which one network at a time is moved."""
        return self.loss(instance, generator)


def perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Two hidden layers; all outputs are zero at first."""
    layers = nn.Sequential(
        nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, outputs)
    )
    last = layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return layers


def numbers(vectors: Tensor) -> Tensor:
    """Real and imaginary parts [..., 2 n] of complex vectors [..., n], in units of their root mean square."""
    parts = torch.cat([vectors.real, vectors.imag], -1)
    size = parts.square().mean(-1, keepdim=True)
    return parts * torch.where(size > 0, size, 1).rsqrt()


def joined(parts: Tensor, rows: int) -> Tensor:
    """Complex [..., rows, n] of real and imaginary parts [..., 2 rows n] side by side."""
    real, imaginary = parts.chunk(2, -1)
    return torch.complex(real, imaginary).unflatten(-1, (rows, -1))
