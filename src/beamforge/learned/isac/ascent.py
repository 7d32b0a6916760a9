"""Joint ascent of data beams and sensing streams on the sum rate and the barrier of the sensing SNRs.

With ``X = [W, F]`` of power one, the objective is ``R + sum_m v_m phi(SNR_m - 1)`` in the units of `Question`. A step is
one of Gauss and Newton: the rate has the metric ``G^H G + m I`` of the auxiliary channel G, as without targets, and the
barrier has the curvature of its own, of rank M. So a step aims at the bounds themselves however steep the barrier is,
and as sensing SNRs are convex in X, it lands above what it aims at before X is scaled to full power.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.network import own
from beamforge.learned.isac.barrier import EDGE, barrier
from beamforge.learned.isac.question import Question
from beamforge.learned.l2o.ascent import of_full_power, shares


def objective(asked: Question, W: Tensor, F: Tensor, pull: Tensor, edge: float = EDGE) -> Tensor:
    """``R(W, F) + sum_m v_m phi(SNR_m - 1)`` [B] in nats, with weights v [B, M] of the barrier (Eq. 30).

    As printed Eq. 30 has the barrier with the other sign, which would reward missed targets.
    """
    found = barrier(asked.sensed(torch.cat([W, F], -1)) - 1, edge)
    return asked.rate(W, F) + torch.where(asked.targets, pull * found.value, 0).sum(-1)


class Slopes(NamedTuple):
    """Derivatives of the objective of ``X / |X|`` at X [B, N, K + S] of power one.

    gradient   [B, N, K + S], by the conjugate of X.
    prices     [B, K], nats that a watt of interference costs a user.
    power      [B], nats that a watt is worth.
    sensed     [B, M], sensing SNRs over those asked for.
    curvature  [B, M], of the barriers, positive; zero for masked targets.
    """

    gradient: Tensor
    prices: Tensor
    power: Tensor
    sensed: Tensor
    curvature: Tensor


def slopes(asked: Question, W: Tensor, F: Tensor, pull: Tensor) -> Slopes:
    """``H^H (diag(b) - diag(l) H X) + C diag(y) C^H X - m X`` with ``b_k = a_k D_kk / (1 + I_k)``, the prices l of
    interference, ``y_m = v_m phi'(SNR_m - 1)``, and ``m = sum_k l_k + sum_m y_m SNR_m``; and its parts.
    """
    X, seen = torch.cat([W, F], -1), asked.received(W, F)
    prices, sensed = seen.prices(asked.weights), asked.sensed(X)
    found = barrier(sensed - 1)
    worth = torch.where(asked.targets, pull * found.slope, 0)
    power = (prices.sum(-1) + (worth * sensed).sum(-1)).clamp_min(torch.finfo(prices.dtype).tiny ** 0.5)
    gain = asked.weights * own(seen.amplitude) / (1 + seen.interference)
    signal = torch.nn.functional.pad(torch.diag_embed(gain), (0, F.shape[-1]))
    gradient = asked.H.mH @ (signal - prices.unsqueeze(-1) * (asked.H @ X))
    gradient = gradient + asked.C @ (worth.unsqueeze(-1) * (asked.C.mH @ X)) - power[:, None, None] * X
    return Slopes(gradient, prices, power, sensed, torch.where(asked.targets, pull * found.curvature, 0))


def direction(asked: Question, auxiliary: Tensor, W: Tensor, F: Tensor, pull: Tensor) -> Tensor:
    """The step d [B, N, K + S] of length one: ``A d + sum_m 2 w_m Re<v_m, d> v_m = gradient``.

    A = G^H G + m I, with G the auxiliary channel in the scale in which ``sum_k |G_k|^2 / |h_k|^2`` is ``sum_k l_k``;
    w_m the curvature of barrier m, and ``v_m = c_m c_m^H X - SNR_m X`` the derivative of its sensing SNR.
    """
    X, at = torch.cat([W, F], -1), slopes(asked, W, F, pull)
    size = shares(asked.H, auxiliary).sum(-1)
    G = auxiliary * (at.prices.sum(-1) / torch.where(size > 0, size, 1)).sqrt()[:, None, None]
    A = G.mH @ G
    level = at.power.unsqueeze(-1) + 4 * torch.finfo(at.power.dtype).eps * own(A).real
    factor = torch.linalg.cholesky_ex(A + torch.diag_embed(level.to(A.dtype))).L
    D, M = X.shape[-1], asked.C.shape[-1]
    solved = torch.cholesky_solve(torch.cat([at.gradient, X, asked.C], -1), factor)
    plain, inner, towards = solved.split([D, D, M], -1)
    amplitude = (asked.C.mH @ X).unsqueeze(-2)  # [B, M, 1, D]
    sensed = at.sensed[:, :, None, None]
    V = asked.C.mT.unsqueeze(-1) * amplitude - sensed * X.unsqueeze(1)
    inverse_V = towards.mT.unsqueeze(-1) * amplitude - sensed * inner.unsqueeze(1)
    v, inverse_v = (torch.view_as_real(each).flatten(2) for each in (V, inverse_V))
    weight = (2 * at.curvature).clamp_min(torch.finfo(level.dtype).tiny ** 0.5)
    system = v @ inverse_v.mT + torch.diag_embed(1 / weight)
    scale = own(system).rsqrt()
    towards_it = scale * (v @ torch.view_as_real(plain).flatten(1).unsqueeze(-1)).squeeze(-1)
    z = scale * torch.linalg.solve(system * scale.unsqueeze(-1) * scale.unsqueeze(-2), towards_it)
    return plain - (z[:, :, None, None] * inverse_V).sum(1)


def ascend(
    asked: Question, auxiliary: Tensor, W: Tensor, F: Tensor, pull: Tensor, length: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Beams and streams after some steps, each scaled to full power (Eqs. 33 and 35 as one ascent).

    auxiliary  [B, K, N], of the users.
    pull       v [B, M], weights of the barrier.
    length     of a step, for each of the K + S streams [B, K + S].
    """
    for _ in range(steps):
        X = torch.cat([W, F], -1) + length.unsqueeze(-2) * direction(asked, auxiliary, W, F, pull)
        W, F = of_full_power(X).split([W.shape[-1], F.shape[-1]], -1)
    return W, F
