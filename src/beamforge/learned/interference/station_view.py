"""What base stations see of their own channels, in numbers that neither units nor rotations change."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.network import squared_magnitude
from beamforge.decentralised.base_stations import BaseStations

FAINTEST = 1e-6
"""Below this, a power over the noise counts as so much where its logarithm is taken."""


class StationView(NamedTuple):
    """S base stations of K, each with its channels of norm one and their powers over the noise.

    A common unitary on a station's antennas, the phase of any channel, and ``(h, P) -> (a h, P / a^2)`` change none of
    these, except the phases of `gram` and `align`, which cancel in whatever is made of them.

    rows    complex [B, S, K, N]: ``h_kj^H / |h_kj|``, zero for a user that is not heard.
    gram    complex [B, S, K, K]: their inner products.
    align   complex [B, S, K]: those with the own channel.
    gain    [B, S, K]: ``P_k |h_kj|^2 / sigma_j^2``, what full power along a channel delivers.
    own     [B, S]: the same of the own channel.
    itself  [S, K]: one for the user that a station serves, zero for the others.
    """

    rows: Tensor
    gram: Tensor
    align: Tensor
    gain: Tensor
    own: Tensor
    itself: Tensor

    @classmethod
    def of(cls, stations: BaseStations) -> StationView:
        """The view of each base station by itself.

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
        """[S, K]: one for the users that a station does not serve."""
        return 1 - self.itself

    @property
    def cosine(self) -> Tensor:
        """``|h_kk^H h_kj|^2 / (|h_kk| |h_kj|)^2`` [B, S, K], never quite 0 or 1."""
        return squared_magnitude(self.align).clamp(1e-6, 1 - 1e-6)


class Direction(NamedTuple):
    """Directions ``z = (I + sum_j l_j u_j u_j^H)^-1 u_k``, u_j being channels of norm one.

    z      complex [B, S, N].
    heard  [B, S, K]: ``|u_j^H z|^2``.
    along  [B, S]: ``u_k^H z``.
    norm   [B, S]: ``|z|^2``, never more than that.
    """

    z: Tensor
    heard: Tensor
    along: Tensor
    norm: Tensor

    @property
    def leakage(self) -> Tensor:
        """What a beam of norm one along z puts on each channel of norm one, [B, S, K]."""
        return self.heard / torch.where(self.norm > 0, self.norm, 1).unsqueeze(-1)


def direction(view: StationView, loads: Tensor) -> Direction:
    """The direction that non-negative loads [B, S, K] lead to; that of a station's own user does not count.

    A load is a dual variable over that of the power, times the channel's power: with ``l_j = d_kj |h_kj|^2 / d_kk``
    this is (12a), ``A_k^-1 h_kk`` up to a factor. Loads of zero give MRT, infinite ones zero forcing, and `gain`
    the beams of the largest ratio of signal to leakage and noise.
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
    """Beams [B, S, N] along z of so many watts [B, S]; zero where z is."""
    sent = direction.norm > 0
    scale = torch.where(sent, power, 0) / torch.where(sent, direction.norm, 1)
    return direction.z * torch.where(scale > 0, scale, 1).sqrt().unsqueeze(-1) * (scale > 0).unsqueeze(-1)
