"""Graph transformer: attention along users and antennas with a token for each pair."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from beamforge.classical.structure import unit
from beamforge.learned.l2o.direct import Direct
from beamforge.learned.l2o.masks import Masks


class GraphTransformer(Direct):
    """Weighted sum rate with tokens of user-antenna pairs, permutation equivariant in both axes.

    Input tokens are the entries of the channel and of the initial beams, with the phase of each user normalised. In
    every layer users attend to users and antennas to antennas, with logits summed over the other axis. The output is
    added to the initial beams, and is zero before training. Any numbers of users and antennas are supported.

    Source: Y. Duan, J. Guo, C. Yang, "Learning precoding in multi-user multi-antenna systems: transformer or graph
    transformer?", arXiv 2503.02998.
    """

    model = "graph-transformer"

    def network(self, **form: Any) -> nn.Module:
        return PairNetwork(**form)


class PairNetwork(nn.Module):
    """Beams by attention along both axes of the tokens of pairs."""

    def __init__(self, layers: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.layers = nn.ModuleList(PairLayer(width, heads, depth) for _ in range(layers))
        self.out = nn.Linear(width, 2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, H: Tensor, W: Tensor, weights: Tensor, masks: Masks) -> Tensor:
        """Beams [B, N, K]."""
        turn = settling(H)
        channel, first = turn * unit(H.mH).mH * H.shape[-1] ** 0.5, (W / turn.mT).mT * H.shape[-2] ** 0.5
        x = self.embed(torch.stack([channel.real, channel.imag, first.real, first.imag], -1))
        there = masks.samples().unsqueeze(-1)
        for layer in self.layers:
            x = layer(torch.where(there, x, 0), masks)
        real, imaginary = self.out(x).to(weights.dtype).unbind(-1)
        return W + (torch.complex(real, imaginary).mT * turn.mT) / H.shape[-2] ** 0.5


class PairLayer(nn.Module):
    """``x <- x + attention along both axes``, then ``x <- x + feed-forward``, of tokens [B, K, N, width]."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.heads, self.depth = heads, depth
        self.norm = nn.LayerNorm(width)
        self.ask = nn.ModuleList(nn.Linear(width, 3 * heads * depth, bias=False) for _ in range(2))
        self.mix = nn.ModuleList(nn.Linear(heads * depth, width) for _ in range(2))
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, masks: Masks) -> Tensor:
        """Tokens [B, K, N, width] after the layer."""
        seen = torch.where(masks.samples().unsqueeze(-1), self.norm(x), 0)
        users = self.attend(0, seen, masks.users, masks.antennas)
        antennas = self.attend(1, seen.transpose(1, 2), masks.antennas, masks.users).transpose(1, 2)
        x = x + users + antennas
        return x + self.feed(x)

    def attend(self, axis: int, x: Tensor, present: Tensor, across: Tensor) -> Tensor:
        """Attention among the members of one axis [B, n, m, width], with the same weights for all m of the other."""
        query, key, value = self.ask[axis](x).unflatten(-1, (3, self.heads, self.depth)).unbind(-3)
        count = across.sum(-1).clamp_min(1).to(x)[:, None, None, None]
        logits = torch.einsum("bimhd,bjmhd->bhij", query, key) / (count * math.sqrt(self.depth))
        logits = logits.masked_fill(~present[:, None, None, :], torch.finfo(logits.dtype).min)
        heard = torch.einsum("bhij,bjmhd->bimhd", torch.softmax(logits, -1), value)
        return self.mix[axis](heard.flatten(-2))


def settling(H: Tensor) -> Tensor:
    """Phase factors [B, K, 1] after which ``sum_n h_kn^2`` and ``sum_n (Re h_kn)^3`` are positive for every user."""
    half = -(H * H).sum(-1, keepdim=True).angle() / 2
    turn = torch.polar(torch.ones_like(half), half)
    return torch.where((H * turn).real.pow(3).sum(-1, keepdim=True) < 0, -turn, turn)
