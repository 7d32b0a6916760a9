"""Attention over a set some of whose members are masked."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class MaskedAttention(nn.Module):
    """Heads that look from every token at the tokens that take part; those that do not hear and say nothing.

    Only keys are masked, and what masked tokens would hear is set to zero: rows of minus infinity, as the printed masks
    have them, make rows of NaN.

    width  of a token.     heads, depth  their number, and the numbers each of them has of a token.

    Source: Eqs. 14 to 19, with keys masked alone.
    """

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.heads, self.depth = heads, depth
        self.ask = nn.Linear(width, 3 * heads * depth, bias=False)

    def forward(self, tokens: Tensor, present: Tensor, bias: Tensor | None = None) -> Tensor:
        """What every token takes from all heads [B, n, heads depth], side by side.

        tokens   [B, n, width].
        present  boolean [B, n].
        bias     [B, heads, n, n], added to what the softmax is of.
        """
        query, key, value = self.ask(tokens).unflatten(-1, (3, self.heads, self.depth)).permute(2, 0, 3, 1, 4)
        logits = query @ key.mT / math.sqrt(self.depth)
        logits = logits if bias is None else logits + bias
        logits = logits.masked_fill(~present[:, None, None, :], torch.finfo(logits.dtype).min)
        heard = (torch.softmax(logits, -1) @ value).transpose(1, 2).flatten(2)
        return torch.where(present.unsqueeze(-1), heard, 0)
