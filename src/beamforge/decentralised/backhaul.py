"""Backhaul: how base stations exchange real numbers, and what it costs."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Backhaul(Protocol):
    """What carries one real number from each base station to each other one, for every instance of a batch.

    A method says what it does for any S base stations of K, and calls `exchange` where they have to talk. In one
    process S = K and an exchange is a transposition; in K processes S = 1, and it is a message to each neighbour.
    """

    scalars: int
    """Numbers sent so far by all base stations together, an instance: K(K-1) an exchange."""

    def exchange(self, sent: Tensor) -> Tensor:
        """``heard[b, s, j]`` is what base station j sent to base station s; both are [B, S, K].

        What a base station would send to itself (``sent[b, s, serves[s]]``) is not sent, and heard as 0.
        """
        raise NotImplementedError


class SharedMemory:
    """All base stations in one process.

    >>> import torch
    >>> backhaul = SharedMemory()
    >>> backhaul.exchange(torch.tensor([[[9.0, 1.0], [2.0, 9.0]]])), backhaul.scalars
    (tensor([[[0., 2.],
             [1., 0.]]]), 2)
    """

    def __init__(self) -> None:
        self.scalars = 0

    def exchange(self, sent: Tensor) -> Tensor:
        K = sent.shape[-1]
        self.scalars += K * (K - 1)
        return sent.mT.tril(-1) + sent.mT.triu(1)
