"""The published layer, with rows and columns of the auxiliary channel and the beams as tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from beamforge.learned.l2o.attention import MaskedAttention
from beamforge.learned.l2o.masks import Masks


class CoordinateLayer(nn.Module):
    """Residuals of the auxiliary channel and the beams from attention among users and among antennas.

    With L the `size`, user k has the tokens ``[Re H_k., Im H_k.]`` and ``[Re W_.k, Im W_.k]`` of dimension 2L, and
    antenna n the tokens of ``H_.n`` and ``W_n.``: two sequences of 2L tokens (Eq. 13). Tokens are embedded in dimension
    `width`, normalised, processed by attention with `heads` heads of dimension `depth` (Eq. 19), and aggregated to
    dimension 2L. The result of the antennas is transposed and added to that of the users and to the matrices; an output
    network (2L, 6L, 2L) for each matrix follows (Eqs. 22 and 23).

    Eq. 21 adds the token sequences of users and antennas without a transposition, which gives ``H + H^T`` and
    ``W + W^T`` instead of the residuals of Eq. 10. This implementation follows Eq. 10. Residuals are zero initially, so
    that training starts from the ascent; the paper does not state the initialisation.

    The embeddings have separate weights for each antenna (or user), so the layer is not permutation equivariant in
    either axis.

    Source: Figs. 1 and 2, Table 1.
    """

    def __init__(self, size: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.size = size
        self.stride = nn.Parameter(torch.zeros(()))
        self.embed = nn.ModuleList(nn.Sequential(nn.Linear(2 * size, width), nn.LayerNorm(width)) for _ in range(2))
        self.attention = nn.ModuleList(MaskedAttention(width, heads, depth) for _ in range(2))
        self.aggregate = nn.ModuleList(
            nn.Sequential(nn.Linear(heads * depth, 2 * size), nn.GELU(), silent(nn.Linear(2 * size, 2 * size)))
            for _ in range(2)
        )
        self.out = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(2 * size),
                nn.Linear(2 * size, 6 * size, bias=False),
                nn.GELU(),
                silent(nn.Linear(6 * size, 2 * size, bias=False)),
            )
            for _ in range(2)
        )

    def forward(
        self, H: Tensor, auxiliary: Tensor, W: Tensor, weights: Tensor, masks: Masks
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Auxiliary channel [B, K, N] and beams [B, N, K] after the layer, and the step length [] of the ascent."""
        scale = H.abs().square().mean((-2, -1), keepdim=True).sqrt().clamp_min(torch.finfo(weights.dtype).tiny ** 0.5)
        channel, beams = auxiliary / scale, W.mT * self.size**0.5
        sides = []
        for axis, present in enumerate(masks):
            pair = [matrix if axis == 0 else matrix.mT for matrix in (channel, beams)]
            tokens = self.embed[axis](torch.cat([split(matrix) for matrix in pair], -2))
            heard = self.aggregate[axis](self.attention[axis](tokens, present.repeat(1, 2)))
            found = [joined(part.to(weights.dtype)) for part in heard.chunk(2, -2)]
            sides.append(found if axis == 0 else [matrix.mT for matrix in found])
        channel, beams = (
            matrix + user + antenna for matrix, user, antenna in zip((channel, beams), *sides, strict=True)
        )
        channel, beams = (
            matrix + joined(out(split(matrix)).to(weights.dtype))
            for matrix, out in zip((channel, beams), self.out, strict=True)
        )
        return channel * scale, beams.mT, self.stride.exp()


def silent(layer: nn.Linear) -> nn.Linear:
    """A trainable layer with zero initial weights."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def split(matrix: Tensor) -> Tensor:
    """Complex rows [..., n] as real ones [..., 2n], real parts first."""
    return torch.cat([matrix.real, matrix.imag], -1)


def joined(rows: Tensor) -> Tensor:
    """Inverse of `split`."""
    return torch.complex(*rows.chunk(2, -1))
