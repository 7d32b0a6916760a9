"""Virtual channels: channel estimates to which a network adds what their errors do to signals and interference."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.network import squared_magnitude
from beamforge.learned.hybrid.graph_convolution import GraphNetwork

FEATURES = 3
"""Inputs of a user: the logarithms of its gain, its target and the quality of its estimate."""

START = (0.9, 0.01, 1.0, 0.1)
"""Coefficients before training."""


class Virtual(NamedTuple):
    """Levels [B, K]: channels are ``wanted H_k + wanted_floor I`` or ``interfering H_k + interfering_floor I``.

    The hybrid beamforming paper's Eq. 27, reconstructed: with g_k the mean gain of an antenna, the floors are
    ``c_2 g_k`` and ``c_4 g_k``.
    """

    wanted: Tensor
    wanted_floor: Tensor
    interfering: Tensor
    interfering_floor: Tensor

    def relaxed(self, share: float) -> Virtual:
        """The floors times a share; with share 0 the estimates themselves."""
        if share == 0:
            one = torch.ones_like(self.wanted)
            return Virtual(one, 0 * one, one, 0 * one)
        return self._replace(wanted_floor=share * self.wanted_floor, interfering_floor=share * self.interfering_floor)

    def matrices(self, G: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
        """Wanted and interfering matrices ``A^H (.) A`` [B, K, M, M] for ``G_k = A^H H_k A`` and ``D = A^H A``."""

        def both(level: Tensor, floor: Tensor) -> Tensor:
            return level[..., None, None] * G + floor[..., None, None] * D.unsqueeze(-3)

        return both(self.wanted, self.wanted_floor), both(self.interfering, self.interfering_floor)


def virtual_channels(network: GraphNetwork, shift: Tensor, gain: Tensor, targets: Tensor, quality: Tensor) -> Virtual:
    """The network's virtual channels; computed in its precision, returned in that of the gains.

    shift    correlations [B, K, K] of `channel_shift` or `covariance_shift`.
    gain     mean gain of an antenna [B, K].
    targets  SINR targets [B, K].
    quality  of the estimates [B, K], positive.

    >>> one = torch.ones(2, 3)
    >>> virtual_channels(GraphNetwork(FEATURES, START), torch.ones(2, 3, 3), one, one, one).wanted.shape
    torch.Size([2, 3])
    """
    tiny = torch.finfo(gain.dtype).tiny
    inputs = torch.stack([gain, targets, quality.expand_as(gain)], -1).clamp_min(tiny).log()
    own = next(network.parameters())
    c1, c2, c3, c4 = network(inputs.to(own), shift.to(own)).to(gain).unbind(-1)
    return Virtual(c1, c2 * gain, c3, c4 * gain)


def channel_shift(H: Tensor) -> Tensor:
    """``|h_k^H h_j| / (|h_k| |h_j|)`` [B, K, K] of channels H [B, K, N]; 0 where one is zero.

    >>> channel_shift(torch.tensor([[[1.0 + 0j, 0], [1j, 1j]]])).round(decimals=4)
    tensor([[[1.0000, 0.7071],
             [0.7071, 1.0000]]])
    """
    norm = torch.linalg.vector_norm(H, dim=-1, keepdim=True)
    unit = H / torch.where(norm > 0, norm, 1)
    return squared_magnitude(unit @ unit.mH).sqrt()


def covariance_shift(R: Tensor) -> Tensor:
    """``tr(R_k R_j) / (|R_k| |R_j|)`` [B, K, K] of covariances R [B, K, N, N]; 0 where one is zero."""
    norm = torch.linalg.matrix_norm(R)[..., None, None]
    flat = (R / torch.where(norm > 0, norm, 1)).flatten(-2)
    return (flat @ flat.mH).real


def channel_gain(H: Tensor) -> Tensor:
    """``|h_k|^2 / N`` [B, K]."""
    return squared_magnitude(H).mean(-1)
