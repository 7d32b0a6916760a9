"""ITNet and DualNet: small networks for pairs of a base station and a user, shared by all base stations."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from beamforge.learned.interference.beam_recovery import Duals, full_power_price
from beamforge.learned.interference.station_view import FAINTEST, Direction, StationView, direction

PAIR = 6
"""Number of input features of a pair."""

HEARD = 5
"""Number of input features of DualNet from received messages."""

LARGEST = 14.0
"""Logarithm of the largest load, which leaves about a millionth of the amplitude in the direction of a channel."""

DEPTH = 3
"""Number of hidden layers of each network."""


class Sight(NamedTuple):
    """Local inputs of a base station, before the exchange.

    first    direction of the SLNR beam at full power.
    leakage  [B, S, K]: power of this beam at the user, relative to full power along the channel.
    pairs    [B, S, K, 6], logarithms: the own SNR, the gain to the user, and the alignment of these channels; the SNR
             of the SLNR beam and its power at the user; the weight of the own user.
    """

    first: Direction
    leakage: Tensor
    pairs: Tensor

    @classmethod
    def of(cls, view: StationView, weights: Tensor) -> Sight:
        """Inputs of all pairs; weights [B, S] are relative to their mean."""
        z = direction(view, view.gain)
        leakage = z.leakage.clamp(1e-12, 1 - 1e-6)
        seen = [
            small_log(view.own).unsqueeze(-1),
            small_log(view.gain),
            (view.cosine / (1 - view.cosine)).log() / 3,
            small_log(view.own * z.along).unsqueeze(-1),
            small_log(view.gain * leakage),
            3 * small_log(weights.clamp_min(1e-3)).unsqueeze(-1),
        ]
        return cls(z, leakage, torch.stack([each.expand_as(view.gain) for each in seen], -1))


class ITNet(nn.Module):
    """(15): interference temperatures ``c_kj = P |h_kj|^2 t`` of each pair, as logits of t in (0, 1).

    The network output is a correction in nats of the logit for the SLNR beam, and zero before training.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = perceptron(PAIR, width)

    def forward(self, sight: Sight) -> Tensor:
        """Correction [B, S, K] of the logit."""
        return 3 * self.net(sight.pairs).squeeze(-1)


class DualNet(nn.Module):
    """(18) and (19): loads of all channels, and the multiplier of the full power.

    The initial load is that of the SLNR beam, ``gain``, changed to meet the temperature under the model that leakage is
    proportional to ``1 / (1 + load)^2``. It is corrected `looks` times, by a network each, whose inputs include
    received messages and the current beam. The initial multiplier is that of full power. Corrections are in nats.
    """

    def __init__(self, width: int, looks: int) -> None:
        super().__init__()
        self.looks = nn.ModuleList(perceptron(PAIR + 3 + HEARD, width) for _ in range(looks))
        self.power = perceptron(5, width)

    def forward(self, view: StationView, sight: Sight, correction: Tensor, heard: Tensor) -> Duals:
        """Dual variables for the correction by ITNet and received temperatures [B, S, K], relative to the noise."""
        told = summary(view, heard)
        asked = softened((1 + view.gain) * (-correction / 2).clamp(-20, 20).exp() - 1)
        loads = asked.clamp_max(math.exp(LARGEST))
        z = sight.first
        for net in self.looks:
            seen = [loads, view.gain * z.leakage, (view.own * z.along).unsqueeze(-1).expand_as(loads)]
            x = torch.cat([sight.pairs, small_log(torch.stack(seen, -1)), told], -1)
            loads = (loads.clamp_min(1e-6).log() + 3 * net(x).squeeze(-1)).clamp(-20, LARGEST).exp() * view.others
            z = direction(view, loads)
        noise = 1 + (heard * view.others).sum(-1)
        seen = [
            small_log(view.own),
            small_log(noise - 1),
            (1 - z.along).clamp_min(1e-3).log() / 3,
            (loads * view.align.abs()).sum(-1).clamp_min(FAINTEST).log() / 3,
            (loads * view.others).sum(-1).clamp_min(FAINTEST).log() / 3,
        ]
        correction = self.power(torch.stack(seen, -1)).squeeze(-1).clamp(-5, 5)
        return Duals(loads, full_power_price(view, z, noise) * correction.exp(), z)


def summary(view: StationView, heard: Tensor) -> Tensor:
    """Features [B, S, K, 5] of messages: that of the user's base station; minimum, mean and maximum; total power."""
    message = small_log(heard)
    away = view.itself.bool()
    count = view.others.sum(-1, keepdim=True).clamp_min(1)
    least = message.masked_fill(away, torch.inf).amin(-1, keepdim=True)
    most = message.masked_fill(away, -torch.inf).amax(-1, keepdim=True)
    mean = (message * view.others).sum(-1, keepdim=True) / count
    total = small_log((heard * view.others).sum(-1, keepdim=True))
    told = [message, *(torch.where(torch.isfinite(x), x, 0) for x in (least, mean, most)), total]
    return torch.stack([x.expand_as(message) for x in told], -1)


def perceptron(inputs: int, width: int) -> nn.Sequential:
    """Fully connected layers of equal width with one output, which is initially zero."""
    sizes = [inputs, *[width] * DEPTH]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.SiLU()]
    last = nn.Linear(width, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def small_log(power: Tensor) -> Tensor:
    """A third of the logarithm of a power, which is of the order of one."""
    return power.clamp(FAINTEST, 1 / FAINTEST).log() / 3


def softened(x: Tensor) -> Tensor:
    """Smooth approximation of ``max(x, 0)``: ``(x + sqrt(x^2 + 4e-6)) / 2``."""
    return (x + (x.square() + 4e-6).sqrt()) / 2
