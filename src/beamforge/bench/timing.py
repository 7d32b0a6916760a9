"""Comparable times: after a warm-up, interleaved between methods, as medians, with a description of the machine."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Machine:
    """The machine and software versions that a time depends on."""

    processor: str
    threads: int
    torch: str
    python: str
    commit: str

    @classmethod
    def here(cls) -> Machine:
        """This machine; `commit` is that of the source tree, or "unknown" outside one."""
        return cls(processor(), torch.get_num_threads(), torch.__version__, platform.python_version(), commit())


def interleaved(tasks: Mapping[Name, Callable[[int], object]], repeats: int) -> dict[Name, float]:
    """Median seconds of each task over `repeats` rounds; a task gets the number of the round.

    Every task runs once untimed, then in each round all tasks run one after another, so that a disturbance of the
    machine affects all of them alike. CUDA devices are synchronised.
    """
    for task in tasks.values():
        task(0)
    seconds: dict[Name, list[float]] = {name: [] for name in tasks}
    for index in range(repeats):
        for name, task in tasks.items():
            wait()
            start = time.perf_counter()
            task(index)
            wait()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for PyTorch's operations within the ``with`` block; the previous number is restored."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def wait() -> None:
    """Wait for queued kernels, if a CUDA device is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def processor() -> str:
    """Model name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """Short hash of the checked-out commit, "-dirty" after changes; "unknown" if git does not track this file."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True, timeout=10)
        describe = [*git, "describe", "--always", "--dirty", "--exclude=*"]
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
