"""Masks of users and antennas, for instances of several sizes in one batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Masks(NamedTuple):
    """Boolean masks, true for active users [B, K] and antennas [B, N]; their product is M_s of Eq. 12."""

    users: Tensor
    antennas: Tensor

    @classmethod
    def of(cls, H: Tensor) -> Masks:
        """Users and antennas with a channel: rows and columns of H [B, K, N] with a nonzero entry.

        >>> import torch
        >>> H = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]], dtype=torch.complex64)
        >>> masks = Masks.of(H)
        >>> masks.users.tolist(), masks.antennas.tolist()
        ([[True, False]], [[True, False, True]])
        """
        there = H != 0
        return cls(there.any(-1), there.any(-2))

    def samples(self) -> Tensor:
        """M_s [B, K, N], true where both the user and the antenna are active."""
        return self.users.unsqueeze(-1) & self.antennas.unsqueeze(-2)

    def active(self) -> Tensor:
        """Number of active users [B], at least one."""
        return self.users.sum(-1).clamp_min(1)


def applied(H: Tensor, masks: Masks) -> Tensor:
    """``H o M_s``: entries of masked users and antennas are zero, whatever their value in H (Eq. 12)."""
    return torch.where(masks.samples(), H, 0)


def padded(H: Tensor, size: int) -> Tensor:
    """H [B, K, N] padded with zeros to [B, size, size]; the additional users and antennas are masked.

    >>> import torch
    >>> padded(torch.ones(2, 3, 4), 5).sum((-2, -1)).tolist()
    [12.0, 12.0]
    """
    return torch.nn.functional.pad(H, (0, size - H.shape[-1], 0, size - H.shape[-2]))
