"""Optimal powers of beams with fixed directions, for balanced SINRs or rates under any mix of power limits.

For fixed directions the least powers for a common level t solve a linear system and grow with t; the largest t within
the limits is found by bisection. Powers that follow from multipliers may be unbalanced by rounding; these are balanced.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from beamforge.core.network import Network, own, spectral_efficiency, squared_magnitude

RANGE, HALVINGS = 1024.0, 63
"""The level is searched from that of the given beams to `RANGE` times that, by so many bisections (to rounding)."""


def balancing_factors(network: Network, W: Tensor, cost: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Factors [B, K] for the powers of beams W [B, N, K] that give the greatest common level along their directions.

    ::

        maximise t   subject to   s_k a_kk >= g_k(t) (sum_{j != k} s_j a_kj + noise_k),   sum_k cost_lk s_k <= 1

    with ``a_kj = |h_k^H w_j|^2`` and ``g_k`` the SINR of user k at level t: ``t target_k`` or, where weights are
    positive, ``2^(t / weights_k) - 1``. The search starts at the level of W, which must meet the limits, and ends at
    `RANGE` times that. Users with a zero beam do not count, and keep it.

    cost  share of limit l that beam k uses, [B, L, K].
    """
    power = squared_magnitude(network.apply(W))
    signal = own(power)
    counted = signal > 0
    eye = torch.eye(signal.shape[-1], dtype=torch.bool, device=W.device)
    heard = power.masked_fill(eye, 0) / torch.where(counted, signal, 1).unsqueeze(-1)  # relative to the own signal
    noise = torch.where(counted, network.noise / torch.where(counted, signal, 1), 0)
    rated = weights > 0
    weights = torch.where(rated, weights, 1)

    def factors(level: Tensor) -> tuple[Tensor, Tensor]:
        """Least powers for a level [B], and whether they exist and meet the limits [B]."""
        t = level.unsqueeze(-1)
        sinr = torch.where(counted, torch.where(rated, torch.expm1(t * math.log(2) / weights), t * target), 0)
        system = eye.to(noise.dtype) - sinr.unsqueeze(-1) * heard
        s = torch.linalg.solve_ex(system, (sinr * noise).unsqueeze(-1))[0].squeeze(-1)
        within = ((cost * s.unsqueeze(-2)).sum(-1) <= 1).all(-1)
        return s, within & ((s > 0) | ~counted).all(-1)

    sinr = 1 / (heard.sum(-1) + noise)
    level = torch.where(rated, weights * spectral_efficiency(sinr), sinr / target)
    low = torch.where(counted, level, torch.inf).amin(-1)
    best, high = torch.ones_like(signal), RANGE * low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        s, fits = factors(middle)
        better = fits & (middle > low)
        best = torch.where(better.unsqueeze(-1), s, best)
        low, high = torch.where(better, middle, low), torch.where(fits, high, middle)
    return best
