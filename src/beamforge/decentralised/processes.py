"""Base stations as processes: what one of them does, and the operator that asks all and collects their beams."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed import PrefixStore, Store

from beamforge.core.errors import BeamforgeError, ConfigError
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.decentralised.base_stations import BaseStations
from beamforge.decentralised.mailbox import Mailbox, leave, wait
from beamforge.decentralised.solver import DecentralisedSolver, decided_alone

START_LIMIT = 120.0
"""Seconds that the operator waits for a base station to come up."""


class Station:
    """One base station: it is told its own channels, talks to the others by a `Mailbox`, and leaves its beams.

    It leaves when it is told to, or when the store is gone.
    """

    def __init__(
        self, store: Store, number: int, method: DecentralisedSolver, time_limit: float, device: torch.device
    ) -> None:
        self.store, self.number, self.method = store, number, method
        self.time_limit, self.device, self.piece = time_limit, device, 0
        leave(store, {f"ready/{number}": b""})

    def serve(self) -> None:
        """Answer until there is nothing more to answer."""
        while self.answer():
            pass
        leave(self.store, {f"left/{self.number}": b""})

    def answer(self) -> bool:
        """Wait for a piece of the instances and answer it; False where there are no more."""
        key = f"{self.piece}/share/{self.number}"
        while not wait(lambda: self.store.check([key]), 3600):
            pass
        message = self.store.get(key)
        self.store.delete_key(key)
        if not message:
            return False
        share, missed = unpacked(message)
        mailbox = Mailbox(PrefixStore(f"{self.piece}", self.store), self.number, self.time_limit, missed)
        backhaul = self.method.over(mailbox)
        told: dict[str, Any]
        try:
            with torch.no_grad():
                stations = BaseStations(*(each.to(self.device) for each in share))
                told = {"beams": self.method.beams(stations, backhaul).cpu()}
        except Exception as error:
            told = {"error": str(error), "mendable": isinstance(error, BeamforgeError)}
        told |= {"missed": sorted(mailbox.missed), "scalars": backhaul.scalars, "bits": backhaul.bits}
        leave(self.store, {f"{self.piece}/beams/{self.number}": packed(told)})
        self.piece += 1
        return True


class Operator(DecentralisedSolver):
    """A method whose base stations are processes: each is told its own channels, and its beams are collected.

    The beams are those of ``method.solve``. A base station that dies, or is late by more than `time_limit` seconds
    when another has finished, is missed: its beam is 0, the others decide with what they heard of it (see `Mailbox`),
    and the instance ends as `Status.MAX_ITERATIONS`. Nobody waits for it again until it has caught up.

    method      what all base stations run.
    store       where base stations and operator leave what they have to say.
    count       K, of the base stations.
    time_limit  seconds.
    alive       whether the process of a base station is known to run.
    here        the base station in this very process, if there is one.
    pids        of the processes of the base stations, where they run on this machine.

    ``info`` of a solution: ``scalars`` and ``bits`` [B] as of any decentralised method, and ``missed`` [B, K].
    """

    def __init__(
        self,
        method: DecentralisedSolver,
        store: Store,
        count: int,
        time_limit: float,
        alive: Callable[[int], bool] = lambda number: True,
        here: Station | None = None,
        pids: Sequence[int | None] = (),
    ) -> None:
        super().__init__()
        self.pids = pids
        self._method, self._store, self._count, self._limit = method, store, count, time_limit
        self._alive, self._here, self._piece = alive, here, 0
        ready, self._absent = self._arrived({k: f"ready/{k}" for k in range(count)}, START_LIMIT)
        if not ready:
            raise RuntimeError(f"none of {count} base stations has come up")
        self._late = set(range(count)) - ready - self._absent

    def fits(self, problem: Problem, network: Any) -> bool:
        return self._method.fits(problem, network)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        stations = BaseStations.of(problem, observation.network)
        if stations.H.shape[1] != self._count:
            raise ConfigError(f"base stations must be the {self._count} processes, got {stations.H.shape[1]}")
        if (nothing := (stations.weights == 0).all(-1)).any():
            where = int(nothing.nonzero()[0, 0])
            raise ConfigError(f"weights must be positive for some user, got zeros alone in instance {where} of a piece")
        told = self.asked(stations)
        W = torch.zeros_like(stations.own)
        missed = torch.zeros(W.shape[:2], dtype=torch.bool, device=W.device)
        for number in range(self._count):
            missed[:, number] = number not in told
            if number in told:
                W[:, number] = told[number]["beams"][:, 0].to(W)
        silent = {each for report in told.values() for each in report["missed"]}
        missed[:, sorted(silent)] = True
        scalars, bits = (sum(report[name] for report in told.values()) for name in ("scalars", "bits"))
        solution = decided_alone(W, scalars, bits)
        solution.status[missed.any(-1)] = int(Status.MAX_ITERATIONS)
        return Solution(W.mT, solution.status, solution.iterations, info={**solution.info, "missed": missed})

    def asked(self, stations: BaseStations) -> dict[int, dict[str, Any]]:
        """What the base stations answer for a piece, by number; a fault of the method is raised here."""
        piece = self._piece
        self._piece += 1
        self._late -= {k for k in self._late if self._store.check([f"{piece - 1}/beams/{k}"])}
        silent = sorted(self._late | self._absent)
        shares = {k: stations.alone(k) for k in range(self._count)}
        for k, share in shares.items():
            own = tuple(each.detach().cpu().contiguous().clone() for each in share)
            leave(self._store, {f"{piece}/share/{k}": packed((own, silent))})
        if self._here is not None:
            self._here.answer()
        keys = {k: f"{piece}/beams/{k}" for k in range(self._count)}
        awaited = {k: keys[k] for k in keys.keys() - self._absent - self._late}
        done, gone = self._arrived(awaited, self._limit, after_first=True)
        done |= {k for k in self._late if self._store.check([keys[k]])}
        self._absent |= gone
        self._late |= awaited.keys() - done - gone
        told = {k: unpacked(self._store.get(keys[k])) for k in done}
        for k in done:
            self._store.delete_key(keys[k])
        for report in told.values():
            if "error" in report:
                raise (ConfigError if report["mendable"] else RuntimeError)(report["error"])
        return told

    def close(self) -> None:
        """Send the base stations home."""
        for k in range(self._count):
            leave(self._store, {f"{self._piece}/share/{k}": b""})
        if self._here is not None:
            self._here.serve()
        keys = {k: f"left/{k}" for k in range(self._count) if k not in self._absent | self._late}
        self._arrived(keys, self._limit)

    def _arrived(self, keys: dict[int, str], seconds: float, after_first: bool = False) -> tuple[set[int], set[int]]:
        """Base stations whose keys came within some seconds, and those whose processes are gone.

        after_first  the seconds count from when the first key has come.
        """
        done: set[int] = set()
        gone: set[int] = set()
        end = float("inf") if after_first else time.monotonic() + seconds

        def complete() -> bool:
            nonlocal end
            for k in keys.keys() - done - gone:
                living = self._alive(k)
                if self._store.check([keys[k]]):
                    done.add(k)
                    end = min(end, time.monotonic() + seconds) if after_first else end
                elif not living:
                    gone.add(k)
            return len(done) + len(gone) == len(keys) or time.monotonic() > end

        while not wait(complete, 3600):
            pass
        return done, gone


def packed(tree: Any) -> bytes:
    """Tensors, numbers and strings in containers as bytes."""
    file = io.BytesIO()
    torch.save(tree, file)
    return file.getvalue()


def unpacked(message: bytes) -> Any:
    """Undo `packed`; nothing but data comes out."""
    return torch.load(io.BytesIO(message), weights_only=True)
