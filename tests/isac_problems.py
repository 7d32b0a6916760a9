"""Random problems of joint sensing and communication, and their score in NumPy."""

from __future__ import annotations

import torch

from beamforge.learned.isac.isac_data import IsacData
from beamforge.learned.l2o.ascent import of_full_power
from beamforge.learned.l2o.masks import Masks


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def problem(batch=3, users=4, antennas=5, targets=3, seed=0, gain=2.0):
    """Channels of users and targets without structure, and unequal weights of the rates."""
    H, C = 4 * normal(batch, users, antennas, seed=seed), gain * normal(batch, antennas, targets, seed=seed + 1)
    weights = 0.5 + torch.rand(batch, users, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return IsacData.masked(H, C, weights, Masks.of(H), torch.ones(batch, targets, dtype=torch.bool))


def beams(data, seed=5):
    """W and F of total power one."""
    batch, users, antennas = data.H.shape
    X = of_full_power(normal(batch, antennas, users + data.C.shape[-1], seed=seed))
    return X[..., :users], X[..., users:]


def score(data, W, F):
    """Rates in nats and sensing SNRs over their targets, in NumPy."""
    H, C, W, F = (each.numpy() for each in (data.H, data.C, W, F))
    received = abs(H @ W) ** 2
    signal = received.diagonal(axis1=1, axis2=2)
    interference = received.sum(-1) - signal + (abs(H @ F) ** 2).sum(-1)
    rate = (data.weights.numpy() * torch.log1p(torch.as_tensor(signal / (1 + interference))).numpy()).sum(-1)
    C = C.conj().swapaxes(1, 2)
    return rate, (abs(C @ W) ** 2).sum(-1) + (abs(C @ F) ** 2).sum(-1)
