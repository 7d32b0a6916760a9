"""Backhaul: exchange of real numbers between base stations, and its cost."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Backhaul(Protocol):
    """Delivers one real number from each base station to each other one, for every instance of a batch.

    A method is written for any S of the K base stations and calls `exchange` to communicate. In one process S = K and
    an exchange is a transposition; in K processes S = 1 and an exchange is a message to each other process.
    """

    @property
    def scalars(self) -> int:
        """Numbers sent so far by the S local base stations, per instance: S(K-1) per exchange, one per message."""

    @property
    def bits(self) -> int:
        """Bits of all messages sent so far by the S local base stations, for the whole batch."""

    def exchange(self, sent: Tensor, otherwise: Tensor | float = 0.0) -> Tensor:
        """Received numbers [B, S, K]: entry (b, s, j) is what base station j sent to base station s.

        sent       [B, S, K], entry (b, s, j) is for base station j. Entries for the base station itself,
                   ``sent[b, s, serves[s]]``, are not sent and are received as 0.
        otherwise  [B, S, K] or a number, used for a base station whose message does not arrive in time: the last number
                   received from it, or a bound that holds for any value.
        """
        raise NotImplementedError


class SharedMemory:
    """Backhaul of base stations that are all in one process.

    >>> backhaul = SharedMemory()
    >>> backhaul.exchange(torch.tensor([[[9.0, 1.0], [2.0, 9.0]]])), backhaul.scalars, backhaul.bits
    (tensor([[[0., 2.],
             [1., 0.]]]), 2, 64)
    """

    def __init__(self) -> None:
        self.scalars = self.bits = 0

    def exchange(self, sent: Tensor, otherwise: Tensor | float = 0.0) -> Tensor:
        """Received numbers [B, S, K], as defined by `Backhaul.exchange`."""
        B, _, K = sent.shape
        self.scalars += K * (K - 1)
        self.bits += 8 * sent.element_size() * B * K * (K - 1)
        return sent.mT.tril(-1) + sent.mT.triu(1)


def spread(otherwise: Tensor | float, sent: Tensor) -> Tensor:
    """`otherwise` as a tensor of the shape, type and device of `sent`."""
    return torch.as_tensor(otherwise, dtype=sent.dtype, device=sent.device).expand(sent.shape)
