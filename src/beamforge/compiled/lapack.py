"""Inverse of a loaded positive semidefinite matrix by LAPACK."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from scipy.linalg import get_lapack_funcs

Array: TypeAlias = np.ndarray[Any, Any]


def loaded_inverse(M: Array, level: Array | float) -> Array:
    """``(M + diag(level))^-1`` of a positive semidefinite M [K, K] in row order, which is overwritten.

    All NaN if the sum is not positive definite.

    >>> loaded_inverse(np.ones((2, 2)), 1.0).round(3)
    array([[ 0.667, -0.333],
           [-0.333,  0.667]])
    """
    step = len(M) + 1
    M.reshape(-1)[::step] += level
    factorise, invert = routines(M.dtype.char)
    factor, failed = factorise(M.T, lower=False, clean=True, overwrite_a=True)  # M^T is in the order of LAPACK
    if failed:
        return np.full_like(M, np.nan)
    upper = invert(factor, lower=False, overwrite_c=True)[0]  # of the conjugate of the inverse
    whole: Array = upper.T + upper.conj()
    whole = np.ascontiguousarray(whole)
    whole.reshape(-1)[::step] *= 0.5
    return whole


def squared_magnitude(A: Array) -> Array:
    """``|A|^2``."""
    found: Array = A.real * A.real
    if np.iscomplexobj(A):
        found += A.imag * A.imag
    return found


@lru_cache
def routines(kind: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """LAPACK's potrf and potri for a type of numbers."""
    factorise, invert = get_lapack_funcs(("potrf", "potri"), dtype=np.dtype(kind))
    return factorise, invert
