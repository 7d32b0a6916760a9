"""Joint ascent of data beams and sensing streams on the sum rate and the barriers of the sensing SNRs.

With ``X = [W, F]`` of power one, the objective is ``R + sum_m v_m phi(SNR_m / level_m - 1)``. A step is a Gauss-Newton
step: the rate has the metric ``G^H G + m I`` of the auxiliary channel G, as in `learned.l2o.ascent`, and every barrier
contributes its curvature, a term of rank one. So steps remain stable for steep barriers. Sensing SNRs are convex in X,
so that the linearisation of a step never overestimates them before X is scaled to full power.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.network import own
from beamforge.learned.isac.barrier import EDGE, barrier
from beamforge.learned.isac.isac_data import IsacData
from beamforge.learned.l2o.ascent import of_full_power, shares


def objective(data: IsacData, W: Tensor, F: Tensor, penalty: Tensor, edge: float = EDGE) -> Tensor:
    """``R(W, F) + sum_m v_m phi(SNR_m / level_m - 1)`` [B] in nats, with barrier weights v [B, M] (Eq. 30).

    Eq. 30 as printed subtracts the barrier, which would reward violated targets.
    """
    found = barrier(data.sensed(torch.cat([W, F], -1)) - 1, edge)
    return data.rate(W, F) + torch.where(data.targets, penalty * found.value, 0).sum(-1)


class Slopes(NamedTuple):
    """Derivatives of the objective of ``X / ||X||_F`` at X [B, N, K + S] of power one.

    gradient   [B, N, K + S], with respect to conj(X).
    prices     [B, K], loss of rate in nats per unit of interference.
    power      [B], gain in nats per unit of power.
    sensed     [B, M], sensing SNRs divided by their targets.
    curvature  [B, M], negated second derivatives of the barriers; zero for masked targets.
    """

    gradient: Tensor
    prices: Tensor
    power: Tensor
    sensed: Tensor
    curvature: Tensor


def slopes(data: IsacData, W: Tensor, F: Tensor, penalty: Tensor) -> Slopes:
    """The gradient ``H^H (diag(b) - diag(l) H X) + C diag(y) C^H X - m X`` and its parts.

    ``b_k = a_k D_kk / (1 + I_k)`` with received amplitudes D, l are the prices of interference, ``y_m = v_m phi'``, and
    ``m = sum_k l_k + sum_m y_m SNR_m / level_m``.
    """
    X, seen = torch.cat([W, F], -1), data.received(W, F)
    prices, sensed = seen.prices(data.weights), data.sensed(X)
    found = barrier(sensed - 1)
    worth = torch.where(data.targets, penalty * found.slope, 0)
    power = (prices.sum(-1) + (worth * sensed).sum(-1)).clamp_min(torch.finfo(prices.dtype).tiny ** 0.5)
    gain = data.weights * own(seen.amplitude) / (1 + seen.interference)
    signal = torch.nn.functional.pad(torch.diag_embed(gain), (0, F.shape[-1]))
    gradient = data.H.mH @ (signal - prices.unsqueeze(-1) * (data.H @ X))
    gradient = gradient + data.C @ (worth.unsqueeze(-1) * (data.C.mH @ X)) - power[:, None, None] * X
    return Slopes(gradient, prices, power, sensed, torch.where(data.targets, penalty * found.curvature, 0))


def direction(data: IsacData, auxiliary: Tensor, W: Tensor, F: Tensor, penalty: Tensor) -> Tensor:
    """The step d [B, N, K + S] of length one: ``A d + sum_m 2 w_m Re<v_m, d> v_m = gradient``.

    ``A = G^H G + m I`` with the auxiliary channel G scaled such that ``sum_k |G_k|^2 / |h_k|^2 = sum_k l_k``. w_m is
    the curvature of barrier m, and ``v_m = c_m c_m^H X - (c_m^H X X^H c_m) X`` the derivative of the sensing SNR.
    """
    X, at = torch.cat([W, F], -1), slopes(data, W, F, penalty)
    size = shares(data.H, auxiliary).sum(-1)
    G = auxiliary * (at.prices.sum(-1) / torch.where(size > 0, size, 1)).sqrt()[:, None, None]
    A = G.mH @ G
    level = at.power.unsqueeze(-1) + 4 * torch.finfo(at.power.dtype).eps * own(A).real
    factor = torch.linalg.cholesky_ex(A + torch.diag_embed(level.to(A.dtype))).L
    D, M = X.shape[-1], data.C.shape[-1]
    solved = torch.cholesky_solve(torch.cat([at.gradient, X, data.C], -1), factor)
    plain, inner, towards = solved.split([D, D, M], -1)
    amplitude = (data.C.mH @ X).unsqueeze(-2)  # [B, M, 1, D]
    sensed = at.sensed[:, :, None, None]
    V = data.C.mT.unsqueeze(-1) * amplitude - sensed * X.unsqueeze(1)
    inverse_V = towards.mT.unsqueeze(-1) * amplitude - sensed * inner.unsqueeze(1)
    v, inverse_v = (torch.view_as_real(each).flatten(2) for each in (V, inverse_V))
    weight = (2 * at.curvature).clamp_min(torch.finfo(level.dtype).tiny ** 0.5)
    system = v @ inverse_v.mT + torch.diag_embed(1 / weight)
    scale = own(system).rsqrt()
    towards_it = scale * (v @ torch.view_as_real(plain).flatten(1).unsqueeze(-1)).squeeze(-1)
    z = scale * torch.linalg.solve(system * scale.unsqueeze(-1) * scale.unsqueeze(-2), towards_it)
    return plain - (z[:, :, None, None] * inverse_V).sum(1)


def ascend(
    data: IsacData, auxiliary: Tensor, W: Tensor, F: Tensor, penalty: Tensor, length: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """W [B, N, K] and F [B, N, S] after `steps` steps, each scaled to full power (Eqs. 33 and 35 as one ascent).

    auxiliary  auxiliary channel [B, K, N] of the users.
    penalty    barrier weights v [B, M].
    length     step lengths [B, K + S] of the beams and streams.
    """
    for _ in range(steps):
        X = torch.cat([W, F], -1) + length.unsqueeze(-2) * direction(data, auxiliary, W, F, penalty)
        W, F = of_full_power(X).split([W.shape[-1], F.shape[-1]], -1)
    return W, F
