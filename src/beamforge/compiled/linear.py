"""MRT and regularised zero forcing for one channel, as `classical.linear` computes them."""

from __future__ import annotations

import numpy as np

from beamforge.compiled.lapack import Array, loaded_inverse, squared_magnitude


def mrt(H: Array, power: float) -> Array:
    """Beams [N, K] of equal power along the channels H [K, N]; zero for a user without a channel."""
    return of_power(H.conj().T, power / len(H))


def rzf(H: Array, power: float) -> Array:
    """Beams [N, K] of equal power along ``H^H (H H^H + K/P I)^-1``, for channels [K, N] in units of the noise."""
    K = len(H)
    gram = (H @ H.conj().T) * (power / K)
    level = 1 + 4 * np.finfo(gram.real.dtype).eps * gram.diagonal().real
    return of_power(H.conj().T @ loaded_inverse(gram, level), power / K)


def of_power(W: Array, power: float) -> Array:
    """Columns of W scaled to a power; zero columns are unchanged."""
    squares = squared_norms(W)
    largest = squares.max(initial=0)
    tiny, huge = np.finfo(squares.dtype).tiny, np.finfo(squares.dtype).max
    if not (squares.min(initial=1) > tiny * 1e6 and largest < huge / 1e6):  # under- or overflow of a square
        size = np.maximum(np.abs(W.real), np.abs(W.imag)).max(0)
        W = W / np.where(size > 0, size, 1)
        squares = squared_norms(W)
    return W * np.sqrt(power / np.where(squares > 0, squares, 1), dtype=squares.dtype)


def squared_norms(W: Array) -> Array:
    """Squared norm [K] of every column of W [N, K]."""
    norms: Array = np.add.reduce(squared_magnitude(W), 0)
    return norms
