"""User selection: initial shares of the dual uplink power, and the gain of the sum rate when a user is switched off.

All functions use the Gram matrix ``H H^H`` [B, K, K] in units of noise over power, and the weights [B, K] of the rates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from beamforge.classical.sum_rate.uplink_newton import errors
from beamforge.core.network import own, squared_magnitude

LEFT_OUT = 1e-7
"""Share of the uplink power of users that a start leaves out."""

OFF = 1e-7
"""Share of the uplink power below which a user is switched off."""

EPS = torch.finfo(torch.float64).eps


def removal_gain(gram: Tensor, weights: Tensor, shares: Tensor) -> Tensor:
    """Least increase of the sum rate [B, K] when a user is switched off; -inf for users that are off."""
    B = errors(gram, shares)
    gain = removal_gain_from_errors(B, own(B).real.unsqueeze(-2), weights)
    return torch.where(shares > OFF, gain, -torch.inf)


def removal_gain_from_errors(rows: Tensor, diagonals: Tensor, weights: Tensor) -> Tensor:
    """Gain of the weighted sum rate [B, K] when each user is switched off, from the errors of linear MMSE receivers.

    rows       [B, K, K]: row k of the matrix B of the transmitter of user k; the error of user k is on the diagonal.
    diagonals  [B, K, K] or [B, 1, K]: row k is the diagonal of that matrix B.

    Without user j, ``e_k = B_kk - |B_kj|^2 / B_jj`` and ``e_j = 1``.
    """
    error = own(rows).real
    lost = squared_magnitude(rows) / (error.unsqueeze(-1) * diagonals)
    kept = (1 - torch.diagonal_scatter(lost, torch.zeros_like(error), 0, -2, -1)).clamp_min(EPS)
    return (weights * error.log() - (weights.unsqueeze(-1) * kept.log()).sum(-2)) / math.log(2)


def backward_elimination(gram: Tensor, weights: Tensor) -> Tensor:
    """Shares [B, K]: equal uplink powers for the users that are left after removing, one by one, the user whose removal
    increases the sum rate most, as long as one does."""
    shares = torch.full_like(weights, 1 / gram.shape[-1])
    for _ in range(gram.shape[-1] - 1):
        gain = removal_gain(gram, weights, shares)
        if not (gain > 0).any():
            break
        shares = shares * staying(gain)
        shares = shares / shares.sum(-1, keepdim=True)
    return shares + LEFT_OUT


def served_users(gram: Tensor, weights: Tensor, serves: Tensor, power: Tensor) -> Tensor:
    """The users that are left by backward elimination with several transmitters, as zeros and ones [B, K].

    gram    ``H_t H_t^H`` [B, T, K, K] in units of the noise.
    serves  zeros and ones [B, T, K]: whether transmitter t serves user k.
    power   [B, T], shared equally by the remaining users of a transmitter.
    """
    on, mine = torch.ones_like(weights), serves.to(weights)
    for _ in range(gram.shape[-1]):
        each = power / (mine * on.unsqueeze(1)).sum(-1).clamp_min(1)
        shares = on * (mine * each.unsqueeze(-1)).sum(1)
        B = errors(gram, shares.unsqueeze(1))
        rows = (B * mine.unsqueeze(-1)).sum(1)
        diagonals = (own(B).real.unsqueeze(-2) * mine.unsqueeze(-1)).sum(1)
        gain = torch.where(on > 0, removal_gain_from_errors(rows, diagonals, weights), -torch.inf)
        if not (gain > 0).any():
            break
        on = on * staying(gain)
    return on


def staying(gain: Tensor) -> Tensor:
    """Zeros and ones [B, K]: zero for the user of the greatest removal gain, if it is positive."""
    most = torch.nn.functional.one_hot(gain.argmax(-1), gain.shape[-1])
    return 1 - (most * (gain > 0)).to(gain.dtype)


def orthogonal_users(gram: Tensor, weights: Tensor) -> Tensor:
    """Shares [B, K]: equal uplink powers for users chosen one by one, almost none for the others.

    The next user is the one with the greatest (weighted) channel gain orthogonal to the users before, by a pivoted
    Cholesky factorisation of the Gram matrix. Of the numbers of users 2K/8, 3K/8, ..., K, the one of the best rate is
    chosen.

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
        share = (rank < count) / count + LEFT_OUT
        rate = -(weights * own(errors(gram, share)).real.log()).sum(-1)
        shares = torch.where((rate > best).unsqueeze(-1), share, shares)
        best = torch.maximum(rate, best)
    return shares
