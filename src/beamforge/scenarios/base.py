"""Scenario: the base of all scenarios, whose instance i of a seed depends on (seed, i) alone; random generators."""

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
"""Seeds of benchmarks and of reported figures; training uses none of them."""

VALIDATION_SEEDS = range(TEST_SEEDS.stop, TEST_SEEDS.stop + 10**6)
"""Seeds for validation and model selection; neither training nor reported figures use them."""


@dataclass(frozen=True)
class Scenario:
    """A random model of users and channels; its fields are its configuration.

    A scenario supplies `draw`, the raw random numbers of one instance, and `build`, a deterministic vectorised map from
    a stack of such draws to instances. So instance i of a seed is the same in any batch and in any chunk of a stream.
    """

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Random numbers of one instance (float64); cheap."""
        raise NotImplementedError

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Instances [B] from stacked draws [B, ...], in double precision if that is as cheap."""
        raise NotImplementedError

    def covariance(self, draws: dict[str, Tensor]) -> Tensor:
        """``R_k = E[h_k h_k^H]`` [B, K, N, N] complex128, the mean over the fast fading alone.

        Raises `ConfigError` if the scenario has no known covariance.
        """
        raise ConfigError(f"scenario {type(self).__name__} has no known channel covariance")

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
        """The configuration, for the key `meta` of a channel file."""
        return {"scenario": type(self).__name__, **dataclasses.asdict(self)}


def cast(instance: Instance, dtype: torch.dtype) -> Instance:
    """The instance with complex tensors of type `dtype` and real ones of the same precision; integers are unchanged."""

    def convert(leaf: Tensor) -> Tensor:
        if leaf.is_complex():
            return leaf.to(dtype)
        return leaf.to(dtype.to_real()) if leaf.is_floating_point() else leaf

    converted = tree_map(convert, instance)
    if instance.observation.network is not instance.truth:
        return converted
    return replace(converted, observation=replace(converted.observation, network=converted.truth))


def seeded(seed: int, index: int) -> torch.Generator:
    """A generator for instance `index` of `seed`; different pairs have independent streams.

    `torch.Generator.manual_seed` uses only 32 bits of a seed, so instances would repeat within a large training set and
    between it and a test set. Instead, NumPy's `SeedSequence` fills all 624 words of the Mersenne twister.
    """
    return _filled(_fresh_state(), np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(624))


def _filled(state: Tensor, words: np.ndarray) -> torch.Generator:
    """A generator whose Mersenne twister holds these 624 words; in its state they follow three other words."""
    state = state.clone()
    state.view(torch.int64)[3:627] = torch.from_numpy(words.astype(np.int64))
    generator = torch.Generator()
    generator.set_state(state)
    return generator


@cache
def _fresh_state() -> Tensor:
    """State of a newly seeded CPU generator; `RuntimeError` if this version of torch uses another layout.

    The check: a generator filled with some words must draw the same numbers as NumPy's twister with these words.
    """
    state = torch.Generator().manual_seed(0).get_state()
    words: Any = np.random.SeedSequence(0).generate_state(624)
    twister = np.random.MT19937()
    twister.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": 624}}
    expected = twister.random_raw(8) % 2**20
    found = torch.randint(2**20, (8,), generator=_filled(state, words)).numpy()
    if not np.array_equal(found, expected):
        raise RuntimeError(f"the layout of the generator state in torch {torch.__version__} is unknown")
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
    """Raise `ConfigError` "{name} must be {expected}, got {value}" unless `holds`."""
    if not holds:
        raise ConfigError(f"{name} must be {expected}, got {value!r}")


def require_positive(scenario: Scenario, *names: str) -> None:
    """Raise `ConfigError` unless each named field is positive and finite."""
    for name in names:
        require(0 < getattr(scenario, name) < math.inf, name, "positive", getattr(scenario, name))
