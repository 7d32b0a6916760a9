"""Uplink powers for SINR targets with any positive semidefinite channel matrices, by Newton's method.

Source: M. Schubert, H. Boche, "Solution of the multiuser downlink beamforming problem with individual SINR
constraints", IEEE Trans. Veh. Technol. 53 (2004) (duality). Newton's method for the fixed point is ours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LONGEST_STEP = 5.0
"""Largest change of the common level in a step in log q, and of each user relative to it."""


class UplinkPowers(NamedTuple):
    """Result of `uplink_powers`: powers q [B, K], receivers [B, K, M] of norm one (rows), and which instances have a
    solution [B]; q and receivers are 0 for the others. `crossed` [B, K, K] is the matrix `coupling` of the receivers,
    with ``crossed q = 1``."""

    q: Tensor
    receivers: Tensor
    crossed: Tensor
    feasible: Tensor
    iterations: Tensor


def uplink_powers(
    wanted: Tensor,
    interfering: Tensor,
    targets: Tensor,
    start: Tensor | None = None,
    channels: Tensor | None = None,
    tolerance: float = 1e-7,
    max_iterations: int = 60,
) -> UplinkPowers:
    """The least uplink powers that meet SINR targets in noise I.

    ::

        q_k = target_k / lambda_max(Q_k^-1 Gw_k),   Q_k = I + sum_{j != k} q_j Gi_j

    A Newton step solves the linear equations for the powers that meet the targets with the current receivers, the
    principal eigenvectors; after the first such step powers decrease, with quadratic convergence. As long as no powers
    meet the targets with the current receivers, the step is taken in log q. Every instance stops on its own.

    An instance is infeasible if its powers exceed those without interference by a factor of about 1e-2/rounding, do not
    converge in `max_iterations`, or if a user has no channel.

    wanted, interfering  Gw and Gi, complex [B, K, M, M], Hermitian positive semidefinite.
    targets              [B, K], positive.
    start                first powers [B, K]; by default four times those without interference.
    channels             h [B, K, M] if all ``Gw_k = h_k h_k^H``: then eigenvectors are ``Q_k^-1 h_k``.
    tolerance            of the last step; the error of the result is about its square.
    """
    batch, users = wanted.shape[:2]
    h = channels
    if h is not None:
        strength = torch.linalg.vector_norm(h, dim=-1).square()
    else:
        strength = torch.linalg.eigvalsh(wanted)[..., -1] if batch else targets
    alone = targets / strength
    feasible = torch.isfinite(alone).all(-1) & (alone > 0).all(-1)
    q = 4 * alone if start is None else torch.where(torch.isfinite(start) & (start > 0), start, 4 * alone)
    receivers = torch.zeros_like(wanted[..., 0])
    crossed = torch.eye(users, dtype=targets.dtype, device=targets.device).repeat(batch, 1, 1)
    iterations = torch.zeros(batch, dtype=torch.long, device=targets.device)
    found = torch.zeros_like(feasible)
    q, most = torch.where(feasible[:, None], q, 0), 0.01 / torch.finfo(targets.dtype).eps
    active = feasible.nonzero().squeeze(-1)
    met = torch.zeros_like(active, dtype=torch.bool)
    for _ in range(max_iterations):
        if not len(active):
            break
        now = q[active]
        part = (wanted[active], interfering[active], targets[active], now, None if h is None else h[active])
        step, reached, moved = newton_step(*part)
        iterations[active] += 1
        stalled = met & reached & (step.sum(-1) >= now.sum(-1) * (1 - 1e-15))
        done = (moved <= tolerance) | stalled
        lost = ~(step / alone[active]).amax(-1).lt(most) | (met & ~reached)
        q[active] = step
        ready = active[done & ~lost]
        found[ready] = True
        running = ~done & ~lost
        active, met = active[running], reached[running]
    ready = found.nonzero().squeeze(-1)
    u = receivers_at(wanted[ready], interfering[ready], q[ready], None if h is None else h[ready])
    receivers[ready], crossed[ready] = u, coupling(wanted[ready], interfering[ready], targets[ready], u)
    return UplinkPowers(torch.where(found[:, None], q, 0), receivers, crossed, found, iterations)


def receivers_at(wanted: Tensor, interfering: Tensor, q: Tensor, channels: Tensor | None) -> Tensor:
    """Principal eigenvectors [B, K, M] of ``Q_k^-1 Gw_k``, of norm one."""
    factor = loaded(interfering, q)
    if channels is None:
        return principal(wanted, factor)
    u = torch.cholesky_solve(channels.unsqueeze(-1), factor).squeeze(-1)
    return u / torch.linalg.vector_norm(u, dim=-1, keepdim=True)


def rank_one(G: Tensor) -> Tensor | None:
    """h [B, K, M] with ``G_k = h_k h_k^H`` up to rounding; None unless all matrices are of rank one."""
    power = G.diagonal(dim1=-2, dim2=-1).real
    most, place = power.max(-1, keepdim=True)
    column = G.gather(-1, place.unsqueeze(-2).expand(*G.shape[:-1], 1)).squeeze(-1)
    h = torch.where(most > 0, column / most.clamp_min(torch.finfo(most.dtype).tiny).sqrt(), 0)
    off = (G - h.unsqueeze(-1) * h.conj().unsqueeze(-2)).abs().amax((-2, -1))
    return h if (off <= 1e-13 * most.squeeze(-1)).all() else None


def loaded(interfering: Tensor, q: Tensor) -> Tensor:
    """Cholesky factors [B, K, M, M] of ``Q_k = I + sum_{j != k} q_j Gi_j``."""
    users, size = interfering.shape[1:3]
    others = 1 - torch.eye(users, dtype=q.dtype, device=q.device)
    weights = (q.unsqueeze(-2) * others).to(interfering.dtype)  # a masked sum, not the total minus the own
    Q = (weights @ interfering.flatten(-2)).unflatten(-1, (size, size))
    Q = (Q + Q.mH) / 2 + torch.eye(size, dtype=Q.dtype, device=Q.device)
    return torch.linalg.cholesky_ex(Q)[0]


def principal(wanted: Tensor, factor: Tensor) -> Tensor:
    """Principal eigenvectors [B, K, M] of ``Q_k^-1 Gw_k``, of norm one, from the Cholesky factors of Q_k."""
    half = torch.linalg.solve_triangular(factor, wanted, upper=False)
    white = torch.linalg.solve_triangular(factor, half.mH, upper=False)
    usable = torch.isfinite(torch.view_as_real(white)).flatten(1).all(-1)[:, None, None, None]
    white = torch.where(usable, (white + white.mH) / 2, 0)
    top = torch.linalg.eigh(white)[1][..., -1:]
    u = torch.linalg.solve_triangular(factor.mH, top, upper=True).squeeze(-1)
    return u / torch.linalg.vector_norm(u, dim=-1, keepdim=True)


def quadratic(matrices: Tensor, u: Tensor) -> Tensor:
    """``u_k^H G_j u_k`` [B, k, j] for matrices [B, j, M, M] and vectors [B, k, M]."""
    through = torch.einsum("bjmn,bkn->bkjm", matrices, u)
    return torch.einsum("bkm,bkjm->bkj", u.conj(), through).real


def coupling(wanted: Tensor, interfering: Tensor, targets: Tensor, u: Tensor) -> Tensor:
    """``P_kk = u_k^H Gw_k u_k / target_k``, ``P_kj = -u_k^H Gi_j u_k``: ``P q = 1`` in the uplink, ``P^T p = 1`` in the
    downlink, with vectors u_k of norm one and noise I."""
    own = torch.einsum("bkm,bkmn,bkn->bk", u.conj(), wanted, u).real / targets
    crossed = quadratic(interfering, u)
    return torch.diag_embed(own) - crossed + torch.diag_embed(crossed.diagonal(dim1=-2, dim2=-1))


def newton_step(
    wanted: Tensor, interfering: Tensor, targets: Tensor, q: Tensor, channels: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One Newton step: in q where the receivers at q can meet the targets, else in log q.

    Returns the powers, whether the step was taken in q [B], and the largest relative change [B], infinite for a step in
    log q.
    """
    u = receivers_at(wanted, interfering, q, channels)
    P = coupling(wanted, interfering, targets, u)
    own = P.diagonal(dim1=-2, dim2=-1)
    crossed = torch.diag_embed(own) - P
    powers = torch.linalg.solve_ex(P / own.unsqueeze(-1), 1 / own)[0]
    reached = (powers > 0).all(-1)
    moved = torch.where(reached, (powers / q - 1).abs().amax(-1), torch.inf)
    received = (crossed @ q.unsqueeze(-1)).squeeze(-1) + 1
    J = crossed * q.unsqueeze(-2) / received.unsqueeze(-1)  # derivatives of log(target/lambda_max) by log q
    balance = torch.diag_embed(J.sum(-1) + 1 / received) - J  # I - J, computed accurately
    climb = torch.linalg.solve_ex(balance, (received / own / q).log())[0]
    mean = climb.mean(-1, keepdim=True)  # J is almost stochastic here: the common level increases most
    climb = mean.abs().clamp_max(LONGEST_STEP) + (climb - mean).clamp(-LONGEST_STEP, LONGEST_STEP)
    return torch.where(reached.unsqueeze(-1), powers, q * climb.exp()), reached, moved
