"""Beams of least weighted squared error that keep the sensing SNRs of targets and the total power: by the dual.

With weighted receivers of the users, ``A = sum_k q_k h_k h_k^H`` and ``B = [b_1 h_1, ..., b_K h_K]``, find data beams W
and the covariance S of all that is sent::

    minimise  tr(A S) - 2 Re tr(B^H W)   subject to   tr S <= P,   c_m^H S c_m >= level_m,   S >= W W^H

which is convex: what S has beyond ``W W^H`` is sent by sensing streams. With multipliers x_0 of power and x_m of target
m, ``X = A + x_0 I - sum_m x_m c_m c_m^H`` must be positive semidefinite, ``W = X^-1 B``, and the dual is ::

    maximise  -tr(B^H X^-1 B) - x_0 P + sum_m x_m level_m

in M + 1 numbers. A barrier ``e (log det X + sum_j log x_j)`` gives the sensing streams the covariance ``e X^-1``, and
every limit the slack ``e / x_j``: at any e the beams keep all limits, and their error is at most ``e (N + M + 1)``
above the least.

Where a sensing SNR t is worth ``v_m log(1 + t)`` instead of being kept above a level, the dual has
``-max_t (v_m log(1 + t) - x_m t) = v_m log x_m - x_m`` and a constant in place of ``x_m level_m``: a level of -1, and
more weight to a logarithm that is there already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.network import own

STEPS = 60
"""Newton steps, of which one or two are needed near the last solution."""

CLOSE = 1e-6
"""Newton decrement, over the barrier's weight, at which the dual is solved: its square is the error."""

HALVINGS = 30


class SensingQuadratic(NamedTuple):
    """The problem: A [B, N, N], B [B, N, K], C [B, N, M] of columns c_m, level [B, M], power [B], barrier e [B].

    worth  v [B, M] of a logarithm of each sensing SNR, with a level of -1; 0 where there is a level to keep.
    """

    A: Tensor
    B: Tensor
    C: Tensor
    level: Tensor
    power: Tensor
    barrier: Tensor
    worth: Tensor


class Barrier(NamedTuple):
    """The dual with its barrier at x [B, M + 1]: value [B], gradient [B, M + 1], Hessian, and X^-1 [B, N, N]."""

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
    """Cholesky factor of X [B, N, N], and where there is one [B]; elsewhere it is the identity."""
    factor, failed = torch.linalg.cholesky_ex(lagrangian(data, x))
    sound = (failed == 0) & (x > 0).all(-1)
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return torch.where(sound[:, None, None], factor, eye), sound


def weights(data: SensingQuadratic) -> Tensor:
    """Of the logarithms of x [B, M + 1]."""
    e = data.barrier.unsqueeze(-1)
    return torch.cat([e, e + data.worth], -1)


def value(data: SensingQuadratic, x: Tensor) -> Tensor:
    """The dual with its barrier [B]; -inf where X is not positive definite."""
    factor, sound = factored(data, x)
    half = torch.linalg.solve_triangular(factor, data.B, upper=False)
    logs = data.barrier * 2 * factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
    logs = logs + (weights(data) * x.clamp_min(1e-300).log()).sum(-1)
    found = -half.abs().square().sum((-2, -1)) - x[:, 0] * data.power + (x[:, 1:] * data.level).sum(-1)
    return torch.where(sound, found + logs, -torch.inf)


