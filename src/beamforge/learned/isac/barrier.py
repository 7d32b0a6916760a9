"""Logarithmic barrier of the sensing SNR targets, continued below the target, where the logarithm is undefined."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

EDGE = 0.01
"""Relative margin over the target below which the barrier of the ascent is a parabola."""


class Barrier(NamedTuple):
    """Values, first derivatives, and negated second derivatives, of the shape of the margins."""

    value: Tensor
    slope: Tensor
    curvature: Tensor


def barrier(margin: Tensor, edge: float = EDGE) -> Barrier:
    """``log t`` for margins ``t >= e``, and its second-order Taylor polynomial at e below::

        phi(t) = log e + u - u^2 / 2,     u = (t - e) / e

    margin  any shape: ``SNR_m / level_m - 1``, at least -1.
    edge    e, positive.

    Value and both derivatives are continuous, and phi is concave and finite everywhere, so that its ascent also starts
    from beams that violate a target.

    >>> import torch
    >>> found = barrier(torch.tensor([1.0, 0.1, -1.0]), edge=0.1)
    >>> found.value.round(decimals=4), found.slope
    (tensor([  0.0000,  -2.3026, -73.8026]), tensor([  1.,  10., 120.]))

    Source: Eqs. 30, 31 and 35 of the masked-transformer paper have the logarithm; the continuation is ours.
    """
    inside = margin.clamp_min(edge)
    u = (margin - edge).clamp_max(0) / edge
    return Barrier(inside.log() + u - u.square() / 2, (1 - u) / inside, inside.square().reciprocal())
