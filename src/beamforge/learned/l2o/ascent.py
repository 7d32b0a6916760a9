"""Differentiable gradient ascent on the sum rate over beams of full power, in a given metric.

Noise and power limit are one, and beams W [B, N, K] have ``||W||_F = 1``. Gradients are closed forms in nats, with
respect to the conjugate of W, which is half of the gradient with respect to real and imaginary parts. Training needs
derivatives of the steps, which are second derivatives of the rate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.network import others, own, squared_magnitude


class Received(NamedTuple):
    """Received amplitudes D [B, K, K], signal and interference powers [B, K] in units of the noise."""

    amplitude: Tensor
    signal: Tensor
    interference: Tensor

    @classmethod
    def of(cls, H: Tensor, W: Tensor) -> Received:
        """For beams W [B, N, K] and channels H [B, K, N]."""
        D = H @ W
        power = squared_magnitude(D)
        return cls(D, own(power), others(power))

    def rate(self, weights: Tensor) -> Tensor:
        """Weighted sum rate [B] in nats."""
        return (weights * torch.log1p(self.signal / (1 + self.interference))).sum(-1)

    def prices(self, weights: Tensor) -> Tensor:
        """``l_k = a_k S_k / ((1 + I_k)(1 + I_k + S_k))`` [B, K]: loss of rate in nats per unit of interference."""
        disturbance = 1 + self.interference
        return weights * self.signal / (disturbance * (disturbance + self.signal))


def gradient(H: Tensor, W: Tensor, weights: Tensor) -> tuple[Tensor, Received]:
    """Gradient [B, N, K] of the rate of ``W / ||W||_F`` with respect to conj(W) at ``||W||_F = 1``; and `Received`.

    ``H^H (diag(b) - diag(l) D) - (sum_k l_k) W`` with ``b_k = a_k D_kk / (1 + I_k)`` and the prices l. The last term is
    due to the normalisation of the power.
    """
    seen = Received.of(H, W)
    prices = seen.prices(weights)
    gain = weights * torch.diagonal(seen.amplitude, 0, -2, -1) / (1 + seen.interference)
    inner = torch.diag_embed(gain) - prices.unsqueeze(-1) * seen.amplitude
    return H.mH @ inner - prices.sum(-1)[:, None, None] * W, seen


def of_full_power(W: Tensor) -> Tensor:
    """``W / ||W||_F``; zero beams remain zero."""
    size = torch.view_as_real(W).square().sum((-3, -2, -1))
    return W * torch.where(size > 0, size, 1).rsqrt()[:, None, None]


def metric(H: Tensor, auxiliary: Tensor, W: Tensor, weights: Tensor) -> Tensor:
    """Cholesky factor [B, N, N] of ``G^H G + m I``, the metric of the ascent for an auxiliary channel G.

    G is the auxiliary channel [B, K, N], scaled such that ``sum_k |G_k|^2 / |h_k|^2 = m``, the sum of the prices at W.
    If the auxiliary rows are ``sqrt(l_k) h_k``, a step of length one is a WMMSE step.
    """
    level = Received.of(H, W).prices(weights).sum(-1).clamp_min(torch.finfo(weights.dtype).tiny ** 0.5)
    size = shares(H, auxiliary).sum(-1)
    G = auxiliary * (level / torch.where(size > 0, size, 1)).sqrt()[:, None, None]
    M = G.mH @ G
    rounding = 4 * torch.finfo(weights.dtype).eps * own(M).real
    return torch.linalg.cholesky_ex(M + torch.diag_embed((level.unsqueeze(-1) + rounding).to(M.dtype))).L


def shares(H: Tensor, auxiliary: Tensor) -> Tensor:
    """``|G_k|^2 / |h_k|^2`` [B, K], zero for a user without a channel."""
    gain = squared_magnitude(H).sum(-1)
    return torch.where(gain > 0, squared_magnitude(auxiliary).sum(-1) / torch.where(gain > 0, gain, 1), 0)


def ascend(H: Tensor, W: Tensor, weights: Tensor, steps: int, length: Tensor, factor: Tensor | None = None) -> Tensor:
    """W after `steps` steps of gradient ascent, each scaled to full power (Eq. 8).

    length  step length, [] or one per beam [B, K].
    factor  Cholesky factor from `metric`; None for the Euclidean metric, Eq. 8 as printed.
    """
    if factor is None:
        length = length * (2 / math.log(2))  # Eq. 8 uses bits, and real and imaginary parts
    for _ in range(steps):
        direction, _ = gradient(H, W, weights)
        if factor is not None:
            direction = torch.cholesky_solve(direction, factor)
        W = of_full_power(W + length.unsqueeze(-2) * direction if length.ndim else W + length * direction)
    return W


def lmmse(H: Tensor, users: Tensor) -> Tensor:
    """Beams [B, N, K] of regularised zero forcing with equal powers, the initial beams of all methods (Eq. 5).

    users  boolean [B, K], active users; the others get no power.
    """
    count = users.sum(-1).clamp_min(1).to(H.real.dtype)
    M = H @ H.mH
    level = count.unsqueeze(-1) + 4 * torch.finfo(H.real.dtype).eps * own(M).real
    W = H.mH @ torch.cholesky_inverse(torch.linalg.cholesky_ex(M + torch.diag_embed(level.to(M.dtype))).L)
    size = squared_magnitude(W).sum(-2)
    return W * (torch.where(size > 0, size, 1) * count.unsqueeze(-1)).rsqrt().unsqueeze(-2)
