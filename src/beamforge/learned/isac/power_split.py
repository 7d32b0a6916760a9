"""Exact power split: the least share of the power for sensing that meets all targets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.network import squared_magnitude
from beamforge.learned.isac.isac_data import IsacData
from beamforge.learned.l2o.ascent import of_full_power

MARGIN = 2e-7
"""Relative increase of the targets that prevents violations by rounding."""

NEGLIGIBLE = 1e-8
"""Share of the power below which sensing streams count as zero, so that derivatives are finite."""


class Answer(NamedTuple):
    """W [B, N, K] and F [B, N, S] of total power one, their rate [B] in nats, and whether all targets are met [B]."""

    W: Tensor
    F: Tensor
    rate: Tensor
    feasible: Tensor


def least_share(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The least p [B] in [0, 1] with ``(1 - p) u_m + p v_m >= 0`` for all m, and whether it exists [B].

    one, other  margins u, v [B, M] of two sets of streams at full power, ``SNR_m / level_m - 1``.

    p is zero where it does not exist.

    >>> least_share(torch.tensor([[-0.5, 1.0]]), torch.tensor([[3.5, -1.0]]))
    (tensor([0.1250]), tensor([True]))
    """
    need, gain = MARGIN - one, other - one
    slope = torch.where(gain == 0, 1, gain)
    least = torch.where(gain > 0, need / slope, 0).amax(-1).clamp_min(0)
    most = torch.where(gain < 0, need / slope, 1).amin(-1).clamp_max(1)
    exists = (least <= most) & ((need <= 0) | (gain != 0)).all(-1)
    return torch.where(exists, least, 0), exists


def mixed(W: Tensor, F: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """``sqrt(1 - p) W`` and ``sqrt(p) F`` for a share p [B], kept off 0 and 1, where the square root has no slope."""
    share = share.clamp(1e-12, 1 - 1e-12)[:, None, None]
    return W * (1 - share).sqrt(), F * share.sqrt()


def repaired(data: IsacData, W: Tensor, F: Tensor, steered: Tensor) -> Answer:
    """The better of two exact repairs, each with the least share p that meets all targets; F becomes [B, N, 2 M].

    One changes the power split of W [B, N, K] and F [B, N, M], the other adds `steered` streams [B, N, M] of power p to
    both. The rate decreases in p in either case, so that the least share is optimal. Instances in which neither repair
    meets all targets are unchanged.
    """
    wide = torch.nn.functional.pad
    K, M = W.shape[-1], F.shape[-1]
    beams, X = of_full_power(W), torch.cat([W, F], -1)
    power = squared_magnitude(F).sum((-2, -1), keepdim=True)
    sensing = of_full_power(torch.where(power > NEGLIGIBLE, F, 0))
    share, feasible = least_share(data.margins(beams), data.margins(sensing))
    one = mixed(beams, wide(sensing, (0, M)), share)
    share, feasible_too = least_share(data.margins(X), data.margins(steered))
    both, added = mixed(X, steered, share)
    other = both[..., :K], torch.cat([both[..., K:], added], -1)
    rates = torch.stack([data.rate(*one), data.rate(*other), data.rate(W, F)])
    first = feasible & (~feasible_too | (rates[0] >= rates[1]))

    def choose(one: Tensor, other: Tensor, neither: Tensor) -> Tensor:
        shape = (-1, *[1] * (one.ndim - 1))
        return torch.where(first.view(shape), one, torch.where(feasible_too.view(shape), other, neither))

    F = choose(one[1], other[1], wide(F, (0, M)))
    return Answer(choose(one[0], other[0], W), F, choose(*rates), feasible | feasible_too)


def fitted(data: IsacData, answer: Answer, count: int) -> Answer:
    """The answer with `count` sensing streams [B, N, count]: of the same covariance, or the strongest directions.

    If `count` is too small for the covariance, the power split is computed anew.
    """
    F, enough = answer.F, count >= min(answer.F.shape[-2:])
    if count < F.shape[-1]:
        U, size, _ = torch.linalg.svd(F, full_matrices=False)
        F = (U * size.unsqueeze(-2))[..., :count]
    F = torch.nn.functional.pad(F, (0, count - F.shape[-1]))
    if enough:
        return answer._replace(F=F)
    beams, sensing = of_full_power(answer.W), of_full_power(F)
    share, feasible = least_share(data.margins(beams), data.margins(sensing))
    W, F = mixed(beams, sensing, share)
    W = torch.where((share > 0)[:, None, None], W, beams)
    return Answer(W, F, data.rate(W, F), feasible)
