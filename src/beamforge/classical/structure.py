"""Beams from multipliers: the optimal beam structure, with a few real numbers per user.

On one transmitter, in units where the noise is one, the optimal directions for sum rate, balanced SINRs and least power
are ``v_k ∝ (I + sum_j mu_j h_j h_j^H)^-1 h_k``, the columns of ``H^H (I + diag(mu) H H^H)^-1``. MRT is mu = 0, zero
forcing mu = infinity, regularised zero forcing mu = P/K. If every beam has its own power limit, there is also a
multiplier nu_k for each: ``v_k ∝ (nu_k I + sum_j mu_j h_j h_j^H)^-1 h_k``.

Source: E. Björnson, M. Bengtsson, B. Ottersten, "Optimal multiuser transmit beamforming: a difficult problem with a
simple solution structure", IEEE Signal Process. Mag. 31 (2014), Eq. 10.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from beamforge.core.network import own, squared_magnitude


def directions(H: Tensor, multipliers: Tensor, gram: Tensor | None = None) -> Tensor:
    """Unit-norm columns of ``H^H (I + diag(mu) H H^H)^-1``, [..., N, K]; zero for a user without a channel.

    H            [..., K, N], rows h_k^H divided by the square root of the noise.
    multipliers  mu [..., K], non-negative.
    gram         ``H H^H`` if it is known already.

    The symmetric matrix ``M = I + mu^1/2 H H^H mu^1/2`` is inverted. Column lengths are free, so there is no division
    by mu. The direction of a user does not depend on its own mu (Sherman-Morrison), so a zero mu is replaced by a value
    of the size of rounding.

    >>> H = torch.tensor([[1.0 + 0j, 0.0], [1.0, 1.0]])
    >>> (H @ directions(H, torch.tensor([1e6, 1e6]))).abs().round(decimals=3)
    tensor([[0.7070, 0.0000],
            [0.0000, 1.0000]])
    """
    gram = H @ H.mH if gram is None else gram
    size = torch.diagonal(gram, dim1=-2, dim2=-1).real
    eps = torch.finfo(size.dtype).eps
    floor = eps / size.amax(-1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
    root = multipliers.clamp_min(0).maximum(floor).sqrt()
    scaled = root.unsqueeze(-1) * gram * root.unsqueeze(-2)
    level = 1 + 4 * eps * own(scaled).real
    return unit(H.mH @ (root.unsqueeze(-1) * loaded_inverse(scaled, level)))


def loaded_inverse(M: Tensor, level: Tensor) -> Tensor:
    """``(M + diag(level))^-1`` of a positive semidefinite M [..., K, K] and positive levels [..., K].

    >>> loaded_inverse(torch.ones(2, 2), torch.tensor([1.0, 1.0])).round(decimals=3)
    tensor([[ 0.6670, -0.3330],
            [-0.3330,  0.6670]])
    """
    loaded = M.clone()
    loaded.diagonal(dim1=-2, dim2=-1).add_(level)
    factor, failed = torch.linalg.cholesky_ex(loaded.mT)  # transposed: the memory layout that the factorisation needs
    try:
        return torch.cholesky_inverse(factor).mT
    except torch.linalg.LinAlgError:  # one matrix failed; the others keep their inverses
        return torch.cholesky_inverse(factor.masked_fill((failed > 0)[..., None, None], torch.nan)).mT


def unit(W: Tensor) -> Tensor:
    """Columns of W [..., N, K] scaled to norm one; zero columns are unchanged."""
    largest = torch.maximum(W.real.abs(), W.imag.abs()).amax(-2, keepdim=True)  # the square of 1e-30 underflows
    W = W / torch.where(largest > 0, largest, 1)
    norm = squared_magnitude(W).sum(-2, keepdim=True)
    return W * torch.where(norm > 0, norm, 1).rsqrt()


def coefficients(gram: Tensor, prices: Tensor, ridges: Tensor) -> Tensor:
    """X [..., K, K] of the beams ``H^H X`` along ``v_u ∝ (sum_l mu_l h_l h_l^H + nu_u I)^-1 h_u``, each of norm one.

    gram    ``H H^H`` [..., K, K].
    prices  mu [..., K], positive: the multipliers of interference at each user.
    ridges  nu [..., K], positive: the multipliers of the power of each beam.

    One eigendecomposition of ``mu^1/2 H H^H mu^1/2`` serves all ridges. Derivatives are those of the linear systems, so
    they also exist for equal eigenvalues. A user without a channel gets a zero beam.

    >>> H = torch.tensor([[1.0 + 0j, 0.0], [1.0, 1.0]])
    >>> X = coefficients(H @ H.mH, torch.tensor([1e4, 1e4]), torch.tensor([1e4, 1e-2]))
    >>> (H @ H.mH @ X).abs().round(decimals=2)  # nu_1 is large: MRT; nu_2 is small: zero forcing
    tensor([[0.8900, 0.0000],
            [0.4500, 1.0000]])
    """
    root = prices.sqrt()
    weighted = root.unsqueeze(-1) * gram * root.unsqueeze(-2)
    rounding = torch.finfo(root.dtype).eps * torch.diagonal(weighted, dim1=-2, dim2=-1).real.amax(-1, keepdim=True)
    return of_norm_one(gram, root.unsqueeze(-1) * resolvent_columns(weighted, ridges + 4 * rounding))


def equal_ridge_coefficients(gram: Tensor, prices: Tensor) -> Tensor:
    """`coefficients` with all ridges equal to one, by a Cholesky factorisation."""
    root = prices.sqrt()
    weighted = root.unsqueeze(-1) * gram * root.unsqueeze(-2)
    level = 1 + 4 * torch.finfo(root.dtype).eps * own(weighted).real
    return of_norm_one(gram, root.unsqueeze(-1) * loaded_inverse(weighted, level))


def of_norm_one(gram: Tensor, X: Tensor) -> Tensor:
    """X with columns scaled such that those of ``H^H X`` have norm one; zero for a user without a channel.

    With more users than antennas and little noise that norm may vanish by rounding: then the column of X has norm one.
    """
    D = gram @ X
    norm = (X.real * D.real + X.imag * D.imag).sum(-2, keepdim=True)
    heard = (own(gram).real > 0).unsqueeze(-2)  # without a channel, a column consists of rounding errors
    norm = torch.where(norm > 0, norm, squared_magnitude(X).sum(-2, keepdim=True))
    return X * torch.where(heard & (norm > 0), norm, torch.inf).rsqrt()


def resolvent_columns(M: Tensor, ridges: Tensor) -> Tensor:
    """Columns ``z_u = (M + nu_u I)^-1 e_u`` [..., K, K] of a positive semidefinite M [..., K, K], nu [..., K].

    If M is not finite, its columns are NaN; other instances are not affected. Derivatives of any order are those of the
    linear systems.
    """
    with torch.no_grad():
        finite = torch.isfinite(M).all(-1).all(-1)[..., None, None]
        values, U = torch.linalg.eigh(torch.where(finite, M, 0))  # eigh raises for a whole batch if one entry is NaN
        values = values.clamp_min(0)
    return Resolvent.apply(M, ridges, None, (values, U)).masked_fill(~finite, torch.nan)


class Resolvent(torch.autograd.Function):
    """``z_u = (M + nu_u I)^-1 y_u`` for the columns of Y [..., K, K] (None: of the identity), by eigenvectors of M.

    With g_u the derivative of a scalar with respect to z_u and ``l_u = (M + nu_u I)^-1 g_u``, its derivatives are l_u
    with respect to y_u, ``-sum_u l_u z_u^H`` to M and ``-Re l_u^H z_u`` to nu_u. These are resolvents again, so
    derivatives of any order exist, without a division by differences of eigenvalues.
    """

    @staticmethod
    def forward(ctx: Any, M: Tensor, ridges: Tensor, Y: Tensor | None, eigen: tuple[Tensor, Tensor]) -> Tensor:
        """The columns."""
        values, U = eigen
        inverse = (values.unsqueeze(-1) + ridges.unsqueeze(-2)).reciprocal()
        Z = U @ ((U.mH if Y is None else U.mH @ Y) * inverse)
        ctx.save_for_backward(M, ridges, Z)
        ctx.eigen = eigen
        return Z

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        """Gradients with respect to M, the ridges and Y, from those with respect to the columns."""
        M, ridges, Z = ctx.saved_tensors
        L = Resolvent.apply(M, ridges, G, ctx.eigen)
        return -(L @ Z.mH), -(L.conj() * Z).real.sum(-2), L if ctx.needs_input_grad[2] else None, None
