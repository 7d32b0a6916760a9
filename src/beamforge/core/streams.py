"""Streams: the transmitter of each stream, and the user whose data it carries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from beamforge.core.errors import ShapeError

NO_DATA = -1
"""Value of `Streams.user` for a stream without data: a sensing stream, which only interferes."""


@dataclass(frozen=True)
class Streams:
    """D streams; every tensor leads with the batch dimensions.

    transmitter  integer [..., D]: the transmitter that sends stream d.
    user         integer [..., D]: the user whose data stream d carries, -1 for none. None stands for the default
                 order: stream k < K carries the data of user k, and streams K..D-1 carry none.

    >>> Streams(torch.tensor([0, 0, 0]), user=torch.tensor([0, 0, -1])).data_of(2)
    tensor([[ True,  True, False],
            [False, False, False]])
    """

    transmitter: Tensor
    user: Tensor | None = None

    @property
    def count(self) -> int:
        """D, the number of streams."""
        return self.transmitter.shape[-1]

    def sent_by(self, transmitters: int) -> Tensor:
        """Boolean [..., T, D]: whether transmitter t sends stream d."""
        return self.transmitter.unsqueeze(-2) == numbers(transmitters, self.transmitter).unsqueeze(-1)

    def sent(self, transmitters: int) -> Tensor:
        """Integer [..., T]: number of streams of each transmitter."""
        return self.sent_by(transmitters).sum(-1)

    def data_of(self, users: int) -> Tensor:
        """Boolean [..., K, D]: whether stream d carries data for user k."""
        if self.user is not None:
            return self.user.unsqueeze(-2) == numbers(users, self.user).unsqueeze(-1)
        usual = torch.eye(users, self.count, dtype=torch.bool, device=self.transmitter.device)
        return usual.expand(*self.transmitter.shape[:-1], users, self.count)


def numbers(count: int, like: Tensor) -> Tensor:
    """0..count-1 [count] on the device of `like`."""
    return torch.arange(count, device=like.device)


def whole_numbers(name: str, value: Tensor, like: Tensor, allowed: range) -> Tensor:
    """`value` as int64 on the device of `like`; `ShapeError` unless all entries are integers in `allowed`."""
    try:
        value = torch.as_tensor(value, device=like.device)
    except (TypeError, ValueError, RuntimeError):
        raise ShapeError(f"{name} must be integers, got {value!r}") from None
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise ShapeError(f"{name} must be integers, got {value.dtype}")
    if ((value < allowed[0]) | (value > allowed[-1])).any():
        raise ShapeError(f"{name} must be integers {allowed[0]}..{allowed[-1]}, got {value.unique().tolist()}")
    return value.long()
