"""Beams of minimum weighted squared error subject to sensing SNR targets and a power limit, by the dual problem.

With weighted receivers of the users, ``A = sum_k q_k h_k h_k^H`` and ``B = [b_1 h_1, ..., b_K h_K]``, the variables are
the data beams W and the transmit covariance S::

    minimise  tr(A S) - 2 Re tr(B^H W)   subject to   tr S <= P,   c_m^H S c_m >= level_m,   S >= W W^H

The problem is convex; the covariance of the sensing streams is ``S - W W^H``. With multipliers x_0 of the power and x_m
of target m, ``X = A + x_0 I - sum_m x_m c_m c_m^H`` must be positive semidefinite, ``W = X^-1 B``, and the dual is ::

    maximise  -tr(B^H X^-1 B) - x_0 P + sum_m x_m level_m

in M + 1 variables. With a barrier ``e (log det X + sum_j log x_j)`` the sensing streams have the covariance ``e X^-1``,
and constraint j has the slack ``e / x_j``: for any e the beams are feasible, and their error exceeds the minimum by at
most ``e (N + M + 1)``.

If the objective has a term ``v_m log(1 + t)`` of the sensing SNR t instead of a constraint, the dual has
``-max_t (v_m log(1 + t) - x_m t) = v_m log x_m - x_m`` plus a constant in place of ``x_m level_m``: a level of -1, and
an additional weight v_m of log x_m.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.network import own

STEPS = 60
"""Largest number of Newton steps; a start near the solution needs one or two."""

DECREMENT = 1e-6
"""Newton decrement at convergence, relative to the barrier's weight; the error is its square."""

HALVINGS = 30
"""Largest number of halvings of a Newton step."""


class SensingQuadratic(NamedTuple):
    """Problem data: A [B, N, N], B [B, N, K], C [B, N, M] with columns c_m, level [B, M], power [B], barrier e [B].

    sensing_weight  v [B, M] of sensing rates in the objective, with a level of -1; 0 with sensing SNR targets.
    """

    A: Tensor
    B: Tensor
    C: Tensor
    level: Tensor
    power: Tensor
    barrier: Tensor
    sensing_weight: Tensor


class Barrier(NamedTuple):
    """Dual function with barrier at x [B, M + 1]: value [B], gradient [B, M + 1], Hessian, and X^-1 [B, N, N]."""

    value: Tensor
    gradient: Tensor
    hessian: Tensor
    inverse: Tensor


def lagrangian(data: SensingQuadratic, x: Tensor) -> Tensor:
    """X [B, N, N] for multipliers x [B, M + 1]."""
    eye = torch.eye(data.A.shape[-1], dtype=data.A.dtype, device=data.A.device)
    scaled = data.C * x[:, None, 1:]
    return data.A + x[:, :1, None] * eye - scaled @ data.C.mH


