"""Local view of base stations: functions of their own channels that are invariant to units and rotations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.network import squared_magnitude
from beamforge.decentralised.base_stations import BaseStations

FAINTEST = 1e-6
"""Smallest power relative to the noise in logarithms."""


class StationView(NamedTuple):
    """S of the K base stations, each with its unit-norm channels and their gains relative to the noise.

    All derived quantities are invariant to a unitary transform of the antennas of a base station, to the phase of a
    channel, and to ``(h, P) -> (a h, P / a^2)``; the phases of `gram` and `align` cancel.

    rows    complex [B, S, K, N]: ``h_kj^H / |h_kj|``, zero for a user without a channel.
    gram    complex [B, S, K, K]: inner products of the rows.
    align   complex [B, S, K]: inner products with the own channel.
    gain    [B, S, K]: ``P_k |h_kj|^2 / sigma_j^2``, SNR of full power along a channel.
    own     [B, S]: gain of the own channel.
    itself  [S, K]: one for the served user, zero for the others.
    """

    rows: Tensor
    gram: Tensor
    align: Tensor
    gain: Tensor
    own: Tensor
    itself: Tensor

    @classmethod
    def of(cls, stations: BaseStations) -> StationView:
        """Local view of each base station.

        >>> H, ones = torch.eye(2, dtype=torch.complex64).expand(1, 2, 2, 2), torch.ones(1, 2)
        >>> stations = BaseStations(H, torch.arange(2), ones, ones)
        >>> StationView.of(stations).gain
        tensor([[[1., 1.],
                 [1., 1.]]])
        """
        H = stations.H
        largest = torch.maximum(H.real.abs(), H.imag.abs()).amax(-1, keepdim=True)  # squares of 1e-30 are not float32
        scaled = H / torch.where(largest > 0, largest, 1)
        norm = squared_magnitude(scaled).sum(-1, keepdim=True)
        rows = scaled * torch.where(norm > 0, norm, 1).rsqrt()
        gram = rows @ rows.mH
        itself = (~stations.others).to(largest)
        gain = (largest * (stations.power.sqrt()[..., None, None] * norm.sqrt())).squeeze(-1).square()
        align = (gram * itself.unsqueeze(-2)).sum(-1)
        return cls(rows, gram, align, gain, (gain * itself).sum(-1), itself)

    @property
    def others(self) -> Tensor:
        """[S, K]: zero for the served user, one for the others."""
        return 1 - self.itself

    @property
    def cosine(self) -> Tensor:
        """``|h_kk^H h_kj|^2 / (|h_kk| |h_kj|)^2`` [B, S, K], clamped to the open interval (0, 1)."""
        return squared_magnitude(self.align).clamp(1e-6, 1 - 1e-6)


class Direction(NamedTuple):
    """Directions ``z = (I + sum_j l_j u_j u_j^H)^-1 u_k`` for unit-norm channels u_j.

    z      complex [B, S, N].
    heard  [B, S, K]: ``|u_j^H z|^2``.
    along  [B, S]: ``u_k^H z``.
    norm   [B, S]: ``|z|^2``, at most `along`.
    """

    z: Tensor
    heard: Tensor
    along: Tensor
    norm: Tensor

    @property
    def leakage(self) -> Tensor:
        """Power [B, S, K] of the unit-norm beam along z at each unit-norm channel."""
        return self.heard / torch.where(self.norm > 0, self.norm, 1).unsqueeze(-1)


def direction(view: StationView, loads: Tensor) -> Direction:
    """Direction for non-negative loads [B, S, K]; the load of the served user is ignored.

    A load is ``l_j = d_kj |h_kj|^2 / d_kk``, for which the direction is that of (12a), ``A_k^-1 h_kk`` up to a factor.
    Zero loads give MRT, infinite loads zero forcing, and loads equal to `gain` the SLNR beam.
    """
    root = loads.clamp_min(1e-12).sqrt() * view.others
    M = root.unsqueeze(-1) * view.gram * root.unsqueeze(-2)
    rounding = 4 * torch.finfo(root.dtype).eps * root.square()
    M.diagonal(dim1=-2, dim2=-1).add_(1 + rounding)
    factor = torch.linalg.cholesky_ex(M)[0]
    solved = torch.cholesky_solve((root * view.align).unsqueeze(-1), factor).squeeze(-1)
    z = view.rows.mH @ (view.itself - root * solved).unsqueeze(-1)
    heard, norm = (view.rows @ z).squeeze(-1), squared_magnitude(z).sum((-2, -1))
    along = (heard.real * view.itself).sum(-1)
    return Direction(z.squeeze(-1), squared_magnitude(heard), torch.maximum(along, norm), norm)


def beams(direction: Direction, power: Tensor) -> Tensor:
    """Beams [B, S, N] along z with powers [B, S] in watts; zero where z is zero."""
    sent = direction.norm > 0
    scale = torch.where(sent, power, 0) / torch.where(sent, direction.norm, 1)
    return direction.z * torch.where(scale > 0, scale, 1).sqrt().unsqueeze(-1) * (scale > 0).unsqueeze(-1)
