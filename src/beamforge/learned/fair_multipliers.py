"""Learn the multipliers, let algebra make the beams: this library's own method for sum rate and fairness together.

On the frontier between sum rate and Jain's index every beam has the form ``(sum_l mu_l h_l h_l^H + nu_u I)^-1 h_u``:
mu prices interference, nu prices power. A graph filter over users looks at the K x K Gram matrix and at the price of
fairness, and predicts these 2K numbers; so one small network serves the whole frontier, any number of users and any
number of antennas. Training differentiates through the algebra, on rate and fairness themselves, without labels.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from beamforge.classical.structure import coefficients
from beamforge.errors import ConfigError
from beamforge.instance import Instance
from beamforge.learned.graph_filter import GraphFilter
from beamforge.network import Network, others, own, squared_magnitude
from beamforge.solver import Solver
from beamforge.training.weights import load

FEATURES = 9
PRICED = 3
SHIFTS = 6

LIMIT = 8.0
"""Largest correction in nats that the filter can make to a multiplier."""

STEEPNESS = 0.8
"""Exponent of the weighted SLNR that is corrected, at a price of fairness equal to the sum rate."""

STEEPEST = 3.0
"""Its largest exponent."""

DEAREST = 5.0
"""Largest price of fairness in training, in sum rates."""


class FairMultipliers(Solver):
    """Sum rate under fairness with equal powers."""

    def __init__(self, price: float = math.nan, weights: str = "shipped", width: int = 40, rounds: int = 3) -> None:
        super().__init__()
        self.price = price
        trained = (
            None if weights == "random" else load("fair-multipliers", None if weights == "shipped" else Path(weights))
        )
        try:
            if trained is not None:
                width, rounds = (int(trained.settings[name]) for name in ("width", "rounds"))
            self.filter = GraphFilter(FEATURES + PRICED, 2, SHIFTS, width, rounds)
            if trained is not None:
                self.load_state_dict(trained.tensors)
                self.requires_grad_(False)
        except (KeyError, ValueError, RuntimeError):
            raise ConfigError(f"weights must fit this version's graph filter, got others in {weights}") from None

    def predict(self, sight: Sight, price: Tensor) -> tuple[Tensor, Tensor]:
        """The corrected prices mu and ridges nu [B, K] at a price of fairness [B]."""
        mu, nodes = priced(sight, price)
        weights = {name: value.to(nodes) for name, value in self.filter.state_dict(keep_vars=True).items()}
        corrections = functional_call(self.filter, weights, (nodes, sight.shifts)).clamp(-LIMIT, LIMIT)
        return mu * corrections[..., 0].exp(), corrections[..., 1].exp()

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus ``(S - lambda (1 - J)) / S_0``: S_0 [B] is the uplink's rate, lambda is 0 to 5 of it, mostly little."""
        gram = normalised(instance.seen, instance.context["p_max"])
        with torch.no_grad():
            sight = observe(gram)
        draw = torch.rand(len(gram), generator=generator, dtype=gram.real.dtype, device=gram.device)
        price = DEAREST * draw**1.5 * sight.rate
        total, fairness = outcome(gram, *self.predict(sight, price))
        with torch.no_grad():
            floor, fair = outcome(gram, *slnr(sight, price))
            gained = (total + price * fairness) / (floor + price * fair)
        loss = -((total - price * (1 - fairness)) / sight.rate).mean()
        return loss, {"rate": total.mean().detach(), "jain": fairness.mean().detach(), "to_slnr": gained.mean()}


def normalised(network: Network, power: Tensor) -> Tensor:
    """``H H^H`` [B, K, K] in units where the noise, and the power ``P/K`` of every beam, are one."""
    scale = (power.unsqueeze(-1) / network.users / network.noise).sqrt()
    H = network.channel * scale.unsqueeze(-1)
    return H @ H.mH


def outcome(gram: Tensor, prices: Tensor, ridges: Tensor) -> tuple[Tensor, Tensor]:
    """Sum rate [B] in bit/s/Hz and Jain's index [B] of the beams that these multipliers make."""
    power = squared_magnitude(gram @ coefficients(gram, prices, ridges))
    rate = torch.log1p(own(power) / (others(power) + 1)) / math.log(2)
    total = rate.sum(-1)
    return total, total.square() / (rate.shape[-1] * rate.square().sum(-1)).clamp_min(torch.finfo(rate.dtype).tiny)


