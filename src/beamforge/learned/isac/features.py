"""Inputs of the graph filter over users and sensing targets, from one Gram matrix, for any number of antennas."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.isac.dual import separate_powers
from beamforge.classical.isac.wmmse import SensingChannel
from beamforge.classical.structure import loaded_inverse
from beamforge.classical.sum_rate.reduced_wmmse import Multipliers, WhitenedChannel, receivers
from beamforge.core.network import others, own, squared_magnitude
from beamforge.learned.multipliers.sum_rate import SumRateMultipliers

FEATURES = 15
SHIFTS = 3

RIDGE_FACTOR = 10.0
"""Factor of the ridge in the third shift."""

LARGEST_SHARE = 0.9
"""Largest share of the power that targets are taken to need where their prices are guessed."""

STEPS = 1
"""Steps of reduced WMMSE in the initial values."""


class Features(NamedTuple):
    """Features [B, K + M, 15] and shifts [B, 3, K + M, K + M] of users and targets, and what the filter corrects.

    start   multipliers [B, K] of the users: receivers and MSE weights of learned multipliers without targets.
    left    share [B] of the power that separate beams to the targets leave.
    prices  [B, M]: ``x_m level_m``, of target m, in units of the sum of q.
    rate    weighted sum rate [B] of these receivers, bit/s/Hz.
    """

    nodes: Tensor
    shifts: Tensor
    start: Multipliers
    left: Tensor
    prices: Tensor
    rate: Tensor


def observe(data: SensingChannel) -> Features:
    """Inputs of the filter for a batch.

    Users are the rows ``sqrt(P) h_k^H`` in units of the noise, targets the rows ``sqrt(P / level_m) c_m^H``, whose
    squared norm is the power limit over the power for that target alone. Of their common Gram matrix G, and its inverse
    R with a ridge of K for users and 1 for targets, the shifts are the squared correlation of the rows; that of the
    rows of R; and the power that a beam matched to row j delivers to row i, over ``G_ii`` and ten times the ridge. With
    ``r_m`` the power for target m alone over the limit, the prices are ``r_m / (1 - sum r)``.
    """
    K, M = data.H.shape[-2], data.C.shape[-1]
    scale = data.power.sqrt()[:, None, None]
    alone = separate_powers(data.C, data.level) / data.power.unsqueeze(-1)
    aimed = data.C * data.level.clamp_min(1e-300).rsqrt().unsqueeze(-2)
    rows = scale * torch.cat([data.H, aimed.mH], -2)
    G = rows @ rows.mH
    gain, tiny = own(G).real, torch.finfo(data.power.dtype).tiny ** 0.5
    target = torch.arange(K + M, device=gain.device) >= K
    ridge = torch.where(target, 1.0, float(K)).to(gain) + 4 * torch.finfo(gain.dtype).eps * gain
    R = loaded_inverse(G, ridge)
    kept, far = own(R).real, (ridge * own(R).real).clamp(tiny, 1)
    inverse_gain = torch.where(gain > 0, gain, torch.inf).reciprocal()
    across = squared_magnitude(G) * inverse_gain.unsqueeze(-2)
    shifts = torch.stack(
        [
            across * inverse_gain.unsqueeze(-1),
            squared_magnitude(R) / (kept.unsqueeze(-1) * kept.unsqueeze(-2)),
            across / (gain + RIDGE_FACTOR * ridge).unsqueeze(-1),
        ],
        1,
    )
    shifts.diagonal(dim1=-2, dim2=-1).zero_()
    total = alone.sum(-1, keepdim=True)
    left = 1 - total.clamp_max(LARGEST_SHARE)
    start, rate = without_targets(data, data.power)
    guess = alone / left
    preference = (data.weights / data.weights.mean(-1, keepdim=True).clamp_min(tiny)).clamp_min(1e-4)
    usual = data.weights.mean(-1, keepdim=True).clamp_min(tiny).sqrt()
    none = torch.zeros_like(guess)

    def each(users: Tensor, targets: Tensor) -> Tensor:
        return torch.cat([users, targets], -1)

    def all_nodes(value: Tensor) -> Tensor:
        return value.expand(-1, K + M)

    nodes = torch.stack(
        [
            all_nodes(target.to(gain).unsqueeze(0)).expand_as(gain),
            gain.clamp_min(tiny).log() / 5,
            (gain / ridge).clamp_min(tiny).log() / 5,
            shifts[:, 0, :, :K].sum(-1),
            shifts[:, 0, :, K:].sum(-1),
            shifts[:, 1, :, :K].sum(-1),
            shifts[:, 1, :, K:].sum(-1),
            far,
            ((1 - far).clamp_min(tiny) / far).log() / 3,
            each(preference.log(), none),
            each((start.gain / usual).clamp_min(1e-4).log(), none),
            each((start.root / usual).clamp_min(1e-4).log(), none),
            each(torch.zeros_like(start.gain), guess.clamp(tiny, 1 / tiny).log()),
            all_nodes(total.clamp(tiny, 1 / tiny).log()),
            all_nodes(gain[:, :K].mean(-1, keepdim=True).clamp_min(tiny).log() / 5),
        ],
        -1,
    )
    return Features(nodes, shifts, start, left.squeeze(-1), guess.clamp(tiny, 1 / tiny), rate)


@cache
def sum_rate_multipliers() -> SumRateMultipliers:
    """The learned multipliers without targets, with their shipped weights."""
    with torch.device("cpu"):
        return SumRateMultipliers(steps=STEPS)


def without_targets(data: SensingChannel, power: Tensor) -> tuple[Multipliers, Tensor]:
    """Receivers and MSE weights [B, K] of `multipliers` without targets and with a power [B]; the sum rate [B]."""
    H = data.H * power.sqrt()[:, None, None]
    W = sum_rate_multipliers().solve_learned(WhitenedChannel(H, H @ H.mH, data.weights, power)).W
    received = squared_magnitude(data.H @ W)
    return receivers(data.weights, own(received), others(received))
