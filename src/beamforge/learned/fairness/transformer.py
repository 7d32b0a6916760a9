"""Attention over the users of a cell, from their features to the directions of their beams."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

USERS, ANTENNAS = 12, 16
FEATURES = 2 * ANTENNAS + 1
WIDTH, BLOCKS, HEADS = 4 * FEATURES, 8, 4

SHARPNESS, STRIDE, NOISE = 1.0, 0.35, 0.2
"""Of the steps that the initial weights make: of a user's attention to others, of the step, and of what is random."""


class Transformer(nn.Module):
    """Features [B, K, 2N + 1] to beams [B, K, 2N] of any length, real and imaginary parts; 873,476 parameters.

    Users are a set and have no positions, so relabelling them relabels the beams.

    Source: Fig. 1 and Table I of the fairness-controlled beamforming paper.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, WIDTH)
        blocks = [Block() for _ in range(BLOCKS)]
        into, out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * ANTENNAS)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Sequential(into, nn.GELU(approximate="tanh"), out)
        descend(self.embed, blocks, into, out)

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
        self.feed = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(approximate="tanh"), nn.Linear(WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.heard(x))
        return x + self.feed(x)

    def heard(self, x: Tensor) -> Tensor:
        """What the heads take from all users, side by side."""
        asked = self.ask(self.norm(x)).unflatten(-1, (3, HEADS, WIDTH // HEADS))
        query, key, value = asked.permute(2, 0, 3, 1, 4)
        found = torch.softmax(query @ key.mT / math.sqrt(WIDTH // HEADS), -1) @ value
        return found.transpose(1, 2).flatten(2)


@torch.no_grad()
def descend(embed: nn.Linear, blocks: Sequence[Block], into: nn.Linear, out: nn.Linear) -> None:
    """Initial weights of which every block makes about one step ``f_k <- f_k - c sum_l (d_l^H f_k) d_l`` on leakage.

    Random weights learn to compare channels only slowly; these begin with comparing them. A fourth of the width holds
    the features, directions d_k and gain, and the next fourth a beam f_k, which is d_k at first. By a softmax of
    ``Re d_l^H f_k`` two heads look, with either sign, for users that would hear the beam, and take their directions
    from it or give them to it; two more do so with ``Im d_l^H f_k`` and ``i d_l``. At the end the beam passes the
    activation in halves, ``x = gelu(x) - gelu(-x)``. All else is random and small, and free to learn.
    """
    seen, beam = slice(FEATURES), slice(FEATURES, 2 * FEATURES - 1)
    real = torch.eye(2 * ANTENNAS)
    imaginary = torch.cat([-real[ANTENNAS:], real[:ANTENNAS]])  # i times what stands in [Re, Im]
    for layer in nn.ModuleList([embed, *blocks, into, out]).modules():
        if isinstance(layer, nn.Linear):
            layer.weight.mul_(NOISE)
            layer.bias.zero_()

    embed.weight[: 2 * FEATURES] = 0
    embed.weight[seen, :] = torch.eye(FEATURES)
    embed.weight[beam, :-1] = real
    for block in blocks:
        ask = block.ask.weight.unflatten(0, (3, HEADS, WIDTH // HEADS))[:, :, :-1]
        ask.zero_()
        mix = block.mix.weight.unflatten(1, (HEADS, WIDTH // HEADS))[beam, :, :-1]
        for head, (sign, turn) in enumerate([(1, real), (-1, real), (1, imaginary), (-1, imaginary)]):
            ask[0, head, :, beam] = sign * SHARPNESS * real
            ask[1, head, :, :-1][:, : 2 * ANTENNAS] = turn
            ask[2, head, :, : 2 * ANTENNAS] = turn
            mix[:, head] -= sign * STRIDE * real
    into.weight[: 4 * ANTENNAS] = 0
    into.weight[: 4 * ANTENNAS, beam] = torch.cat([real, -real])
    out.weight[:, : 4 * ANTENNAS] += torch.cat([real, -real], 1)
