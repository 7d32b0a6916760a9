"""Mailbox: the backhaul of a base station that is a process of its own."""

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
    """Messages of one base station to the others, left for them in a store of `torch.distributed`.

    A message is the bytes of B numbers, one an instance. Nothing here waits for longer than it is told to: a base
    station that has said nothing within `time_limit` seconds is missed from then on, which means that nobody waits for
    it again, but what it says in time is heard. (Gloo is not used, as a receive of it that runs out of time closes its
    connections to all other processes as well.)

    store       where all of them leave messages.
    number      of this base station.
    time_limit  seconds that an exchange may wait.
    missed      base stations that are known to be silent.

    `exchange` is differentiable: derivatives go back the way the numbers came, one scalar for each (see
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
        """What the others sent, as `Backhaul.exchange` has it."""
        self.exchanges += 1
        return Delivery.apply(sent, spread(otherwise, sent).detach(), self, str(self.exchanges))

    def delivered(self, sent: Tensor, otherwise: Tensor, name: str) -> Tensor:
        """What is heard [B, 1, K] in the exchange of that name, to which `sent` [B, 1, K] is what this one says."""
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
        """The messages of others by their numbers, as far as they came in time."""
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
    """`Mailbox.delivered` with a way back: the derivative by what was heard goes to who said it, its Eq. 36."""

    @staticmethod
    def forward(ctx: Any, sent: Tensor, otherwise: Tensor, mailbox: Mailbox, name: str) -> Tensor:
        """What is heard."""
        ctx.mailbox, ctx.name = mailbox, name
        return mailbox.delivered(sent, otherwise, name)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        """The derivatives of all others' parts by what was sent; 0 of those who say nothing."""
        back = ctx.mailbox.delivered(slope, torch.zeros_like(slope), f"{ctx.name}'")
        return back, None, None, None


def leave(store: Store, messages: Mapping[str, bytes]) -> None:
    """Put messages into a store, all of them at once, or none if this process dies now."""
    whole: Any = store  # its declaration knows neither this nor that values are bytes
    whole.multi_set([*messages], [*messages.values()])


def wait(until: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition comes true within some seconds; looked at more and more seldom, every 2 ms at last."""
    end, pause = time.monotonic() + seconds, 5e-5
    while not until():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 2e-3)
    return True
