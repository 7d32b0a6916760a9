"""Invariant features of an instance and its beams: powers, rates and angles, on logarithmic scales.

Features are not affected by masked users or antennas, whose own entries are set to zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.core.network import own, squared_magnitude
from beamforge.learned.l2o.ascent import Received, shares
from beamforge.learned.l2o.masks import Masks

USERS, USER_PAIRS, ANTENNAS, ANTENNA_PAIRS = 9, 4, 3, 2
"""Numbers of features of users, pairs of users, antennas, and pairs of antennas."""

SMALL = 1e-5
"""Offset in logarithms of shares, relative to the mean."""


def of_users(H: Tensor, auxiliary: Tensor, W: Tensor, seen: Received, weights: Tensor, masks: Masks) -> Tensor:
    """Features [B, K, 9] of users, all logarithms.

    Relative to the mean over active users: price of interference, auxiliary gain ``|G_k|^2 / |h_k|^2``, beam power. Of
    one plus the value: signal, interference, SINR, leakage, channel gain. Finally K/N.
    """
    count, antennas = masks.active().unsqueeze(-1).to(weights), masks.antennas.sum(-1, keepdim=True).to(weights)
    leaked = squared_magnitude(seen.amplitude).sum(-2) - seen.signal
    features = [
        share(seen.prices(weights), count),
        share(shares(H, auxiliary), count),
        share(squared_magnitude(W).sum(-2), count),
        seen.signal.log1p(),
        seen.interference.log1p(),
        (seen.signal / (1 + seen.interference)).log1p(),
        leaked.clamp_min(0).log1p(),
        squared_magnitude(H).sum(-1).log1p(),
        (count / antennas.clamp_min(1)).log().expand_as(weights),
    ]
    return torch.where(masks.users.unsqueeze(-1), torch.stack(features, -1), 0)


def between_users(H: Tensor, seen: Received) -> Tensor:
    """Features [B, K, K, 4] of users k and j: received powers in both directions, squared cosine, and whether k = j."""
    power = squared_magnitude(seen.amplitude).log1p()
    same = torch.eye(H.shape[-2], dtype=power.dtype, device=power.device).expand_as(power)
    return torch.stack([power, power.mT, cosine(H @ H.mH), same], -1)


def of_antennas(H: Tensor, W: Tensor, masks: Masks) -> Tensor:
    """Features [B, N, 3] of antennas: logarithms of relative channel gain, of relative power, and of K/N."""
    count, users = masks.antennas.sum(-1, keepdim=True).to(H.real), masks.active().unsqueeze(-1).to(H.real)
    gain, power = squared_magnitude(H).sum(-2), squared_magnitude(W).sum(-1)
    load = (users / count.clamp_min(1)).log().expand_as(gain)
    return torch.where(
        masks.antennas.unsqueeze(-1), torch.stack([share(gain, count), share(power, count), load], -1), 0
    )


def between_antennas(H: Tensor, W: Tensor) -> Tensor:
    """Features [B, N, N, 2] of pairs of antennas: squared cosines of their channels and of their beam weights."""
    return torch.stack([cosine(H.mH @ H), cosine(W @ W.mH)], -1)


def share(value: Tensor, count: Tensor) -> Tensor:
    """Logarithm of a value [B, n] relative to its mean over `count` [B, 1] active entries; other entries are zero."""
    total = value.sum(-1, keepdim=True)
    return (value * count / torch.where(total > 0, total, 1) + SMALL).log()


def cosine(gram: Tensor) -> Tensor:
    """``|G_kj|^2 / (G_kk G_jj)``, zero where a norm is zero."""
    size = own(gram).real
    inverse = torch.where(size > 0, size, torch.inf).rsqrt()
    return squared_magnitude(gram * inverse.unsqueeze(-1) * inverse.unsqueeze(-2))
