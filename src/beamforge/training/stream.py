"""Unlimited training data: every batch is a function of a seed and a step."""

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
assert TEST_SEEDS.stop <= VALIDATION_SEEDS.start, "validation and test instances must differ"


class Source(Protocol):
    """A kind of training data, such as `Downlink`."""

    def draw(self, generator: torch.Generator, count: int) -> Mapping[str, Tensor]:
        """The random numbers of `count` instances, on the CPU; each tensor has `count` rows."""

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """The instances of some rows, on the device of these."""


@runtime_checkable
class Staged(Protocol):
    """A source whose batches depend on how far training has come; validation is on its `held_out`, which has none."""

    def draw_at(self, generator: torch.Generator, count: int, step: int) -> Mapping[str, Tensor]:
        """`count` instances for a step, as `Source.draw` has them for any."""


@dataclass(frozen=True)
class Stream:
    """Batches of `batch` instances; `batch_at` always returns the same batch for a step.

    `training` and `validation` create streams that share no instances with each other or with the tests.

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
        """The stream for training; `ConfigError` for a seed that is held out or negative."""
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
        """The stream for validation, the same for all training seeds: of the source's `held_out`, if it has one."""
        return cls(getattr(source, "held_out", source), VALIDATION_SEEDS[0], batch, dtype, device)

    def batch_at(self, step: int, rows: slice = slice(None)) -> Instance:
        """The batch of a step, or some of its rows, which equal those of the whole batch to rounding."""
        generator = seeded(self.seed, step)
        if isinstance(self.source, Staged):
            draws = self.source.draw_at(generator, self.batch, step)
        else:
            draws = self.source.draw(generator, self.batch)
        part = {name: value[rows].to(self.device) for name, value in draws.items()}
        return cast(self.source.build(part), self.dtype)
