"""One process or several: their rows of a batch, their devices, and averages over them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from beamforge.core.errors import ConfigError
from beamforge.core.settings import device_of


@dataclass(frozen=True)
class Processes:
    """This process among the `count` processes of ``torchrun``; one process without it."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """This process's share of a batch; `ConfigError` unless it splits evenly."""
        if batch % self.count:
            raise ConfigError(f"batch must be a multiple of the {self.count} processes, got {batch}")
        size = batch // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def distributed(self, module: nn.Module, *, partly: bool = False) -> nn.Module:
        """The module, with gradients averaged over the processes; `partly` if some parameters may have none."""
        return module if self.count == 1 else DistributedDataParallel(module, find_unused_parameters=partly)

    def mean(self, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Each value averaged over the processes."""
        own = {name: float(v.detach() if isinstance(v, Tensor) else v) for name, v in values.items()}
        if self.count == 1:
            return own
        total = torch.tensor([*own.values()], dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return dict(zip(own, (total / self.count).tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.mean({"flag": float(flag)})["flag"] > 0


def rank_here() -> int:
    """This process's number among those of ``torchrun``; 0 without it."""
    return int(os.environ.get("RANK", 0))


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """This process among those of ``torchrun``, connected by NCCL on CUDA devices and by Gloo elsewhere.

    "auto" is CUDA where available, with one device per process. Raises `ConfigError` for an unavailable device.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", 1)), rank_here()
    place = device_of(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if place.type == "cuda" and place.index is None:
        local = int(os.environ.get("LOCAL_RANK", 0))
        place = device_of(f"cuda:{local}")
    if count == 1:
        yield Processes(rank, count, place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Processes(rank, count, place)
    finally:
        gc.collect()  # models in reference cycles hold connections, whose threads must end before the interpreter exits
        dist.destroy_process_group()
