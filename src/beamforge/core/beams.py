"""Beams, and the factors of hybrid beams."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """Hybrid beams ``W = A B diag(sqrt p)``; every tensor leads with the batch dimensions.

    analog    A, complex [..., N, M]: one column for each of M RF chains.
    digital   B, complex [..., M, D].
    power     p, real [..., D]: the power of beam d is ``p_d |A b_d|^2`` watts.
    codeword  integer [..., M], the column of a codebook that each column of A is, or None.

    >>> import torch
    >>> A, B = torch.eye(3, 2, dtype=torch.complex64), torch.eye(2, dtype=torch.complex64)
    >>> Factors(A, B, torch.tensor([4.0, 1.0])).W.real
    tensor([[2., 0.],
            [0., 1.],
            [0., 0.]])
    """

    analog: Tensor
    digital: Tensor
    power: Tensor
    codeword: Tensor | None = None

    @property
    def W(self) -> Tensor:
        """The beams [..., N, D]."""
        return self.analog @ (self.digital * self.power.sqrt().unsqueeze(-2))


@dataclass(frozen=True)
class Beams:
    """Beams as `evaluate` scores them: W complex [..., N, D], and its factors if the beams are hybrid."""

    W: Tensor
    factors: Factors | None = None
