"""The exact division of power: the least share for sensing with which every target is met."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.network import squared_magnitude
from beamforge.learned.isac.question import Question
from beamforge.learned.l2o.ascent import lmmse, of_full_power

MARGIN = 2e-7
"""Share by which a sensing SNR is asked for too much, so that rounding breaks no limit."""

ROUNDS = 8
"""Of the balancing of streams."""

SPARE = 1.2
"""Power of the first sensing streams over what meets all targets."""


class Answer(NamedTuple):
    """Beams W [B, N, K], streams F [B, N, 2 M] of power one together, their rate [B] in nats, who meets all [B]."""

    W: Tensor
    F: Tensor
    rate: Tensor
    met: Tensor


def least_share(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The least p [B] in [0, 1] with ``(1 - p) u_m + p v_m >= 1`` for all m, and whether there is one [B].

    one, other  u, v [B, M], sensing SNRs of two sets of streams with all the power each, over those asked for.

    >>> least_share(torch.tensor([[0.5, 2.0]]), torch.tensor([[4.5, 0.0]]))
    (tensor([0.1250]), tensor([True]))
    """
    need, gain = 1 + MARGIN - one, other - one
    slope = torch.where(gain == 0, 1, gain)
    least = torch.where(gain > 0, need / slope, 0).amax(-1).clamp_min(0)
    most = torch.where(gain < 0, need / slope, 1).amin(-1).clamp_max(1)
    possible = (least <= most) & ((need <= 0) | (gain != 0)).all(-1)
    return torch.where(possible, least, 0), possible


def balanced(asked: Question) -> Tensor:
    """Streams F [B, N, M] of power one towards the targets, ``f_m ~ sqrt(p_m) c_m``: powers that make SNRs equal.

    p is multiplied by ``1 / SNR_m``, some times. Of the instances in which all targets can be met with the power,
    these streams meet them all in about 98 % (five targets, 16 antennas).
    """
    size = squared_magnitude(asked.C).sum(-2, keepdim=True)
    F = of_full_power(asked.C / torch.where(size > 0, size, 1))
    for _ in range(ROUNDS):
        seen = asked.sensed(F).unsqueeze(-2)
        F = of_full_power(F * torch.where(seen > 0, seen, 1).rsqrt())
    return F


def first(asked: Question, streams: Tensor) -> tuple[Tensor, Tensor]:
    """Regularised zero forcing and streams F [B, N, M] with somewhat more than the least share of the power."""
    W = lmmse(asked.H, asked.masks.users)
    least, possible = least_share(asked.sensed(W), asked.sensed(streams))
    return mixed(W, streams, torch.where(possible, SPARE * least, 0.5).clamp(0.02, 0.98))


def mixed(W: Tensor, F: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """W with the power ``1 - p`` of it, F with p [B]."""
    share = share.clamp(1e-12, 1 - 1e-12)[:, None, None]  # square roots have no slope at zero
    return W * (1 - share).sqrt(), F * share.sqrt()


def repaired(asked: Question, W: Tensor, F: Tensor, streams: Tensor) -> Answer:
    """The better of two ways in which all targets are met exactly, each of them with the least share of the power:

    that of F [B, N, M] beside W, or that of balanced streams [B, N, M] beside both. The rate falls with either share,
    so a larger one would do no good. Where neither way meets all targets the streams stay as they are.
    """
    data, sensing = of_full_power(W), of_full_power(F)
    share, met = least_share(asked.sensed(data), asked.sensed(sensing))
    one = mixed(data, sensing, share)
    extra, met_too = least_share(asked.sensed(torch.cat([W, F], -1)), asked.sensed(streams))
    both, added = mixed(torch.cat([W, F], -1), streams, extra)
    other = both[..., : W.shape[-1]], torch.cat([both[..., W.shape[-1] :], added], -1)
    rates = asked.rate(*one), asked.rate(*other)
    wide = torch.nn.functional.pad
    if_met = met & (~met_too | (rates[0] >= rates[1]))
    M = F.shape[-1]
    pairs = (one[0], wide(one[1], (0, M))), other, (W, wide(F, (0, M)))
    chosen = [
        torch.where(if_met[:, None, None], a, torch.where(met_too[:, None, None], b, c))
        for a, b, c in zip(*pairs, strict=True)
    ]
    rate = torch.where(if_met, rates[0], torch.where(met_too, rates[1], asked.rate(W, F)))
    return Answer(chosen[0], chosen[1], rate, met | met_too)


def fitted(asked: Question, answer: Answer, count: int) -> Answer:
    """The answer with `count` sensing streams [B, N, count] of the same covariance, or its strongest directions.

    Where these are too few for it, the power is divided anew.
    """
    F = answer.F
    if count < F.shape[-1]:
        U, size, _ = torch.linalg.svd(F, full_matrices=False)
        F = (U * size.unsqueeze(-2))[..., :count]
    F = torch.nn.functional.pad(F, (0, count - F.shape[-1]))
    if count >= min(answer.F.shape[-2:]):
        return answer._replace(F=F)
    data = of_full_power(answer.W)
    share, met = least_share(asked.sensed(data), asked.sensed(of_full_power(F)))
    W, F = mixed(data, of_full_power(F), share)
    W = torch.where((share > 0)[:, None, None], W, data)
    return Answer(W, F, asked.rate(W, F), met)
