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

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from beamforge.core import batching
from beamforge.core.network import own, squared_magnitude

Data = TypeVar("Data")

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


class Diagonal(NamedTuple):
    """`SensingQuadratic` in an eigenbasis of A: its eigenvalues [B, N], and B and C in that basis."""

    eigenvalues: Tensor
    B: Tensor
    C: Tensor
    level: Tensor
    power: Tensor
    barrier: Tensor
    sensing_weight: Tensor


class Barrier(NamedTuple):
    """Dual function with barrier at x [B, M + 1]: value [B], gradient [B, M + 1] and Hessian [B, M + 1, M + 1]."""

    value: Tensor
    gradient: Tensor
    hessian: Tensor


def diagonal(data: SensingQuadratic) -> Diagonal:
    """The problem in an eigenbasis of A, found once for all Newton steps; A is taken as zero where it is not finite."""
    finite = torch.view_as_real(data.A).isfinite().all(-1).all((-2, -1))
    eigenvalues, basis = torch.linalg.eigh(torch.where(finite[:, None, None], data.A, 0))
    return Diagonal(eigenvalues.clamp_min(0), basis.mH @ data.B, basis.mH @ data.C, *data[3:])


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


def weights(data: SensingQuadratic | Diagonal) -> Tensor:
    """Weights [B, M + 1] of the logarithms of x."""
    e = data.barrier.unsqueeze(-1)
    return torch.cat([e, e + data.sensing_weight], -1)


class Inverse(NamedTuple):
    """``X^-1 = diag(d) + Z S Z^H`` with ``Z = diag(d) C``, d [B, N], and what gives S: see `inverse`.

    G = C^H Z [B, M, M], root [B, M] of the targets' multipliers, E = Z^H B [B, M, K], factor [B, M, M] of
    ``I - diag(root) G diag(root)`` (the identity where that is not positive definite), definite [B].
    """

    d: Tensor
    Z: Tensor
    G: Tensor
    root: Tensor
    E: Tensor
    factor: Tensor
    definite: Tensor


def inverse(data: Diagonal, x: Tensor) -> Inverse:
    """X^-1 by the matrix inversion lemma, from a Cholesky factor of M rows: ``S = (diag(1/x_m) - G)^-1``."""
    root = x[:, 1:].clamp_min(1e-300).sqrt()
    d = (data.eigenvalues + x[:, :1].clamp_min(1e-300)).reciprocal()
    Z = d.unsqueeze(-1) * data.C
    G = data.C.mH @ Z
    eye = torch.eye(G.shape[-1], dtype=G.dtype, device=G.device)
    factor, failed = torch.linalg.cholesky_ex(eye - root.unsqueeze(-1) * G * root.unsqueeze(-2))
    definite = (failed == 0) & (x > 0).all(-1)
    return Inverse(d, Z, G, root, Z.mH @ data.B, torch.where(definite[:, None, None], factor, eye), definite)


def value(data: Diagonal, x: Tensor, at: Inverse | None = None) -> Tensor:
    """Dual function with barrier [B]; -inf where X is not positive definite."""
    at = inverse(data, x) if at is None else at
    half = torch.linalg.solve_triangular(at.factor, at.root.unsqueeze(-1) * at.E, upper=False)
    error = (at.d.unsqueeze(-1) * squared_magnitude(data.B)).sum((-2, -1)) + squared_magnitude(half).sum((-2, -1))
    logs = data.barrier * (2 * own(at.factor).real.log().sum(-1) - at.d.log().sum(-1))
    logs = logs + (weights(data) * x.clamp_min(1e-300).log()).sum(-1)
    objective = -error - x[:, 0] * data.power + (x[:, 1:] * data.level).sum(-1)
    return torch.where(at.definite, objective + logs, -torch.inf)


def barrier(data: Diagonal, x: Tensor) -> Barrier:
    """Value and derivatives at x with X positive definite; O(N M K)."""
    at, e = inverse(data, x), data.barrier.unsqueeze(-1)
    d, Z, G, E = at.d, at.Z, at.G, at.E
    reciprocal = torch.cholesky_inverse(at.factor) * at.root.unsqueeze(-1)
    S, V = reciprocal * at.root.unsqueeze(-2), reciprocal / at.root.unsqueeze(-2)
    W = d.unsqueeze(-1) * data.B + (Z @ S) @ E
    CW, TC, CTC = V.mH @ E, Z @ V, G @ V  # T = X^-1, and W W^H + e T is the transmit covariance
    ZZ, ZW = Z.mH @ Z, Z.mH @ W
    data_snr, stream_snr = squared_magnitude(CW).sum(-1), e * own(CTC).real
    beam_power = squared_magnitude(W).sum(-1)
    power = beam_power.sum(-1) + data.barrier * (d.sum(-1) + trace(S, ZZ))
    slack = torch.cat([(power - data.power).unsqueeze(-1), data.level - data_snr - stream_snr], -1)
    gradient = slack + weights(data) / x
    # second derivatives: -2 Re tr(E_j T E_k W W^H) - e tr(E_j T E_k T), with E_0 = I and E_m = -c_m c_m^H
    targets = 2 * (CTC * (CW @ CW.mH).mT).real + data.barrier[:, None, None] * squared_magnitude(CTC)
    mixed = 2 * (TC.conj() * (W @ CW.mH)).sum(-2).real + e * squared_magnitude(TC).sum(-2)
    square = d.square().sum(-1) + 2 * trace(S, Z.mH @ (d.unsqueeze(-1) * Z)) + trace(S @ ZZ, S @ ZZ)
    total = 2 * ((d * beam_power).sum(-1) + trace(S, ZW @ ZW.mH)) + data.barrier * square
    top = torch.cat([total.unsqueeze(-1), -mixed], -1).unsqueeze(-2)
    hessian = torch.cat([top, torch.cat([-mixed.unsqueeze(-1), targets], -1)], -2) + torch.diag_embed(
        weights(data) / x.square()
    )
    return Barrier(value(data, x, at), gradient, -hessian)


