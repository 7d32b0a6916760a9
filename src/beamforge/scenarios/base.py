"""What every scenario is: numbers drawn for one instance from (seed, index) alone, and a map that makes channels."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from beamforge.core.batching import tree_map
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance

TEST_SEEDS = range(10**9, 10**9 + 10**6)
"""Seeds of benchmarks and of reported figures; training draws from none of them."""

VALIDATION_SEEDS = range(TEST_SEEDS.stop, TEST_SEEDS.stop + 10**6)
"""Seeds that training is watched on and chosen by; it learns from none of them, and nothing is reported on them."""


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
        """Instances [B] from stacked draws [B, ...], in double precision where that costs nothing."""
        raise NotImplementedError

    def covariance(self, draws: dict[str, Tensor]) -> Tensor:
        """``R_k = E[h_k h_k^H]`` [B, K, N, N] complex128 given everything but the fast fading.

        Raises `ConfigError` where a scenario has no such statistics to state.
        """
        raise ConfigError(f"scenario {type(self).__name__} states no channel covariance")

    def sample(self, count: int, seed: int = 0, first: int = 0, dtype: torch.dtype = torch.complex64) -> Instance:
        """Instances first..first+count-1 of a seed, as one batch [count, ...] with channels of precision `dtype`.

        Raises `ConfigError` if count is not positive, seed or first is negative, or dtype is not a complex one.
        """
        if count < 1 or seed < 0 or first < 0:
            asked = f"count={count}, seed={seed}, first={first}"
            raise ConfigError(f"count must be positive, and seed and first not negative, got {asked}")
        if dtype not in (torch.complex64, torch.complex128):
            raise ConfigError(f"dtype must be torch.complex64 or torch.complex128, got {dtype}")
        drawn = [self.draw(seeded(seed, index)) for index in range(first, first + count)]
        return cast(self.build({name: torch.stack([each[name] for each in drawn]) for name in drawn[0]}), dtype)

    def describe(self) -> dict[str, Any]:
        """The configuration, for a file's meta."""
        return {"scenario": type(self).__name__, **dataclasses.asdict(self)}


def cast(instance: Instance, dtype: torch.dtype) -> Instance:
    """The instance with complex tensors of precision `dtype` and real ones to match; integers stay."""

    def convert(leaf: Tensor) -> Tensor:
        if leaf.is_complex():
            return leaf.to(dtype)
        return leaf.to(dtype.to_real()) if leaf.is_floating_point() else leaf

    converted = tree_map(convert, instance)
    if instance.observation.network is not instance.truth:
        return converted
    return replace(converted, observation=replace(converted.observation, network=converted.truth))


def seeded(seed: int, index: int) -> torch.Generator:
    """A generator for instance `index` of `seed`; no two pairs share a stream.

    `torch.Generator.manual_seed` keeps only 32 bits of a seed, so that instances would repeat within a large training
    set and between it and a test set. Here NumPy's `SeedSequence` fills all 624 words of the Mersenne twister instead.
    """
    return _filled(_fresh_state(), np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(624))


def _filled(state: Tensor, words: np.ndarray) -> torch.Generator:
    """A generator whose twister holds these 624 words: they follow three words of bookkeeping in its state."""
    state = state.clone()
    state.view(torch.int64)[3:627] = torch.from_numpy(words.astype(np.int64))
    generator = torch.Generator()
    generator.set_state(state)
    return generator


@cache
def _fresh_state() -> Tensor:
    """State of a CPU generator that was just seeded; RuntimeError if this torch keeps it in another layout.

    That is tried by drawing from the same words with NumPy's twister.
    """
    state = torch.Generator().manual_seed(0).get_state()
    words: Any = np.random.SeedSequence(0).generate_state(624)
    twister = np.random.MT19937()
    twister.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": 624}}
    expected = twister.random_raw(8) % 2**20
    found = torch.randint(2**20, (8,), generator=_filled(state, words)).numpy()
    if not np.array_equal(found, expected):
        raise RuntimeError(f"torch {torch.__version__} keeps the state of its generator in a layout that is not known")
    return state


def complex_normal(generator: torch.Generator, *shape: int) -> Tensor:
    """CN(0, 1) entries, complex128: real and imaginary parts of variance one half."""
    return torch.randn(shape, dtype=torch.complex128, generator=generator)


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Entries uniform on [0, 1), float64."""
    return torch.rand(shape, dtype=torch.float64, generator=generator)


def from_decibels(value_db: Tensor) -> Tensor:
    """Linear power ratios of levels in decibels, entrywise."""
    return 10.0 ** (value_db / 10)


def require(holds: bool, name: str, expected: str, value: Any) -> None:
    """`ConfigError` "name must be expected, got value" unless it holds."""
    if not holds:
        raise ConfigError(f"{name} must be {expected}, got {value!r}")


def require_positive(scenario: Scenario, *names: str) -> None:
    """`ConfigError` unless each named field is positive and finite."""
    for name in names:
        require(0 < getattr(scenario, name) < math.inf, name, "positive", getattr(scenario, name))
