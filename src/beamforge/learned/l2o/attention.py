"""Attention over a set with masked members."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LIMIT = 6.0
"""Largest output of an axis network; outputs are logarithms."""


class MaskedAttention(nn.Module):
    """Multi-head attention among the tokens that are present; masked tokens have no influence and zero output.

    Only keys are masked, and outputs of masked tokens are set to zero. The masks as printed have rows of minus
    infinity, which give rows of NaN.

    width  dimension of a token.
    heads  number of heads.
    depth  dimension of a head.

    Source: Eqs. 14 to 19, with only keys masked.
    """

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.heads, self.depth = heads, depth
        self.ask = nn.Linear(width, 3 * heads * depth, bias=False)

    def forward(self, tokens: Tensor, present: Tensor, bias: Tensor | None = None) -> Tensor:
        """Concatenated outputs of all heads [B, n, heads depth].

        tokens   [B, n, width].
        present  boolean [B, n].
        bias     [B, heads, n, n], added to the logits.
        """
        query, key, value = self.ask(tokens).unflatten(-1, (3, self.heads, self.depth)).permute(2, 0, 3, 1, 4)
        logits = query @ key.mT / math.sqrt(self.depth)
        logits = logits if bias is None else logits + bias
        logits = logits.masked_fill(~present[:, None, None, :], torch.finfo(logits.dtype).min)
        heard = (torch.softmax(logits, -1) @ value).transpose(1, 2).flatten(2)
        return torch.where(present.unsqueeze(-1), heard, 0)


class AttentionBlock(nn.Module):
    """``x <- x + attention``, with logits biased by features of pairs, then ``x <- x + feed-forward``."""

    def __init__(self, pairs: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.bias = nn.Linear(pairs, heads)
        self.attention = MaskedAttention(width, heads, depth)
        self.mix = nn.Linear(heads * depth, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width)
        )

    def forward(self, x: Tensor, pairs: Tensor, present: Tensor) -> Tensor:
        """Tokens [B, n, width] after the block, for features of pairs [B, n, n, pairs] and a mask [B, n]."""
        x = x + self.mix(self.attention(x, present, self.bias(pairs).permute(0, 3, 1, 2)))
        return x + self.feed(x)


class AxisNetwork(nn.Module):
    """Maps features [B, n, features] and features of pairs [B, n, n, pairs] of one axis to outputs [B, n].

    Outputs are zero initially, and always zero for masked members.
    """

    def __init__(
        self, features: int, pairs: int, width: int, heads: int, depth: int, out: int, blocks: int = 1
    ) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width))
        self.blocks = nn.ModuleList(AttentionBlock(pairs, width, heads, depth) for _ in range(blocks))
        self.out = nn.Linear(width, out)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, pairs: Tensor, present: Tensor) -> tuple[Tensor, ...]:
        """The outputs, each [B, n]."""
        x = self.embed(features)
        for block in self.blocks:
            x = block(x, pairs, present)
        x = self.out(x).to(features.dtype).clamp(-LIMIT, LIMIT)
        return torch.where(present.unsqueeze(-1), x, 0).unbind(-1)
