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

EPS = torch.finfo(torch.float64).eps


def gain_without(gram: Tensor, weights: Tensor, shares: Tensor) -> Tensor:
    """By how much the rate rises at least [B, K] when a user is switched off; -inf for one that is."""
    B = errors(gram, shares)
    gain = gain_by_leaving(B, own(B).real.unsqueeze(-2), weights)
    return torch.where(shares > OFF, gain, -torch.inf)


def gain_by_leaving(rows: Tensor, diagonals: Tensor, weights: Tensor) -> Tensor:
    """What the weighted sum rate gains [B, K] by each user's leaving, from the errors of linear MMSE receivers.

    rows       [B, K, K]: row k is that of user k in the matrix B of its own transmitter, its error on the diagonal.
    diagonals  [B, K, K] or [B, 1, K]: row k is the diagonal of that matrix.

    Without user j, ``e_k = B_kk - |B_kj|^2 / B_jj``, and its own error is one.
    """
    error = own(rows).real
    lost = squared_magnitude(rows) / (error.unsqueeze(-1) * diagonals)
    kept = (1 - torch.diagonal_scatter(lost, torch.zeros_like(error), 0, -2, -1)).clamp_min(EPS)
    return (weights * error.log() - (weights.unsqueeze(-1) * kept.log()).sum(-2)) / math.log(2)


def without_crowd(gram: Tensor, weights: Tensor) -> Tensor:
    """Shares [B, K]: equal uplink powers for the users that are left when one by one those are that cost the others
    more than they have themselves."""
    shares = torch.full_like(weights, 1 / gram.shape[-1])
    for _ in range(gram.shape[-1] - 1):
        gain = gain_without(gram, weights, shares)
        if not (gain > 0).any():
            break
        shares = shares * staying(gain)
        shares = shares / shares.sum(-1, keepdim=True)
    return shares + SLIGHT


def served(gram: Tensor, weights: Tensor, serves: Tensor, power: Tensor) -> Tensor:
    """Zeros and ones [B, K]: as `without_crowd` leaves users out, where several transmitters serve them.

    gram    ``H_t H_t^H`` [B, T, K, K] in units of the noise.
    serves  zeros and ones [B, T, K]: who serves whom.
    power   [B, T], shared equally by the users whom a transmitter still serves.
    """
    on, mine = torch.ones_like(weights), serves.to(weights)
    for _ in range(gram.shape[-1]):
        each = power / (mine * on.unsqueeze(1)).sum(-1).clamp_min(1)
        shares = on * (mine * each.unsqueeze(-1)).sum(1)
        B = errors(gram, shares.unsqueeze(1))
        rows = (B * mine.unsqueeze(-1)).sum(1)
        diagonals = (own(B).real.unsqueeze(-2) * mine.unsqueeze(-1)).sum(1)
        gain = torch.where(on > 0, gain_by_leaving(rows, diagonals, weights), -torch.inf)
        if not (gain > 0).any():
            break
        on = on * staying(gain)
    return on


def staying(gain: Tensor) -> Tensor:
    """Zeros and ones [B, K]: everyone but the user whose leaving gains most, if it gains anything."""
    most = torch.nn.functional.one_hot(gain.argmax(-1), gain.shape[-1])
    return 1 - (most * (gain > 0)).to(gain.dtype)


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
