"""The textbook WMMSE iteration, batched and written efficiently, as a reference for the library's.

Receivers u, weights w, then beams ``w_k = (A + mu I)^-1 a_k w_k u_k h_k`` with ``A = sum_j a_j w_j |u_j|^2 h_j h_j^H``
(N x N), the multiplier mu of the power limit found by bisection on one eigendecomposition of A. The bisection works on
the K-column coefficients in the eigenbasis, all instances at once, with as many halvings as single precision needs.

Source: Q. Shi, M. Razaviyayn, Z.-Q. Luo, C. He, IEEE Trans. Signal Process. 59 (2011), Table I.
"""

from __future__ import annotations

import torch
from torch import Tensor


def textbook_step(H: Tensor, noise: float, power: float, W: Tensor, halvings: int = 30) -> Tensor:
    """One iteration: H [B, K, N], W [B, N, K] -> W [B, N, K]."""
    received = H @ W
    strength = received.real.square() + received.imag.square()
    own = torch.diagonal(received, dim1=-2, dim2=-1)
    signal = torch.diagonal(strength, dim1=-2, dim2=-1)
    total = strength.sum(-1) + noise
    u = own / total
    w = total / (total - signal)
    q = w * (u.real.square() + u.imag.square())
    A = H.mH @ (q.unsqueeze(-1) * H)
    values, vectors = torch.linalg.eigh(A)
    right = vectors.mH @ (H.mH * (w * u).unsqueeze(-2))
    load = (right.real.square() + right.imag.square()).sum(-1)
    values = values.clamp_min(0)
    low = torch.zeros_like(load[:, :1])
    high = (load.sum(-1, keepdim=True) / power).sqrt()  # at this mu the power is at most the limit
    for _ in range(halvings):
        middle = (low + high) / 2
        excess = (load / (values + middle).square()).sum(-1, keepdim=True) > power
        low, high = torch.where(excess, middle, low), torch.where(excess, high, middle)
    return vectors @ (right / (values + high).unsqueeze(-1))