def trace(one: Tensor, other: Tensor) -> Tensor:
    """``Re tr(one other)`` [B] of matrices [B, M, M]."""
    return (one * other.mT).sum((-2, -1)).real


def initial_multipliers(data: SensingQuadratic) -> Tensor:
    """Initial multipliers [B, M + 1], for which X is positive definite."""
    size = data.C.abs().square().sum(-2).amax(-1)  # |c|^2
    power = (data.B.abs().square().sum((-2, -1)) / data.power).sqrt() + data.barrier / data.power
    target = power / (4 * data.C.shape[-1] * size)
    return torch.cat([power.unsqueeze(-1), target.unsqueeze(-1).expand_as(data.level)], -1)


def multipliers(data: SensingQuadratic | Diagonal, x: Tensor) -> Tensor:
    """Optimal multipliers x [B, M + 1] by Newton's method from given ones; O(N^3 + N^2 K), and O(N M K) a step."""
    plain = diagonal(data) if isinstance(data, SensingQuadratic) else data
    return newton_ascent(plain, value, barrier, positive(plain, x), data.barrier)


def decreased(data: SensingQuadratic, x: Tensor, factors: Sequence[float]) -> Tensor:
    """Optimal multipliers [B, M + 1] after the barrier's weight was multiplied by each of some factors in turn.

    x are those of the given weight. Newton's method starts on the tangent of the central path: with g_e the gradient at
    the weight e, and H the Hessian there, the tangent leads from x to ``x + H^-1 (g_e - g_f)`` at the weight f.
    """
    plain = diagonal(data)
    for factor in factors:
        here, weaker = barrier(plain, x), plain._replace(barrier=factor * plain.barrier)
        step = torch.linalg.solve(here.hessian, here.gradient - barrier(weaker, x).gradient)
        for _ in range(HALVINGS):
            inside = inverse(weaker, x + step).definite
            if inside.all():
                break
            step = torch.where(inside.unsqueeze(-1), step, step / 2)
        plain, x = weaker, multipliers(weaker, x + step)
    return x


def newton_ascent(
    data: Data,
    value: Callable[[Data, Tensor], Tensor],
    derivatives: Callable[[Data, Tensor], tuple[Tensor, Tensor, Tensor]],
    x: Tensor,
    weight: Tensor,
    stop: Callable[[Data, Tensor], Tensor] | None = None,
) -> Tensor:
    """Maximiser [B, n] of a concave function with a barrier of the given weight [B], by Newton's method from x > 0.

    data         a tree of [B, ...] tensors; instances that have converged are left out of the computation.
    value        [B], -inf outside the domain of the barrier.
    derivatives  value [B], gradient [B, n] and Hessian [B, n, n].
    stop         [B], an additional stopping criterion.
    """
    out, where = x, torch.arange(len(x), device=x.device)
    active = torch.ones_like(weight, dtype=torch.bool)
    for _ in range(STEPS):
        here, gradient, hessian = derivatives(data, x)
        scale = (-own(hessian)).rsqrt()
        system, failed = torch.linalg.cholesky_ex(-hessian * scale.unsqueeze(-1) * scale.unsqueeze(-2))
        step = scale * torch.cholesky_solve((gradient * scale).unsqueeze(-1), system).squeeze(-1)
        gain = (gradient * step).sum(-1)
        active = active & (failed == 0) & (gain > DECREMENT**2 * weight)
        if stop is not None:
            active = active & ~stop(data, x)
        if not active.any():
            break
        if 2 * active.sum() <= len(active):
            out, (data, x, weight, where, here, step, gain) = (
                out.index_copy(0, where, x),
                batching.take((data, x, weight, where, here, step, gain), active),
            )
            active = active[active]
        size, improved = line_search(partial(value, data), x, step, here, gain, weight, active)
        active = active & improved
        x = x + torch.where(active, size, 0).unsqueeze(-1) * torch.where(active.unsqueeze(-1), step, 0)
    return out.index_copy(0, where, x)


