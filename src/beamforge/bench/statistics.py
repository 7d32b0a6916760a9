"""Statistics of a comparison: means, percentiles, paired differences and their confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.floating]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Mean of a paired difference to the baseline and its 95 % confidence interval, in the utility's unit.

    Signed so that more is better: for minimum power it is the power saved. Instances that only one of the two methods
    solved are left out; `pairs` counts the others.
    """

    mean: float
    low: float
    high: float
    pairs: int


def paired_difference(ours: Values, baseline: Values, sense: int = 1) -> Difference:
    """The difference ``sense (ours - baseline)`` [B], instance by instance; NaN marks an instance without a solution.

    The interval is Student's, ``mean ± t_{0.975, n-1} s / sqrt(n)``; with fewer than two pairs it is NaN.

    >>> paired_difference(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    Difference(mean=2.0, low=-0.484..., high=4.484..., pairs=3)
    """
    difference = sense * (np.asarray(ours, dtype=float) - np.asarray(baseline, dtype=float))
    difference = difference[np.isfinite(difference)]
    n = len(difference)
    mean = float(difference.mean()) if n else float("nan")
    if n < 2:
        return Difference(mean, float("nan"), float("nan"), n)
    error = stats.sem(difference)
    low, high = stats.t.interval(CONFIDENCE, n - 1, loc=mean, scale=error) if error > 0 else (mean, mean)
    return Difference(mean, float(low), float(high), n)


@dataclass(frozen=True)
class Estimate:
    """A number and half the width of its 95 % confidence interval."""

    value: float
    half: float


def percent_of_mean(ours: Values, baseline: Values) -> Estimate:
    """``100 mean(ours) / mean(baseline)`` over the same instances [B].

    The interval is that of the paired differences ``ours - ratio * baseline``, so variation between instances that is
    common to both methods does not widen it.

    >>> percent_of_mean(np.array([2.0, 4.0, 6.5]), np.array([1.0, 2.0, 3.0]))
    Estimate(value=208.333..., half=27.385...)
    """
    ratio = mean(ours) / mean(baseline)
    spread = paired_difference(ours, ratio * baseline)
    return Estimate(100 * ratio, 50 * (spread.high - spread.low) / mean(baseline))


def mean(values: Values) -> float:
    """Mean of the finite values, NaN if there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def percentile(values: Values, q: float) -> float:
    """The q-th percentile of the finite values (linear interpolation), NaN if there is none.

    The 5th percentile of the users' rates describes the weakest users of a cell.
    """
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, q)) if finite.size else float("nan")


def percent_of_bound(utility: Values, bound: Values, sense: int = 1) -> float:
    """Mean over the solved instances of utility over bound in percent (bound over utility where less is better).

    >>> percent_of_bound(np.array([8.0, 9.0]), np.array([10.0, 10.0]))
    85.0
    """
    return mean(100 * (utility / bound if sense > 0 else bound / utility))
