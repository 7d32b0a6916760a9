"""What an instance and its beams look like whatever the coordinates: powers, rates and angles, on logarithmic scales.

Only logarithms of numbers that a masked user or antenna cannot spoil are taken; its own entries are set to zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.core.network import own, squared_magnitude
from beamforge.learned.l2o.ascent import Received, shares
from beamforge.learned.l2o.masks import Masks

USERS, USER_PAIRS, ANTENNAS, ANTENNA_PAIRS = 9, 4, 3, 2
"""How many features there are of users, of antennas, and of pairs of either."""

SMALL = 1e-5
"""Share of the mean at which logarithms of shares begin."""


def of_users(H: Tensor, auxiliary: Tensor, W: Tensor, seen: Received, weights: Tensor, masks: Masks) -> Tensor:
    """Features [B, K, 9]: logarithms, those of shares over the mean of the users that are there.

    Shares: price of interference, auxiliary gain ``|G_k|^2 / |h_k|^2``, beam power. Others, of one plus the value:
    signal, interference, SINR, leakage to others, channel gain. And K/N.
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
    """Features [B, K, K, 4] of user k looking at user j: what it hears of j and j of it, their angle, and if k is j."""
    power = squared_magnitude(seen.amplitude).log1p()
    same = torch.eye(H.shape[-2], dtype=power.dtype, device=power.device).expand_as(power)
    return torch.stack([power, power.mT, cosine(H @ H.mH), same], -1)


def of_antennas(H: Tensor, W: Tensor, masks: Masks) -> Tensor:
    """Features [B, N, 3]: logarithms of an antenna's share of the channels and of the power, and of K/N."""
    count, users = masks.antennas.sum(-1, keepdim=True).to(H.real), masks.active().unsqueeze(-1).to(H.real)
    gain, power = squared_magnitude(H).sum(-2), squared_magnitude(W).sum(-1)
    load = (users / count.clamp_min(1)).log().expand_as(gain)
    return torch.where(
        masks.antennas.unsqueeze(-1), torch.stack([share(gain, count), share(power, count), load], -1), 0
    )


def between_antennas(H: Tensor, W: Tensor) -> Tensor:
    """Features [B, N, N, 2]: how alike the channels of two antennas are, and the beams on them."""
    return torch.stack([cosine(H.mH @ H), cosine(W @ W.mH)], -1)


def share(value: Tensor, count: Tensor) -> Tensor:
    """Logarithm of a value over its mean [B, n]; `count` [B, 1] of its entries are there, the others zero."""
    total = value.sum(-1, keepdim=True)
    return (value * count / torch.where(total > 0, total, 1) + SMALL).log()


def cosine(gram: Tensor) -> Tensor:
    """``|G_kj|^2 / (G_kk G_jj)``, zero where there is nothing."""
    size = own(gram).real
    inverse = torch.where(size > 0, size, torch.inf).rsqrt()
    return squared_magnitude(gram * inverse.unsqueeze(-1) * inverse.unsqueeze(-2))
