"""Base stations with random channels."""

from __future__ import annotations

import torch

from beamforge.decentralised.base_stations import BaseStations


def stations(K=3, N=4, B=5, seed=0, dtype=torch.complex128):
    """S = K base stations of N antennas, powers between 1 and 10 W."""
    generator = torch.Generator().manual_seed(seed)
    H = torch.randn(B, K, K, N, dtype=torch.complex128, generator=generator).to(dtype)
    power = 1 + 9 * torch.rand(B, K, dtype=torch.float64, generator=generator).to(H.real.dtype)
    return BaseStations(H, torch.arange(K), power, torch.ones_like(power))
