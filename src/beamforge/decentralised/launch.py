"""Base stations as processes: started on this machine, or by ``torchrun`` on any number of machines."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.distributed import Store, TCPStore
from torch.distributed.rendezvous import rendezvous

from beamforge.core.errors import ConfigError
from beamforge.decentralised.mailbox import Mailbox
from beamforge.decentralised.processes import START_LIMIT, Operator, Station
from beamforge.decentralised.solver import DecentralisedSolver

TIME_LIMIT = 10.0
"""Default time in seconds that a base station waits for messages in an exchange."""


@contextmanager
def apart(
    method: DecentralisedSolver, count: int, time_limit: float = TIME_LIMIT, device: torch.device | str = "cpu"
) -> Iterator[Operator]:
    """Run each of the `count` base stations of a method in a separate process on this machine.

    >>> from beamforge.core.named_problems import build_problem
    >>> from beamforge.registry import create
    >>> from beamforge.scenarios.interference import Interference
    >>> instance = Interference(cells=2).sample(count=8)
    >>> problem = build_problem("sum-rate", instance.context)
    >>> method = create(problem, instance.truth, "slnr", decentralised=True)
    >>> with apart(method, count=2) as operator:
    ...     solution = operator.solve(problem, instance)
    >>> torch.allclose(solution.W, method.solve(problem, instance).W), solution.info["missed"].any().item()
    (True, False)
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context: Any = multiprocessing.get_context(start_method())
    context.set_forkserver_preload([__name__])
    threads = max(1, torch.get_num_threads() // count)
    told = pickle.dumps(method)
    processes = [
        context.Process(target=run, args=(store.port, k, told, time_limit, str(device), threads), daemon=True)
        for k in range(count)
    ]
    operator = None
    try:
        for process in processes:
            process.start()
        pids = [process.pid for process in processes]
        operator = Operator(method, store, count, time_limit, lambda k: processes[k].is_alive(), pids=pids)
        yield operator
    finally:
        if operator is not None:
            operator.close()
        ended(processes)


def start_method() -> str:
    """Start method of processes: forkserver, which loads the library once, if available, else spawn."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def run(port: int, number: int, told: bytes, time_limit: float, device: str, threads: int) -> None:
    """Main function of the process of a base station."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends it
    torch.set_num_threads(threads)
    store = TCPStore("127.0.0.1", port, is_master=False)
    Station(store, number, pickle.loads(told), time_limit, torch.device(device)).serve()


def ended(processes: list[BaseProcess]) -> None:
    """Wait for processes to exit, and kill those that do not within a second."""
    for process in processes:
        if process.pid is None:
            continue
        process.join(1.0 if process.is_alive() else None)
        if process.is_alive():
            process.kill()
            process.join()


def launched() -> int | None:
    """Number of processes started by ``torchrun``, None without it."""
    return int(os.environ["WORLD_SIZE"]) if "RANK" in os.environ and "WORLD_SIZE" in os.environ else None


def rank_here() -> int:
    """Rank of this process under ``torchrun``; 0 without it."""
    return int(os.environ.get("RANK", 0))


def met() -> tuple[Store, int]:
    """The store shared by the processes of ``torchrun``, and the rank of this process."""
    store, rank, _ = next(rendezvous("env://", timeout=timedelta(seconds=START_LIMIT)))
    return store, rank


def mailbox(time_limit: float = TIME_LIMIT) -> Mailbox:
    """The backhaul of this process, a base station started by ``torchrun``; for decentralised training."""
    return Mailbox(*met(), time_limit)


@contextmanager
def joined(
    method: DecentralisedSolver, count: int, time_limit: float = TIME_LIMIT, device: torch.device | str = "cpu"
) -> Iterator[Operator | None]:
    """Run each of the `count` base stations of a method in one of the processes started by ``torchrun``.

    The process of rank 0 is base station 0 and also the operator. Every other process runs its base station until the
    operator closes, and yields None.

    Raises `ConfigError` unless ``torchrun`` started `count` processes.
    """
    if launched() != count:
        raise ConfigError(f"torchrun must start one process per base station ({count}), got {launched()}")
    store, rank = met()
    station = Station(store, rank, method, time_limit, torch.device(device))
    if rank:
        station.serve()
        yield None
        return
    operator = Operator(method, store, count, time_limit, here=station)
    try:
        yield operator
    finally:
        operator.close()
