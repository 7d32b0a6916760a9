"""Local view of a base station in an interference channel: beams for prices, and features of a graph filter."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.network import own, squared_magnitude
from beamforge.decentralised.base_stations import BaseStations

FEATURES = 10
SHIFTS = 3

LEAST_WEIGHT = 1e-4
"""Smallest weight of a rate in logarithms."""

FAINT = 1e-6
"""Smallest power in logarithms, in units of the noise."""


class LocalView(NamedTuple):
    """Local views of S base stations, in units in which noise and power limit are one.

    gram      Gram matrix ``H H^H`` [B, S, K, K] of the channels of a base station.
    serves    integers [S], the served user; `mine` is the same as a mask [S, K].
    weights   positive weights [B, S, 1] of the rate of the served user.
    signal    received power [B, S, 1] of the SLNR beam at the served user.
    nodes     features [B, S, K, 10] of the users; `shifts` [B, S, 3, K, K] are shift operators between them.
    """

    gram: Tensor
    serves: Tensor
    mine: Tensor
    weights: Tensor
    signal: Tensor
    nodes: Tensor
    shifts: Tensor

    @classmethod
    def of(cls, stations: BaseStations) -> LocalView:
        """The views of a batch, by one factorisation of size K."""
        H = stations.H * stations.power.sqrt()[:, :, None, None]
        gram = H @ H.mH
        K, mine = gram.shape[-1], ~stations.others
        gain = own(gram).real.clamp_min(FAINT)
        served = taken(gain, stations.serves)
        closeness = squared_magnitude(gram) / (gain.unsqueeze(-1) * gain.unsqueeze(-2))
        closeness.diagonal(dim1=-2, dim2=-1).zero_()
        near = closeness.gather(-2, stations.serves[None, :, None, None].expand(len(gram), -1, 1, K)).squeeze(-2)
        power = received(gram, combination(gram, (~mine).to(gain).expand_as(gain), stations.serves))
        signal = taken(power, stations.serves).clamp_min(FAINT)
        leak = power.masked_fill(mine, 0)
        mask = mine.to(gain).expand_as(gain)
        nodes = [
            gain.log() / 5,
            served.log() / 5,
            mask,
            near,
            (leak + FAINT).log() / 5 * (1 - mask),
            signal.log() / 5,
            (signal / served).log(),
            leak.sum(-1, keepdim=True).log1p(),
            torch.full_like(served, math.log(K) / 2),
            closeness.sum(-1),
        ]
        shifts = [closeness, torch.full_like(closeness, 1 / K), mask.unsqueeze(-2).expand_as(closeness)]
        return cls(
            gram,
            stations.serves,
            mine,
            stations.weights.unsqueeze(-1).clamp_min(LEAST_WEIGHT),
            signal,
            torch.stack([each.expand_as(gain) for each in nodes], -1),
            torch.stack(shifts, 2),
        )


def taken(values: Tensor, serves: Tensor) -> Tensor:
    """Entries [B, S, 1] of values [B, S, K] at the served users."""
    return values.gather(-1, serves[None, :, None].expand(len(values), -1, 1))


def combination(gram: Tensor, prices: Tensor, serves: Tensor) -> Tensor:
    """Coefficients c [B, S, K] of the unit-norm beams ``H^H c ∝ (sum_j mu_j h_j h_j^H + I)^-1 h_k``.

    gram    ``H H^H`` [B, S, K, K].
    prices  mu [B, S, K] of interference at each user; zero at the own user k, where it only changes the norm.

    By Woodbury's identity ``c = e_k - D (I + D H H^H D)^-1 D H h_k`` with ``D = diag(sqrt(mu))``, without
    division by a price. A base station without a channel to its user gets c = e_k and thus a zero beam.

    >>> H = torch.tensor([[1.0 + 0j, 0.0], [1.0, 1.0]])
    >>> c = combination((H @ H.mH)[None, None], torch.tensor([[[1e6, 0.0]]]), torch.tensor([1]))
    >>> (H.mH @ c[0, 0]).abs().round(decimals=3)
    tensor([0., 1.])
    """
    root = prices.sqrt()
    column = gram.gather(-1, serves[None, :, None, None].expand(*gram.shape[:2], gram.shape[-1], 1))
    scaled = root.unsqueeze(-1) * gram * root.unsqueeze(-2)
    level = 1 + 4 * torch.finfo(root.dtype).eps * own(scaled).real
    factor, _ = torch.linalg.cholesky_ex(scaled + torch.diag_embed(level))
    taken_off = root * torch.cholesky_solve(root.unsqueeze(-1) * column, factor).squeeze(-1)
    unit = torch.nn.functional.one_hot(serves, gram.shape[-1]).to(root)
    c = unit - taken_off
    norm = (c.conj() * (gram @ c.unsqueeze(-1)).squeeze(-1)).real.sum(-1, keepdim=True)
    floor = torch.finfo(root.dtype).eps * taken(own(gram).real, serves)  # rounding level
    return c * torch.where(floor > 0, norm.maximum(floor), 1).rsqrt()


def received(gram: Tensor, c: Tensor) -> Tensor:
    """Received powers [B, S, K] of the beams ``H^H c`` at all users."""
    return squared_magnitude((gram @ c.unsqueeze(-1)).squeeze(-1))
