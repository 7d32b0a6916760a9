"""What every scenario is: numbers drawn for one instance from (seed, index) alone, and a map that makes channels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from beamforge.instance import Instance


@dataclass(frozen=True)
class Scenario:
    """Who the users are and what their channels look like; its fields are all there is to configure.

    A scenario supplies `draw`, the raw random numbers of one instance, and `build`, a deterministic vectorised map from
    a stack of such draws to instances. So instance i of a seed is the same in any batch and in any chunk of a stream.
    """

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Random numbers of one instance, float64, cheap."""
        raise NotImplementedError

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Instances [B] from stacked draws [B, ...]."""
        raise NotImplementedError

    def sample(self, count: int, seed: int = 0, first: int = 0) -> Instance:
        """Instances first..first+count-1 of a seed, as one batch."""
        drawn = [self.draw(seeded(seed, index)) for index in range(first, first + count)]
        return self.build({name: torch.stack([each[name] for each in drawn]) for name in drawn[0]})

    def describe(self) -> dict[str, Any]:
        """The configuration, for a file's meta."""
        return {"scenario": type(self).__name__, **dataclasses.asdict(self)}


def seeded(seed: int, index: int) -> torch.Generator:
    """A generator for instance `index` of `seed`: the two are mixed by splitmix64, so that streams do not overlap."""
    state = (seed * 0x9E3779B97F4A7C15 + index * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & (2**64 - 1)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        state = ((state ^ (state >> shift)) * factor) & (2**64 - 1)
    return torch.Generator().manual_seed(state - 2**63)


def complex_normal(generator: torch.Generator, *shape: int) -> Tensor:
    """CN(0, 1) entries, complex128: real and imaginary parts of variance one half."""
    return torch.randn(*shape, dtype=torch.complex128, generator=generator)
