"""ITNet and DualNet: small networks that all base stations share, over pairs of a base station and a user."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from beamforge.learned.interference.beam_recovery import Duals, full_power_price
from beamforge.learned.interference.station_view import FAINTEST, Direction, StationView, direction

PAIR = 6
"""Numbers that a base station sees of itself and one user."""

HEARD = 5
"""Numbers in which DualNet is told what was heard from the others."""

LARGEST = 14.0
"""Logarithm of the largest load: a millionth of a channel's amplitude is as good as none of it."""

DEPTH = 3
"""Hidden layers of each network."""


class Sight(NamedTuple):
    """What a base station sees before anything is exchanged.

    first    the direction of the largest ratio of signal to leakage and noise at full power.
    leakage  [B, S, K]: what that beam puts on the user over what full power along the channel delivers.
    pairs    [B, S, K, 6], logarithms: the own SNR, the gain to the user, and how far these channels are aligned; the
             SNR of that beam, and what it puts on the user; the own user's weight.
    """

    first: Direction
    leakage: Tensor
    pairs: Tensor

    @classmethod
    def of(cls, view: StationView, weights: Tensor) -> Sight:
        """The numbers of every pair; weights [B, S] are over their mean."""
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

    The network corrects, in nats, the logit of what the beam of the largest ratio of signal to leakage and noise puts
    on the user; untrained it leaves that as it is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = perceptron(PAIR, width)

    def forward(self, sight: Sight) -> Tensor:
        """What is to be added to that logit, [B, S, K]."""
        return 3 * self.net(sight.pairs).squeeze(-1)


class DualNet(nn.Module):
    """(18) and (19): loads of all channels, and the price of all the power.

    A load begins as what the temperature asks of the load ``gain`` of the beam that ITNet begins with, leakage falling
    with the square of one plus it. It is corrected in some looks, by a network each, at what was heard and at the
    beam so far. The price begins as that at which all power is used. Corrections are in nats.
    """

    def __init__(self, width: int, looks: int) -> None:
        super().__init__()
        self.looks = nn.ModuleList(perceptron(PAIR + 3 + HEARD, width) for _ in range(looks))
        self.power = perceptron(5, width)

    def forward(self, view: StationView, sight: Sight, correction: Tensor, heard: Tensor) -> Duals:
        """Dual variables for ITNet's correction [B, S, K] and what others said, [B, S, K], over the noise."""
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
    """What a base station makes of what it heard, [B, S, K, 5]: from the user's own; the least, mean, most; in all."""
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
    """Layers of that width, and one output that begins at zero."""
    sizes = [inputs, *[width] * DEPTH]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.SiLU()]
    last = nn.Linear(width, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def small_log(power: Tensor) -> Tensor:
    """A third of the logarithm of a power, which then is of the order of one."""
    return power.clamp(FAINTEST, 1 / FAINTEST).log() / 3


def softened(x: Tensor) -> Tensor:
    """x where it is positive and not small, else a small positive number: ``(x + sqrt(x^2 + 4e-6)) / 2``."""
    return (x + (x.square() + 4e-6).sqrt()) / 2
