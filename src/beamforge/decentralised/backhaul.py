"""Backhaul: how base stations exchange real numbers, and what it costs."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Backhaul(Protocol):
    """What carries one real number from each base station to each other one, for every instance of a batch.

    A method says what it does for any S base stations of K, and calls `exchange` where they have to talk. In one
    process S = K and an exchange is a transposition; in K processes S = 1, and it is a message to each neighbour.
    """

    @property
    def scalars(self) -> int:
        """Numbers sent so far by the S base stations here, an instance: S(K-1) an exchange, each in a message."""

    @property
    def bits(self) -> int:
        """Bits of all messages sent so far by the S base stations here, for the whole batch."""

    def exchange(self, sent: Tensor, otherwise: Tensor | float = 0.0) -> Tensor:
        """``heard[b, s, j]`` is what base station j sent to base station s; both are [B, S, K].

        What a base station would send to itself (``sent[b, s, serves[s]]``) is not sent, and heard as 0.

        otherwise  [B, S, K] or a number, heard from a base station that says nothing in time: a method states the last
                   number that it heard from it in earlier exchanges, or a bound that holds whatever it may do.
        """
        raise NotImplementedError


class SharedMemory:
    """All base stations in one process.

    >>> backhaul = SharedMemory()
    >>> backhaul.exchange(torch.tensor([[[9.0, 1.0], [2.0, 9.0]]])), backhaul.scalars, backhaul.bits
    (tensor([[[0., 2.],
             [1., 0.]]]), 2, 64)
    """

    def __init__(self) -> None:
        self.scalars = self.bits = 0

    def exchange(self, sent: Tensor, otherwise: Tensor | float = 0.0) -> Tensor:
        """What the others sent, as `Backhaul.exchange` has it."""
        B, _, K = sent.shape
        self.scalars += K * (K - 1)
        self.bits += 8 * sent.element_size() * B * K * (K - 1)
        return sent.mT.tril(-1) + sent.mT.triu(1)


def spread(otherwise: Tensor | float, sent: Tensor) -> Tensor:
    """`otherwise` as a tensor like `sent`."""
    return torch.as_tensor(otherwise, dtype=sent.dtype, device=sent.device).expand(sent.shape)
