"""Least power for SINR targets from Gram matrices of the channels alone, for very many small problems at once.

With channels h_k of rank one and noise I, all that matters is ``C_kj = h_k^H D^-1 h_j``. Problems are the last axis:
arithmetic on [K, K, n] is vectorised over problems, where LAPACK would be called for each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.hybrid.uplink import LONGEST_STEP


class Step(NamedTuple):
    """Result of `newton_step`.

    q        powers after the step [K, n].
    reached  whether they meet all targets [n]; then their sum is an upper bound on the least power.
    lower    a lower bound on the least power [n].
    moved    largest relative change [n]; infinite where not `reached`.
    """

    q: Tensor
    reached: Tensor
    lower: Tensor
    moved: Tensor


def newton_step(gram: Tensor, targets: Tensor, q: Tensor) -> Step:
    """One Newton step on ``q_k = I_k(q)``, the power that user k needs if the others send with powers q.

    ::

        X = (I + diag(sqrt q) C diag(sqrt q))^-1,    I_k(q) = target_k q_k X_kk / (1 - X_kk)

    With the receivers of least squared error at q, powers ``y_k q_k`` meet the targets if ``y_k (1 - X_kk)^2/target_k =
    sum_{j != k} y_j |X_kj|^2 + m_k``, where m_k is the noise received. Where this has no positive solution, the step is
    taken in log q.

    I is concave, so ``t q <= I(t q)`` for ``t = min_k I_k(0) / (I_k(0) + q_k - I_k(q))`` (at most 1), and the least
    power is at least ``sum_k t I_k(q) + (1 - t) I_k(0)`` (weak duality).

    gram     C [K, K, n] complex.
    targets  [K, n], positive.
    q        [K, n], positive.
    """
    users = len(q)
    root = q.sqrt()
    X = inverse(gram * (root.unsqueeze(1) * root))
    own = X.diagonal().mT.real
    heard = 1 - own
    cross = X.real.square() + X.imag.square()
    for k in range(users):
        cross[k, k] = 0
    noise = heard * own - cross.sum(0)
    strength = heard.square() / targets
    y, reached = positive_solution(strength, cross, noise)
    alone = targets / gram.diagonal().mT.real
    needed = targets * q * own / heard
    t = (alone / (alone + (q - needed).clamp_min(0))).amin(0)
    lower = (t * needed + (1 - t) * alone).sum(0)
    moved = torch.where(reached, (y - 1).abs().amax(0), torch.inf)
    if not reached.all():
        received = cross.sum(0) + noise
        share = cross / received  # the equation of user k is column k
        climb, _ = positive_solution(torch.ones_like(q), share, (received / strength).log(), noise / received)
        mean = climb.mean(0)  # the matrix is almost stochastic here: the common level increases most
        climb = mean.abs().clamp_max(LONGEST_STEP) + (climb - mean).clamp(-LONGEST_STEP, LONGEST_STEP)
        y = torch.where(reached, y, climb.exp())
    return Step(q * y, reached, lower, moved)


def inverse(S: Tensor) -> Tensor:
    """``(I + S)^-1`` of Hermitian positive semidefinite matrices [K, K, n], by Gauss-Jordan elimination."""
    A = S.clone()
    for k in range(len(A)):
        A[k, k] += 1
    for k in range(len(A)):
        column, pivot = A[:, k].clone(), A[k, k].real.reciprocal()
        scaled = column * pivot
        A.sub_(column.unsqueeze(1) * scaled.conj())
        A[:, k], A[k] = scaled, scaled.conj()
        A[k, k] = -pivot
    return A.neg_()


def positive_solution(
    strength: Tensor, cross: Tensor, right: Tensor, margin: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Solves ``strength_k y_k - sum_{j != k} cross_jk y_j = right_k``; y [K, n], and whether it is positive [n].

    For positive right sides y is positive if and only if all pivots of the elimination are. With a `margin` the
    diagonal is ``margin_k + sum_j cross_jk`` instead, which is more accurate than a strength of about that.
    """
    users = len(strength)
    A = -cross.transpose(0, 1).contiguous()
    for k in range(users):
        A[k, k] = strength[k] if margin is None else margin[k] + cross[:, k].sum(0)
    y = right.clone()
    positive = A[0, 0] > 0
    for k in range(users - 1):
        factor = A[k + 1 :, k] / A[k, k]
        A[k + 1 :, k + 1 :] -= factor.unsqueeze(1) * A[k, k + 1 :]
        y[k + 1 :] -= factor * y[k]
        positive &= A[k + 1, k + 1] > 0
    for k in reversed(range(users)):
        y[k] = (y[k] - (A[k, k + 1 :] * y[k + 1 :]).sum(0)) / A[k, k]
    return y, positive & (y > 0).all(0) & torch.isfinite(y).all(0)
