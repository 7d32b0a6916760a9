"""Mailbox: the backhaul of a base station that runs in a separate process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed import Store

from beamforge.decentralised.backhaul import spread


class Mailbox:
    """Messages between one base station and the others through a store of `torch.distributed`.

    A message holds B numbers, one per instance. An exchange waits at most `time_limit` seconds. A base station without
    a message by then is marked as missed: later exchanges do not wait for it, but its messages are used if they are
    there in time. (Gloo is not used: a receive that times out also closes its connections to all other processes.)

    store       shared by all base stations.
    number      number of this base station.
    time_limit  seconds that an exchange may wait.
    missed      base stations already marked as missed.

    `exchange` is differentiable: one derivative per number is returned to its sender (see
    `beamforge.decentralised.gradients`).

    >>> from torch.distributed import HashStore
    >>> alone = Mailbox(HashStore(), number=0, time_limit=0.01)
    >>> alone.exchange(torch.tensor([[[0.0, 5.0]]]), otherwise=7.0), alone.missed, alone.bits
    (tensor([[[0., 7.]]]), {1}, 32)
    """

    def __init__(self, store: Store, number: int, time_limit: float, missed: Iterable[int] = ()) -> None:
        self.store, self.number, self.time_limit = store, number, time_limit
        self.missed = set(missed)
        self.scalars = self.bits = self.exchanges = 0

    def exchange(self, sent: Tensor, otherwise: Tensor | float = 0.0) -> Tensor:
        """Received numbers [B, 1, K], as defined by `Backhaul.exchange`."""
        self.exchanges += 1
        return Delivery.apply(sent, spread(otherwise, sent).detach(), self, str(self.exchanges))

    def delivered(self, sent: Tensor, otherwise: Tensor, name: str) -> Tensor:
        """Numbers [B, 1, K] received in the exchange `name`, in which this base station sends `sent` [B, 1, K]."""
        B, _, K = sent.shape
        others = [j for j in range(K) if j != self.number]
        said = np.ascontiguousarray(sent.detach().cpu().numpy()[:, 0].T)
        heard = otherwise.detach().cpu().numpy()[:, 0].T.copy()
        heard[self.number] = 0
        self.scalars += len(others)
        self.bits += 8 * B * len(others) * said.itemsize
        if others:
            leave(self.store, {f"{name}/{self.number}/{j}": said[j].tobytes() for j in others})
            for j, message in self._arrived(name, others).items():
                if len(message) == heard[j].nbytes:
                    heard[j] = np.frombuffer(message, heard.dtype)
        return torch.from_numpy(heard.T[:, None].copy()).to(sent.device)

    def _arrived(self, name: str, others: list[int]) -> dict[int, bytes]:
        """Messages that arrived in time, by number of the sender."""
        keys = {j: f"{name}/{j}/{self.number}" for j in others}
        awaited = [keys[j] for j in others if j not in self.missed]
        complete = not awaited or wait(lambda: self.store.check(awaited), self.time_limit)
        if not complete:
            self.missed |= {j for j in others if j not in self.missed and not self.store.check([keys[j]])}
        here = [j for j in others if j not in self.missed or self.store.check([keys[j]])]
        messages = self.store.multi_get([keys[j] for j in here]) if here else []
        for j in here:
            self.store.delete_key(keys[j])
        return dict(zip(here, messages, strict=True))


class Delivery(torch.autograd.Function):
    """`Mailbox.delivered` with derivatives: that of a received number is returned to its sender (Eq. 36)."""

    @staticmethod
    def forward(ctx: Any, sent: Tensor, otherwise: Tensor, mailbox: Mailbox, name: str) -> Tensor:
        """Received numbers."""
        ctx.mailbox, ctx.name = mailbox, name
        return mailbox.delivered(sent, otherwise, name)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        """Derivatives of the other local losses with respect to the sent numbers; 0 where no message arrives."""
        back = ctx.mailbox.delivered(slope, torch.zeros_like(slope), f"{ctx.name}'")
        return back, None, None, None


def leave(store: Store, messages: Mapping[str, bytes]) -> None:
    """Put all messages into a store in one operation."""
    whole: Any = store  # the type stubs lack multi_set, and bytes as values
    whole.multi_set([*messages], [*messages.values()])


def wait(until: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds; False after `seconds`. Polling intervals grow up to 2 ms."""
    end, pause = time.monotonic() + seconds, 5e-5
    while not until():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 2e-3)
    return True
