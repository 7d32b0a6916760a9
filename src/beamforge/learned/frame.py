"""Channels in coordinates of their own, in which turning the antennas' space or a user's phase changes nothing.

A common rotation ``H U`` of all channels and a phase of each leave every rate as it is when the beams turn along. A
network that sees raw channels has to learn that; one that sees them in this frame knows it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.classical.structure import unit
from beamforge.network import squared_magnitude


def principal_frame(H: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates x [..., K, K] of the directions ``h_k / |h_k|``, and their basis B [..., N, K]; K at most N.

    B has the eigenvectors of ``sum_k h_k h_k^H / |h_k|^2``, largest eigenvalue first, as its columns, so that
    ``h_k / |h_k| = B x_k`` but for a phase, and matrices of the form ``(sum_k h_k h_k^H / |h_k|^2 + c I)^-1`` are
    diagonal. Phases: the first coordinate of every user is real, and so are all of the strongest user.

    H  rows h_k^H [..., K, N] in units of the noise's square root.

    >>> H = torch.tensor([[2.0 + 0j, 0.0, 0.0], [1j, 1j, 0.0]])
    >>> x, B = principal_frame(H)
    >>> torch.allclose((x @ x.mH).abs(), torch.tensor([[1.0, 0.5**0.5], [0.5**0.5, 1.0]]))
    True
    """
    h = unit(H.mH)
    size, V = torch.linalg.eigh(h.mH @ h)
    size, V = size.flip(-1).clamp_min(torch.finfo(size.dtype).eps), V.flip(-1)
    strongest = squared_magnitude(H).sum(-1).argmax(-1)
    V = V * phase(V.take_along_dim(strongest[..., None, None], -2)).conj()
    root = size.sqrt().unsqueeze(-2)
    x = V.conj() * root
    return x * phase(x[..., :1]).conj(), h @ (V / root)


def phase(z: Tensor) -> Tensor:
    """``z / |z|``, 1 for zero."""
    size = z.abs()
    return torch.where(size > 0, z / torch.where(size > 0, size, 1), 1)
