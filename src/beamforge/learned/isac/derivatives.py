"""Derivatives of the multipliers of sensing targets by the implicit function theorem."""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.classical.isac.dual import SensingQuadratic, barrier, diagonal, lagrangian, weights
from beamforge.core.network import own, squared_magnitude


def attached(data: SensingQuadratic, x: Tensor) -> Tensor:
    """Optimal multipliers x [B, M + 1], with their derivatives by A and B: ``dx = -H^-1 dg``.

    g(x; A, B) is the gradient of the dual function with barrier, zero at x, and H its Hessian. So one Newton step from
    x, in which only g depends on A and B, has the value x and the exact first derivatives.

    data  the problem, of which A and B may require gradients.
    x     its optimal multipliers, by `multipliers`.
    """
    x = x.detach()
    with torch.no_grad():
        hessian = barrier(diagonal(data), x).hessian
    return x - torch.linalg.solve(hessian, gradient(data, x).unsqueeze(-1)).squeeze(-1)


def gradient(data: SensingQuadratic, x: Tensor) -> Tensor:
    """Gradient [B, M + 1] of the dual function with barrier, from X^-1 itself, so that it is differentiable."""
    T, e = torch.linalg.inv(lagrangian(data, x)), data.barrier
    W = T @ data.B
    power = squared_magnitude(W).sum((-2, -1)) + e * own(T).real.sum(-1)
    stream_snr = e.unsqueeze(-1) * (data.C.conj() * (T @ data.C)).sum(-2).real
    snr = squared_magnitude(W.mH @ data.C).sum(-2) + stream_snr
    slack = torch.cat([(power - data.power).unsqueeze(-1), data.level - snr], -1)
    return slack + weights(data) / x