def factored(data: SensingQuadratic, x: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factor of X [B, N, N], the identity where X or x is not positive, and the flag of success [B]."""
    factor, failed = torch.linalg.cholesky_ex(lagrangian(data, x))
    definite = (failed == 0) & (x > 0).all(-1)
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return torch.where(definite[:, None, None], factor, eye), definite


def weights(data: SensingQuadratic) -> Tensor:
    """Weights [B, M + 1] of the logarithms of x."""
    e = data.barrier.unsqueeze(-1)
    return torch.cat([e, e + data.sensing_weight], -1)


def value(data: SensingQuadratic, x: Tensor) -> Tensor:
    """Dual function with barrier [B]; -inf where X is not positive definite."""
    factor, definite = factored(data, x)
    half = torch.linalg.solve_triangular(factor, data.B, upper=False)
    logs = data.barrier * 2 * factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
    logs = logs + (weights(data) * x.clamp_min(1e-300).log()).sum(-1)
    objective = -half.abs().square().sum((-2, -1)) - x[:, 0] * data.power + (x[:, 1:] * data.level).sum(-1)
    return torch.where(definite, objective + logs, -torch.inf)


def barrier(data: SensingQuadratic, x: Tensor) -> Barrier:
    """Value and derivatives at x with X positive definite."""
    T = torch.cholesky_inverse(factored(data, x)[0])
    e, C = data.barrier.unsqueeze(-1), data.C
    W = T @ data.B
    TC = T @ C
    Y = W @ W.mH  # Y + e T is the transmit covariance
    YC = Y @ C
    data_snr = (C.conj() * YC).sum(-2).real  # c^H W W^H c
    stream_snr = e * (C.conj() * TC).sum(-2).real
    trace_T, trace_Y = (each.diagonal(dim1=-2, dim2=-1).real.sum(-1, keepdim=True) for each in (T, Y))
    power = trace_Y + e * trace_T
    slack = torch.cat([power - data.power.unsqueeze(-1), data.level - data_snr - stream_snr], -1)
    gradient = slack + weights(data) / x
    # second derivatives: -2 Re tr(E_j T E_k Y) - e tr(E_j T E_k T), with E_0 = I and E_m = -c_m c_m^H
    CTC, CYC = C.mH @ TC, C.mH @ YC
    targets = 2 * (CTC * CYC.mT).real + data.barrier[:, None, None] * CTC.abs().square()
    mixed = 2 * (TC.conj() * YC).sum(-2).real + e * TC.abs().square().sum(-2)
    total = 2 * (T.conj() * Y).sum((-2, -1)).real + data.barrier * T.abs().square().sum((-2, -1))
    top = torch.cat([total.unsqueeze(-1), -mixed], -1).unsqueeze(-2)
    hessian = torch.cat([top, torch.cat([-mixed.unsqueeze(-1), targets], -1)], -2) + torch.diag_embed(
        weights(data) / x.square()
    )
    return Barrier(value(data, x), gradient, -hessian, T)


def initial_multipliers(data: SensingQuadratic) -> Tensor:
    """Initial multipliers [B, M + 1], for which X is positive definite."""
    size = data.C.abs().square().sum(-2).amax(-1)  # |c|^2
    power = (data.B.abs().square().sum((-2, -1)) / data.power).sqrt() + data.barrier / data.power
    target = power / (4 * data.C.shape[-1] * size)
    return torch.cat([power.unsqueeze(-1), target.unsqueeze(-1).expand_as(data.level)], -1)


def multipliers(data: SensingQuadratic, x: Tensor) -> Tensor:
    """Optimal multipliers x [B, M + 1] by Newton's method from given multipliers."""

    def derivatives(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        here = barrier(data, x)
        return here.value, here.gradient, here.hessian

    return newton_ascent(lambda x: value(data, x), derivatives, positive(data, x), data.barrier)


def newton_ascent(
    value: Callable[[Tensor], Tensor],
    derivatives: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
    x: Tensor,
    weight: Tensor,
    stop: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Maximiser [B, n] of a concave function with a barrier of the given weight [B], by Newton's method from x > 0.

    value        [B], -inf outside the domain of the barrier.
    derivatives  value [B], gradient [B, n] and Hessian [B, n, n].
    stop         [B], an additional stopping criterion.
    """
    active = torch.ones_like(weight, dtype=torch.bool)
    for _ in range(STEPS):
        here, gradient, hessian = derivatives(x)
        scale = (-own(hessian)).rsqrt()
        system, failed = torch.linalg.cholesky_ex(-hessian * scale.unsqueeze(-1) * scale.unsqueeze(-2))
        active = active & (failed == 0)
        step = scale * torch.cholesky_solve((gradient * scale).unsqueeze(-1), system).squeeze(-1)
        step = torch.where(active.unsqueeze(-1), step, 0)
        gain = (gradient * step).sum(-1)
        active = active & (gain > DECREMENT**2 * weight)
        if stop is not None:
            active = active & ~stop(x)
        if not active.any():
            break
        size = active.to(x.dtype)
        for _ in range(HALVINGS):
            reached = value(x + size.unsqueeze(-1) * step)
            short = active & ~(reached >= here + 0.2 * size * gain - 1e-14 * here.abs())
            if not short.any():
                break
            size = torch.where(short, size / 2, size)
        else:
            size = torch.where(short, 0, size)
            active = active & ~short
        long = active & (gain > weight)  # far from the optimum, avoid a step up to the boundary
        for _ in range(HALVINGS):
            tried = torch.where(long, size / 2, size)
            there = value(x + tried.unsqueeze(-1) * step)
            long = long & (there > reached)
            if not long.any():
                break
            size, reached = torch.where(long, tried, size), torch.where(long, there, reached)
        x = x + size.unsqueeze(-1) * step
    return x


def positive(data: SensingQuadratic, x: Tensor) -> Tensor:
    """Multipliers for which X is positive definite: the multiplier of the power is increased where necessary."""
    x = x.clone()
    for _ in range(60):
        _, failed = torch.linalg.cholesky_ex(lagrangian(data, x))
        if not failed.any():
            break
        x[:, 0] = torch.where(failed > 0, 2 * x[:, 0] + 1e-12, x[:, 0])
    return x


def least_power(C: Tensor, level: Tensor) -> Tensor:
    """Minimum power [B] for the sensing SNRs alone: ``min tr S`` subject to ``c_m^H S c_m >= level_m``.

    Infinite where a target has zero gain.
    """
    size = C.abs().square().sum(-2)
    visible = (size > 0).all(-1)
    C, size = torch.where(visible[:, None, None], C, 1), torch.where(visible.unsqueeze(-1), size, C.shape[-2])
    separate = (level / size).sum(-1)  # each target served separately
    eye = torch.eye(C.shape[-2], dtype=C.dtype, device=C.device).expand(len(C), -1, -1)
    data = SensingQuadratic(eye, torch.zeros_like(C[..., :1]), C, level, 10 * separate, separate, 0 * level)
    x = initial_multipliers(data)
    for share in (1e-1, 1e-3, 1e-5, 1e-7, 1e-9):
        data = data._replace(barrier=share * separate)
        x = multipliers(data, x)
    power = (x[:, 1:] * level).sum(-1) - x[:, 0] * data.power
    return torch.where(visible, power, torch.inf)
