"""Base stations as processes: the process of one base station, and the operator that collects the beams."""

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
"""Seconds that the operator waits for a base station to start."""


class Station:
    """One base station: receives its own channels, exchanges messages by a `Mailbox`, and returns its beams.

    It ends on request of the operator, or when the store is closed.
    """

    def __init__(
        self, store: Store, number: int, method: DecentralisedSolver, time_limit: float, device: torch.device
    ) -> None:
        self.store, self.number, self.method = store, number, method
        self.time_limit, self.device, self.piece = time_limit, device, 0
        leave(store, {f"ready/{number}": b""})

    def serve(self) -> None:
        """Process pieces of the instances until the operator closes."""
        while self.answer():
            pass
        leave(self.store, {f"left/{self.number}": b""})

    def answer(self) -> bool:
        """Wait for the next piece of the instances and return its beams; False if the operator has closed."""
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
    """A method whose base stations are processes: sends each its own channels and collects the beams.

    The beams equal those of ``method.solve``. A base station is missed if its process ends, or if it is not finished
    `time_limit` seconds after the first one. Its beam is then 0, the others continue with its last messages (see
    `Mailbox`), and the status is `Status.MAX_ITERATIONS`. It is not waited for again until it has caught up.

    method      method that all base stations run.
    store       shared by base stations and operator.
    count       number K of base stations.
    time_limit  seconds.
    alive       returns whether the process of a base station is running.
    here        the base station in this process, if there is one.
    pids        process numbers of base stations on this machine.

    ``info`` of a solution: ``scalars`` and ``bits`` [B] as of any decentralised method, and ``missed`` [B, K].
    Raises `RuntimeError` if no base station starts, `ConfigError` for another number of base stations.
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
            raise RuntimeError(f"none of the {count} base stations has started")
        self._late = set(range(count)) - ready - self._absent

    def fits(self, problem: Problem, network: Any) -> bool:
        return self._method.fits(problem, network)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        stations = BaseStations.of(problem, observation.network)
        if stations.H.shape[1] != self._count:
            raise ConfigError(f"base stations must be as many as processes ({self._count}), got {stations.H.shape[1]}")
        if (nothing := (stations.weights == 0).all(-1)).any():
            where = int(nothing.nonzero()[0, 0])
            raise ConfigError(f"weights must be positive for some user, got only zeros in instance {where} of a piece")
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
        """Results of the base stations for a piece of the instances, by number; an error of the method is raised."""
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
        """Tell the base stations to end, and wait for them."""
        for k in range(self._count):
            leave(self._store, {f"{self._piece}/share/{k}": b""})
        if self._here is not None:
            self._here.serve()
        keys = {k: f"left/{k}" for k in range(self._count) if k not in self._absent | self._late}
        self._arrived(keys, self._limit)

    def _arrived(self, keys: dict[int, str], seconds: float, after_first: bool = False) -> tuple[set[int], set[int]]:
        """Base stations whose keys are set within some seconds, and those whose processes have ended.

        after_first  count the seconds from the first key on.
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
    """Containers of tensors, numbers and strings as bytes."""
    file = io.BytesIO()
    torch.save(tree, file)
    return file.getvalue()


def unpacked(message: bytes) -> Any:
    """Inverse of `packed`; loads data only, no code."""
    return torch.load(io.BytesIO(message), weights_only=True)
