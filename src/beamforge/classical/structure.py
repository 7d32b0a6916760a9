"""Beams from multipliers: the form every optimum of this library has, in a few real numbers per user.

On one transmitter, in units where the noise is one, the optimal directions for sum rate, balanced SINRs and least power
are ``v_k ∝ (I + sum_j mu_j h_j h_j^H)^-1 h_k``, the columns of ``H^H (I + diag(mu) H H^H)^-1``. MRT is mu = 0, zero
forcing mu = infinity, regularised zero forcing mu = P/K.

Source: E. Björnson, M. Bengtsson, B. Ottersten, "Optimal multiuser transmit beamforming: a difficult problem with a
simple solution structure", IEEE Signal Process. Mag. 31 (2014), Eq. 10.
"""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.network import own, squared_magnitude


def directions(H: Tensor, multipliers: Tensor, gram: Tensor | None = None) -> Tensor:
    """Unit-norm columns of ``H^H (I + diag(mu) H H^H)^-1``, [..., N, K]; zero for a user without a channel.

    H            [..., K, N], rows h_k^H in units of the noise's square root.
    multipliers  [..., K], non-negative.
    gram         ``H H^H`` where it is at hand.

    Solved as ``M = I + mu^1/2 H H^H mu^1/2`` from both sides: a column's length is free, so nothing is divided by mu,
    and a direction does not depend on its own user's mu (Sherman and Morrison), so zeros can be lifted to rounding.

    >>> H = torch.tensor([[1.0 + 0j, 0.0], [1.0, 1.0]])
    >>> (H @ directions(H, torch.tensor([1e6, 1e6]))).abs().round(decimals=3)
    tensor([[0.7070, 0.0000],
            [0.0000, 1.0000]])
    """
    gram = H @ H.mH if gram is None else gram
    size = torch.diagonal(gram, dim1=-2, dim2=-1).real
    eps = torch.finfo(size.dtype).eps
    floor = eps / size.amax(-1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
    root = multipliers.clamp_min(0).maximum(floor).sqrt()
    scaled = root.unsqueeze(-1) * gram * root.unsqueeze(-2)
    level = 1 + 4 * eps * own(scaled).real
    factor, _ = torch.linalg.cholesky_ex(scaled + torch.diag_embed(level))
    return unit(H.mH @ (root.unsqueeze(-1) * torch.cholesky_inverse(factor)))


def unit(W: Tensor) -> Tensor:
    """Columns of W [..., N, K] scaled to norm one; a column of zeros stays."""
    largest = torch.maximum(W.real.abs(), W.imag.abs()).amax(-2, keepdim=True)  # squares of 1e-30 are not float32
    W = W / torch.where(largest > 0, largest, 1)
    norm = squared_magnitude(W).sum(-2, keepdim=True)
    return W * torch.where(norm > 0, norm, 1).rsqrt()