def line_search(
    value: Callable[[Tensor], Tensor],
    x: Tensor,
    step: Tensor,
    here: Tensor,
    gain: Tensor,
    weight: Tensor,
    active: Tensor,
) -> tuple[Tensor, Tensor]:
    """Step size [B] along a Newton step, and where one was found [B].

    here, gain  value at x, and its derivative along the step.
    active      the instances that are looked at.
    """
    size = torch.ones_like(weight)
    reached, short = here, active
    for _ in range(HALVINGS):
        reached = value(x + size.unsqueeze(-1) * step)
        short = active & ~(reached >= here + 0.2 * size * gain - 1e-14 * here.abs())
        if not short.any():
            break
        size = torch.where(short, size / 2, size)
    long = active & ~short & (gain > weight)  # far from the optimum, avoid a step up to the boundary
    for _ in range(HALVINGS if long.any() else 0):
        tried = torch.where(long, size / 2, size)
        there = value(x + tried.unsqueeze(-1) * step)
        long = long & (there > reached)
        if not long.any():
            break
        size, reached = torch.where(long, tried, size), torch.where(long, there, reached)
    return size, active & ~short


def positive(data: Diagonal, x: Tensor) -> Tensor:
    """Multipliers for which X is positive definite: the multiplier of the power is increased where necessary."""
    x = x.clone()
    for _ in range(60):
        definite = inverse(data, x).definite
        if definite.all():
            break
        x[:, 0] = torch.where(definite, x[:, 0], 2 * x[:, 0] + 1e-12)
    return x


def attainable(C: Tensor, level: Tensor, power: Tensor) -> Tensor:
    """Whether the power [B] suffices for the sensing SNRs alone, exactly.

    An instance is decided as soon as a bound is: separate beams to all targets need at least the minimum power, the
    dual function at most, and ``e (N + M + 1)`` above the latter is enough.
    """
    C = reduced(C)
    separate = separate_powers(C, level).sum(-1)
    enough = separate <= power
    where = (~enough & separate.isfinite()).nonzero().squeeze(-1)
    if not len(where):
        return enough
    data, x = power_problem(*batching.take((C, level), where))
    separate = data.power / SPARE_POWER
    for share in SHARES:
        data = data._replace(barrier=share * separate)
        x = multipliers(data, x)
        least = power_bound(data, x)
        most = least + data.barrier * (data.A.shape[-1] + x.shape[-1])
        limit = power[where]
        enough = enough.index_copy(0, where, (least if share == SHARES[-1] else most) <= limit)
        unclear = (least <= limit) & (most > limit)
        if not unclear.any():
            break
        data, x, separate, where = batching.take((data, x, separate, where), unclear)
    return enough


def separate_powers(C: Tensor, level: Tensor) -> Tensor:
    """``level_m / |c_m|^2`` [B, M], the power for target m alone; infinite where it has zero gain."""
    size = squared_magnitude(C).sum(-2)
    return torch.where(size > 0, level / torch.where(size > 0, size, 1), torch.inf)


def least_power(C: Tensor, level: Tensor) -> Tensor:
    """Minimum power [B] for the sensing SNRs alone: ``min tr S`` subject to ``c_m^H S c_m >= level_m``.

    Infinite where a target has zero gain.
    """
    C = reduced(C)
    visible = separate_powers(C, level).isfinite().all(-1)
    data, x = power_problem(torch.where(visible[:, None, None], C, 1), level)
    separate = data.power / SPARE_POWER
    for share in SHARES:
        data = data._replace(barrier=share * separate)
        x = multipliers(data, x)
    return torch.where(visible, power_bound(data, x), torch.inf)


SHARES = (1e-1, 1e-3, 1e-5, 1e-7, 1e-9)
"""Successive weights of the barrier, relative to the power of separate beams."""

SPARE_POWER = 10.0
"""Power limit of the minimum-power problem relative to the power of separate beams; it is never active."""


def reduced(C: Tensor) -> Tensor:
    """A matrix [B, min(N, M), M] with the Gram matrix of C [B, N, M], on which alone the minimum power depends."""
    return torch.linalg.qr(C, mode="r")[1] if C.shape[-2] > C.shape[-1] else C


def power_problem(C: Tensor, level: Tensor) -> tuple[SensingQuadratic, Tensor]:
    """The minimum-power problem, with a barrier as large as the power of separate beams, and initial multipliers."""
    separate = separate_powers(C, level).sum(-1)
    eye = torch.eye(C.shape[-2], dtype=C.dtype, device=C.device).expand(len(C), -1, -1)
    level = level.expand(len(C), C.shape[-1])
    data = SensingQuadratic(
        eye, torch.zeros_like(C[..., :1]), C, level, SPARE_POWER * separate, separate, torch.zeros_like(level)
    )
    return data, initial_multipliers(data)


def power_bound(data: SensingQuadratic, x: Tensor) -> Tensor:
    """Dual function [B] of the minimum-power problem without its barrier, at most the minimum power."""
    return (x[:, 1:] * data.level).sum(-1) - x[:, 0] * data.power