def barrier(data: SensingQuadratic, x: Tensor) -> Barrier:
    """Value and derivatives at x with X positive definite."""
    T = torch.cholesky_inverse(factored(data, x)[0])
    e, C = data.barrier.unsqueeze(-1), data.C
    W = T @ data.B
    TC = T @ C
    Y = W @ W.mH  # and e T beside it is the covariance of all streams
    YC = Y @ C
    seen = (C.conj() * YC).sum(-2).real  # c^H W W^H c
    faint = (C.conj() * TC).sum(-2).real
    trace_T, trace_Y = (each.diagonal(dim1=-2, dim2=-1).real.sum(-1, keepdim=True) for each in (T, Y))
    spent = trace_Y + e * trace_T
    gradient = torch.cat([spent - data.power.unsqueeze(-1), data.level - seen - e * faint], -1) + weights(data) / x
    # second derivatives: -2 Re tr(E_j T E_k Y) - e tr(E_j T E_k T), with E_0 = I and E_m = -c_m c_m^H
    CTC, CYC = C.mH @ TC, C.mH @ YC
    both = 2 * (CTC * CYC.mT).real + data.barrier[:, None, None] * CTC.abs().square()
    edge = 2 * (TC.conj() * YC).sum(-2).real + e * TC.abs().square().sum(-2)
    corner = 2 * (T.conj() * Y).sum((-2, -1)).real + data.barrier * T.abs().square().sum((-2, -1))
    top = torch.cat([corner.unsqueeze(-1), -edge], -1).unsqueeze(-2)
    hessian = torch.cat([top, torch.cat([-edge.unsqueeze(-1), both], -1)], -2) + torch.diag_embed(
        weights(data) / x.square()
    )
    return Barrier(value(data, x), gradient, -hessian, T)


def far(data: SensingQuadratic) -> Tensor:
    """Multipliers [B, M + 1] to begin with, at which X is positive definite."""
    size = data.C.abs().square().sum(-2).amax(-1)  # |c|^2
    first = (data.B.abs().square().sum((-2, -1)) / data.power).sqrt() + data.barrier / data.power
    shared = first / (4 * data.C.shape[-1] * size)
    return torch.cat([first.unsqueeze(-1), shared.unsqueeze(-1).expand_as(data.level)], -1)


def multipliers(data: SensingQuadratic, x: Tensor) -> Tensor:
    """The multipliers x [B, M + 1] by Newton's method, from given ones."""

    def derivatives(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        here = barrier(data, x)
        return here.value, here.gradient, here.hessian

    return climb(lambda x: value(data, x), derivatives, positive(data, x), data.barrier)


def climb(
    value: Callable[[Tensor], Tensor],
    derivatives: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
    x: Tensor,
    weight: Tensor,
    enough: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Where a concave function with a barrier of that weight [B] is largest, by Newton's method from x [B, n] > 0.

    `value` is -inf where the barrier is infinite, `derivatives` are value, gradient [B, n] and Hessian [B, n, n].
    An instance stops where `enough` says so, too.
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
        active = active & (gain > CLOSE**2 * weight)
        if enough is not None:
            active = active & ~enough(x)
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
        long = active & (gain > weight)  # far from the end: not the largest step that is inside, which ends at its edge
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
    """Multipliers at which X is positive definite: that of power raised where it must be."""
    x = x.clone()
    for _ in range(60):
        _, failed = torch.linalg.cholesky_ex(lagrangian(data, x))
        if not failed.any():
            break
        x[:, 0] = torch.where(failed > 0, 2 * x[:, 0] + 1e-12, x[:, 0])
    return x


def least_power(C: Tensor, level: Tensor) -> Tensor:
    """The least power [B] with which all targets have their sensing SNR: ``min tr S``, ``c_m^H S c_m >= level_m``.

    Infinite where a target returns nothing.
    """
    size = C.abs().square().sum(-2)
    seen = (size > 0).all(-1)
    C, size = torch.where(seen[:, None, None], C, 1), torch.where(seen.unsqueeze(-1), size, C.shape[-2])
    apart = (level / size).sum(-1)  # each target by itself
    eye = torch.eye(C.shape[-2], dtype=C.dtype, device=C.device).expand(len(C), -1, -1)
    data = SensingQuadratic(eye, torch.zeros_like(C[..., :1]), C, level, 10 * apart, apart, 0 * level)
    x = far(data)
    for share in (1e-1, 1e-3, 1e-5, 1e-7, 1e-9):
        data = data._replace(barrier=share * apart)
        x = multipliers(data, x)
    found = (x[:, 1:] * level).sum(-1) - x[:, 0] * data.power
    return torch.where(seen, found, torch.inf)
