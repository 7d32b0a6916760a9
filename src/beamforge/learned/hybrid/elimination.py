"""Many small linear equations at once, by Gaussian elimination along the batch."""

from __future__ import annotations

import torch
from torch import Tensor


def eliminated(A: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The solutions x [m, n] of ``A x = y`` for A [m, m, n] and y [m, n], and the pivots [m, n]; n equations at once.

    Without pivoting: for positive definite matrices, and M-matrices, all pivots of which are then positive. For tens of
    thousands of matrices with a few rows this is several times faster than a batched factorisation.

    >>> A = torch.tensor([[2.0, 1.0], [1.0, 3.0]]).unsqueeze(-1)
    >>> eliminated(A, torch.tensor([[4.0], [7.0]]))[0].squeeze(-1)
    tensor([1., 2.])
    """
    rows, pivots = torch.cat([A, y.unsqueeze(1)], 1), []
    upper = []
    while True:
        pivot, rest = rows[0, 0], rows[0, 1:] / rows[0, 0]
        pivots.append(pivot)
        upper.append(rest)
        if rows.shape[0] == 1:
            break
        rows = rows[1:, 1:] - rows[1:, :1] * rest
    x: list[Tensor] = []
    for rest in reversed(upper):
        value = rest[-1]
        for place, known in enumerate(reversed(x)):
            value = value - rest[place] * known
        x.append(value)
    return torch.stack(x[::-1]), torch.stack(pivots)
