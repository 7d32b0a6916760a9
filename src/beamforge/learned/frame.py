"""Channels in coordinates of their own, in which turning the antennas' space or a user's phase changes nothing.

A common rotation ``H U`` of all channels and a phase of each leave every rate as it is when the beams turn along. A
network that sees raw channels has to learn that; one that sees them in this frame knows it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.structure import unit
from beamforge.network import squared_magnitude


class Frame(NamedTuple):
    """Directions ``d_k = h_k / |h_k|`` and beams in the eigenvectors v_i of ``sum_k d_k d_k^H = sum_i l_i v_i v_i^H``.

    seen    [..., K, K] coordinates ``x_ki = v_i^H d_k``, largest eigenvalue first. Phases, which are free, are such
            that the first coordinate of every user is real, and so are all of one user, the reference.
    forced  [..., K, K] coordinates ``u_ki = x_ki / sqrt(l_i)`` of zero-forcing beams in `basis`, a unitary matrix.
    basis   [..., N, K] columns ``v_i / sqrt(l_i)``: a beam with coordinates y is heard by user k as ``|h_k| u_k^H y``.
    """

    seen: Tensor
    forced: Tensor
    basis: Tensor


def frame(H: Tensor, rank: int = 0) -> Frame:
    """The frame of channels with rows h_k^H [..., K, N] in units of the noise's square root; K at most N.

    rank  of the reference among the users by their gain; 0 is the strongest.

    >>> H = torch.tensor([[2.0 + 0j, 0.0, 0.0], [1j, 1j, 0.0]])
    >>> seen, forced, basis = frame(H)
    >>> torch.allclose((seen @ seen.mH).abs(), torch.tensor([[1.0, 0.5**0.5], [0.5**0.5, 1.0]]))
    True
    >>> torch.allclose((H @ basis @ forced.mT).abs(), torch.diag(torch.tensor([2.0, 2**0.5])), atol=1e-6)
    True
    """
    d = unit(H.mH)
    size, V = torch.linalg.eigh(d.mH @ d)
    root, V = size.flip(-1).clamp_min(torch.finfo(size.dtype).eps).sqrt().unsqueeze(-2), V.flip(-1)
    order = squared_magnitude(H).sum(-1).sort(dim=-1, descending=True, stable=True).indices
    reference = order[..., rank, None, None]
    V = V * phase(V.take_along_dim(reference, -2)).conj()
    forced = V.conj() * phase(V[..., :1])
    return Frame(forced * root, forced, d @ (V / root.square()))


def phase(z: Tensor) -> Tensor:
    """``z / |z|``, 1 for zero."""
    size = z.abs()
    return torch.where(size > 0, z / torch.where(size > 0, size, 1), 1)
