"""Training data without end: every batch a function of a seed and a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.scenarios.base import TEST_SEEDS, VALIDATION_SEEDS, cast, seeded

HELD_OUT = {"test": TEST_SEEDS, "validation": VALIDATION_SEEDS}
"""Seeds that training never draws from."""
assert TEST_SEEDS.stop <= VALIDATION_SEEDS.start, "a network must not be chosen on what it is reported on"


class Source(Protocol):
    """A kind of training data; `Downlink` is one."""

    def draw(self, generator: torch.Generator, count: int) -> Mapping[str, Tensor]:
        """`count` instances in random numbers, on the CPU, each with `count` rows."""

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """The instances of some rows, on the device they are on."""


@runtime_checkable
class Staged(Protocol):
    """A source whose batches depend on how far training has come; validation is on its `held_out`, which has none."""

    def draw_at(self, generator: torch.Generator, count: int, step: int) -> Mapping[str, Tensor]:
        """`count` instances for a step, as `Source.draw` has them for any."""


@dataclass(frozen=True)
class Stream:
    """Batches of `batch` instances; `batch_at` gives the same one for a step whenever and wherever it is asked.

    Make one by `training` or `validation`, which see to it that the two never meet each other or a test.

    >>> from beamforge.training.data.downlink import Downlink
    >>> stream = Stream.training(Downlink(users=(4, 4), load=(0.5, 0.5)), seed=0, batch=3)
    >>> stream.batch_at(7).truth.channel.shape
    torch.Size([3, 4, 8])
    """

    source: Source
    seed: int
    batch: int
    dtype: torch.dtype = torch.complex64
    device: torch.device | str = "cpu"

    @classmethod
    def training(
        cls,
        source: Source,
        seed: int,
        batch: int,
        dtype: torch.dtype = torch.complex64,
        device: torch.device | str = "cpu",
    ) -> Stream:
        """What is learned from; `ConfigError` for a seed that is held out or negative."""
        if seed < 0:
            raise ConfigError(f"seed must not be negative, got {seed}")
        for kind, held_out in HELD_OUT.items():
            if seed in held_out:
                raise ConfigError(f"seed must not be a {kind} seed ({held_out[0]} to {held_out[-1]}), got {seed}")
        return cls(source, seed, batch, dtype, device)

    @classmethod
    def validation(
        cls, source: Source, batch: int, dtype: torch.dtype = torch.complex64, device: torch.device | str = "cpu"
    ) -> Stream:
        """What training is watched on, the same whatever seed it learns from: a source's `held_out`, if it has such."""
        return cls(getattr(source, "held_out", source), VALIDATION_SEEDS[0], batch, dtype, device)

    def batch_at(self, step: int, rows: slice = slice(None)) -> Instance:
        """The batch of a step, or some of its rows: to rounding, they are what they are in the whole batch."""
        generator = seeded(self.seed, step)
        if isinstance(self.source, Staged):
            draws = self.source.draw_at(generator, self.batch, step)
        else:
            draws = self.source.draw(generator, self.batch)
        part = {name: value[rows].to(self.device) for name, value in draws.items()}
        return cast(self.source.build(part), self.dtype)