class Sight(NamedTuple):
    """What the filter sees of the channels: features [B, K, 9], shifts [B, 6, K, K].

    gain  of the channels [B, K].       rate  sum rate [B] of the uplink with the same powers, the measure of prices.
    """

    nodes: Tensor
    shifts: Tensor
    gain: Tensor
    rate: Tensor


def observe(gram: Tensor) -> Sight:
    """Features and shifts of a Gram matrix, whatever the price of fairness.

    ``R = (I + G)^-1`` says it all: ``-log2 R_uu`` is user u's rate in the uplink with linear receivers, and ``G R``
    what the beams of SLNR do.
    """
    K, gain = gram.shape[-1], own(gram).real
    eps, tiny = torch.finfo(gain.dtype).eps, torch.finfo(gain.dtype).tiny ** 0.5
    factor, _ = torch.linalg.cholesky_ex(gram + torch.diag_embed(1 + 4 * eps * gain))
    R = torch.cholesky_inverse(factor)
    square, kept = squared_magnitude(R), own(R).real.clamp_min(tiny)
    uplink = -kept.log2().clamp_max(0)
    rate = uplink.sum(-1)
    # G R = I - R, and the beam H^H R e_u has power R_uu - sum_k |R_ku|^2
    heard = torch.diagonal_scatter(square, (1 - kept) ** 2, dim1=-2, dim2=-1)
    power = heard / (kept - square.sum(-2)).clamp_min(tiny).unsqueeze(-2)
    scale = torch.where(gain > 0, gain, torch.inf).reciprocal()
    alike = squared_magnitude(gram) * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    itself = torch.eye(K, dtype=torch.bool, device=gain.device)
    weak = alike * gain.clamp_min(tiny).rsqrt().unsqueeze(-2).masked_fill(itself, 0)
    shifts = torch.stack(
        [
            alike,
            square / (kept.unsqueeze(-1) * kept.unsqueeze(-2)),
            power / (power.sum(-1, keepdim=True) + 1),
            (power / (power.sum(-2, keepdim=True) + 1)).mT,
            weak / weak.sum(-1, keepdim=True).clamp_min(tiny),
            torch.full_like(alike, 1 / K),
        ],
        1,
    ).masked_fill(itself, 0)
    mean = uplink.mean(-1, keepdim=True)
    fair = mean.square() / uplink.square().mean(-1, keepdim=True).clamp_min(tiny)
    nodes = torch.stack(
        [
            gain.clamp_min(1e-6).log() / 5,
            kept.log() / 5,
            (kept * (1 + gain)).log(),
            shifts[:, 0].sum(-1),
            shifts[:, 0].square().sum(-1),
            shifts[:, 1].sum(-1),
            uplink / mean.clamp_min(tiny) - 1,
            (mean / 5).expand_as(gain),
            fair.expand_as(gain),
        ],
        -1,
    )
    return Sight(nodes, shifts, gain, rate)


def slnr(sight: Sight, price: Tensor) -> tuple[Tensor, Tensor]:
    """Multipliers [B, K] of weighted SLNR, whose exponent rises with the price of fairness [B]."""
    alpha = (STEEPNESS * price / sight.rate.clamp_min(torch.finfo(price.dtype).tiny)).clamp_max(STEEPEST)
    tiny = torch.finfo(price.dtype).tiny ** 0.5
    weakness = torch.where(sight.gain > 0, -alpha.unsqueeze(-1) * sight.gain.clamp_min(tiny).log(), -1 / tiny)
    share = torch.softmax(weakness, -1)
    return share.clamp_min(tiny) * sight.gain.shape[-1], torch.ones_like(sight.gain)


def priced(sight: Sight, price: Tensor) -> tuple[Tensor, Tensor]:
    """The prices mu to correct, and all features [B, K, 12]: those that the price of fairness changes stand last."""
    mu, _ = slnr(sight, price)
    share = (price / sight.rate.clamp_min(1e-3)).clamp_max(4 * DEAREST).unsqueeze(-1).expand_as(mu)
    own_features = torch.stack([mu.log() / 5, share - 2, (1 + 2 * share).log()], -1)
    return mu, torch.cat([sight.nodes, own_features], -1)
