"""Attention over the users of a cell, from their features to the directions of their beams."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

USERS, ANTENNAS = 12, 16
FEATURES = 2 * ANTENNAS + 1
WIDTH, BLOCKS, HEADS = 4 * FEATURES, 8, 4

SHARPNESS, STEP, NOISE = 1.0, 0.35, 0.2
"""Of the initial weights: sharpness of the attention, length of the step, and scale of the random part."""


class Transformer(nn.Module):
    """Features [B, K, 2N + 1] to beams [B, K, 2N], real and imaginary parts, not normalised; 873,476 parameters.

    There is no positional encoding, so relabelling the users relabels the beams.

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
        initialise(self.embed, blocks, into, out)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(features))))


class Block(nn.Module):
    """``x <- x + attention(norm x)``, then ``x <- x + feed-forward(norm x)`` as wide as x.

    For a dozen users, attention written out is faster than a fused kernel.
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
        x = x + self.mix(self.attention(x))
        return x + self.feed(x)

    def attention(self, x: Tensor) -> Tensor:
        """Outputs of the attention heads, concatenated."""
        asked = self.ask(self.norm(x)).unflatten(-1, (3, HEADS, WIDTH // HEADS))
        query, key, value = asked.permute(2, 0, 3, 1, 4)
        found = torch.softmax(query @ key.mT / math.sqrt(WIDTH // HEADS), -1) @ value
        return found.transpose(1, 2).flatten(2)


@torch.no_grad()
def initialise(embed: nn.Linear, blocks: Sequence[Block], into: nn.Linear, out: nn.Linear) -> None:
    """Initial weights with which every block is about one step ``f_k <- f_k - c sum_l (d_l^H f_k) d_l`` on leakage.

    Random weights learn to compare channels only slowly; these compare them from the start. A fourth of the width holds
    the features (direction d_k and gain), the next fourth a beam f_k, which is d_k at first. Two heads attend, by a
    softmax of ``±Re d_l^H f_k``, to the users that receive the beam most, and subtract or add their directions d_l;
    two more do so with ``Im d_l^H f_k`` and ``i d_l``. At the end the beam passes the activation unchanged, since
    ``x = gelu(x) - gelu(-x)``. All other weights are random and small.
    """
    seen, beam = slice(FEATURES), slice(FEATURES, 2 * FEATURES - 1)
    real = torch.eye(2 * ANTENNAS)
    imaginary = torch.cat([-real[ANTENNAS:], real[:ANTENNAS]])  # multiplication of [Re, Im] by i
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
            mix[:, head] -= sign * STEP * real
    into.weight[: 4 * ANTENNAS] = 0
    into.weight[: 4 * ANTENNAS, beam] = torch.cat([real, -real])
    out.weight[:, : 4 * ANTENNAS] += torch.cat([real, -real], 1)
