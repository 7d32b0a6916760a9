"""Which users to serve: starts for the shares of the dual uplink's power, and what it gains to switch a user off.

All work on the Gram matrix ``H H^H`` [B, K, K] in units of noise over power, and on the weights [B, K] of the rates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from beamforge.classical.sum_rate.uplink_newton import errors
from beamforge.core.network import own, squared_magnitude

SLIGHT = 1e-7
"""Share of the uplink power for users that a start leaves out."""

OFF = 1e-7
"""Share of the uplink power below which a user is switched off."""


def gain_without(gram: Tensor, weights: Tensor, shares: Tensor) -> Tensor:
    """By how much the rate rises at least [B, K] when a user is switched off; -inf for one that is."""
    B = errors(gram, shares)
    error = own(B).real
    lost = squared_magnitude(B) / (error.unsqueeze(-1) * error.unsqueeze(-2))
    kept = (1 - torch.diagonal_scatter(lost, torch.zeros_like(error), 0, -2, -1)).clamp_min(
        torch.finfo(error.dtype).eps
    )
    gain = weights * error.log() - (weights.unsqueeze(-1) * kept.log()).sum(-2)
    return torch.where(shares > OFF, gain, -torch.inf) / math.log(2)


def without_crowd(gram: Tensor, weights: Tensor) -> Tensor:
    """Shares [B, K]: equal uplink powers for the users that are left when one by one those are that cost the others
    more than they have themselves."""
    shares = torch.full_like(weights, 1 / gram.shape[-1])
    for _ in range(gram.shape[-1] - 1):
        gain = gain_without(gram, weights, shares)
        if not (gain > 0).any():
            break
        leaves = torch.nn.functional.one_hot(gain.argmax(-1), gain.shape[-1]) * (gain > 0)
        shares = shares * (1 - leaves)
        shares = shares / shares.sum(-1, keepdim=True)
    return shares + SLIGHT


def orthogonal_users(gram: Tensor, weights: Tensor) -> Tensor:
    """Shares [B, K]: equal uplink powers for users chosen one by one, almost none for the others.

    Each next user is the one with most channel across those before it, a pivoted Cholesky factorisation of the Gram
    matrix; of the numbers of users 2K/8, 3K/8, ..., K the one of the best rate is taken.

    Source: T. Yoo, A. Goldsmith, "On the optimality of multiantenna broadcast scheduling using zero-forcing
    beamforming", IEEE J. Sel. Areas Commun. 24 (2006), section IV.
    """
    rest, K, places = gram, gram.shape[-1], torch.arange(len(gram), device=gram.device)
    rank = torch.full_like(weights, K)
    for number in range(K):
        left = torch.where(rank == K, weights * own(rest).real, -torch.inf)
        chosen = left.argmax(-1)
        rank[places, chosen] = number
        column = rest[places, :, chosen]
        size = column[places, chosen].real
        column = column * torch.where(size > 0, size, torch.inf).rsqrt().unsqueeze(-1)
        rest = rest - column.unsqueeze(-1) * column.conj().unsqueeze(-2)
    best, shares = torch.full_like(weights[:, 0], -torch.inf), rank
    for count in sorted({math.ceil(K * eighths / 8) for eighths in range(2, 9)}):
        share = (rank < count) / count + SLIGHT
        rate = -(weights * own(errors(gram, share)).real.log()).sum(-1)
        shares = torch.where((rate > best).unsqueeze(-1), share, shares)
        best = torch.maximum(rate, best)
    return shares
