"""Baseline of three fully connected networks for data beams, sensing streams and power split."""

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
from beamforge.learned.isac.isac_data import IsacData
from beamforge.learned.isac.learned_sensing import LearnedSensing
from beamforge.learned.isac.streams import initial
from beamforge.learned.l2o.ascent import of_full_power
from beamforge.learned.l2o.whitening import call

SHIPPED = 16
"""Number of users and of antennas of the shipped weights."""


class IsacDNN(LearnedSensing):
    """Weighted sum rate under sensing SNR targets by three fully connected networks, for K = N = `size`; any M.

    A communication network maps the channels to corrections of the data beams, a sensing network maps the channels and
    the steering vector of a target to a correction of its stream, and a power network maps the same input to the power
    split. Initial beams and the exact repair in the end are those of `sao-isac`. The networks are trained alternately,
    each with the other two fixed. An instance whose targets are not met is flagged infeasible for this method.

    checkpoint  "shipped", "random" (untrained), or a file written by `beamforge train`.
    size        K and N, for random weights.
    width       dimension of the hidden layers, for random weights.

    Raises `UnsupportedProblem` for other numbers of users or antennas, `ConfigError` for invalid settings.

    >>> from beamforge.core.named_problems import build_problem
    >>> from beamforge.scenarios import Isac
    >>> instance = Isac(users=16, antennas=16).sample(count=2, seed=1)
    >>> IsacDNN().solve(build_problem("isac", instance.context), instance).W.shape
    torch.Size([2, 16, 32])

    Source: the baseline "DNN" of the masked-transformer paper, Section IV-C; inputs, widths and initial beams are ours.
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

    def walk(self, data: IsacData) -> list[tuple[Tensor, Tensor]]:
        """Initial beams, and those of the networks."""
        W, F = initial(data)
        share = F.abs().square().sum((-2, -1))
        seen = numbers(data.H.flatten(1))
        moved = joined(call(self.communication, seen), data.H.shape[-2])
        beams = of_full_power(W / (1 - share).sqrt()[:, None, None] + moved.mT / self.size)
        each = torch.cat([seen.unsqueeze(1).expand(-1, F.shape[-1], -1), numbers(data.C.mT)], -1)
        turned = joined(call(self.sensing, each), 1).squeeze(-2)  # [B, M, N]
        streams = F + torch.where(data.targets.unsqueeze(-1), turned, 0).mT * F.abs().square().sum(-2, True).sqrt()
        towards = call(self.power, each).squeeze(-1)
        count = data.targets.sum(-1).clamp_min(1)
        ratio = share / (1 - share) * (torch.where(data.targets, towards, 0).sum(-1) / count).clamp(-6, 6).exp()
        streams = of_full_power(streams) * ratio.sqrt()[:, None, None]
        both = of_full_power(torch.cat([beams, streams], -1))
        return [(W, F), (both[..., : W.shape[-1]], both[..., W.shape[-1] :])]

    def turn(
        self, part: str, instance: Instance, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss for the update of one network; it is the same for all three."""
        return self.loss(instance, generator)


def perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """A network with two hidden layers whose outputs are zero before training."""
    layers = nn.Sequential(
        nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, outputs)
    )
    last = layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return layers


def numbers(vectors: Tensor) -> Tensor:
    """Real and imaginary parts [..., 2 n] of complex vectors [..., n], with mean square one."""
    parts = torch.cat([vectors.real, vectors.imag], -1)
    size = parts.square().mean(-1, keepdim=True)
    return parts * torch.where(size > 0, size, 1).rsqrt()


def joined(parts: Tensor, rows: int) -> Tensor:
    """Complex matrices [..., rows, n] from real and imaginary parts [..., 2 rows n]."""
    real, imaginary = parts.chunk(2, -1)
    return torch.complex(real, imaginary).unflatten(-1, (rows, -1))
