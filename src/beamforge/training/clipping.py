"""Limits on the norm of gradients that follow their history."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def adaptive_limit(norms: Sequence[float], quantile: float) -> float:
    """The `quantile` of the norms so far, the limit for the last of them; infinite without any.

    >>> adaptive_limit([1.0, 2.0, 3.0, 100.0], 0.5)
    2.5

    Source: P. Seetharaman, G. Wichern, B. Pardo, J. Le Roux, "AutoClip", MLSP 2020.
    """
    finite = [norm for norm in norms if np.isfinite(norm)]
    return float(np.quantile(finite, quantile)) if finite else float("inf")
