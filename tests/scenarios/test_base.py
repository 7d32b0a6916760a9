"""Every scenario: reproducible by (seed, index), independent instances, precision, refusal of wrong arguments."""

import json

import numpy as np
import pytest
import torch

from beamforge.core.batching import leaves
from beamforge.core.errors import ConfigError
from beamforge.scenarios import SCENARIOS, Rayleigh, scenario
from beamforge.scenarios.base import seeded

SLOW = {"uma": 2, "umi": 2, "rma": 2, "cdl": 2, "munich": 2}


def sampled(name, *args, **options):
    users = {"users": 3} if name in SLOW else {}
    try:
        return scenario(name, **users).sample(*args, **options)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "munich"])
def test_an_instance_depends_on_seed_and_index_alone(name):
    count = SLOW.get(name, 6)
    whole = sampled(name, count, seed=3, first=4, dtype=torch.complex128)
    one = sampled(name, 1, seed=3, first=4, dtype=torch.complex128)
    rest = sampled(name, count - 1, seed=3, first=5, dtype=torch.complex128)
    assert leaves(whole)
    for together, alone, after in zip(leaves(whole), leaves(one), leaves(rest), strict=True):
        torch.testing.assert_close(together, torch.cat([alone, after]), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in SLOW and name != "three-links"])
def test_other_seeds_and_other_indices_give_other_channels(name):
    first, second = (scenario(name).sample(2, seed=seed).truth.H for seed in (0, 1))
    apart = torch.cat([first, second]).flatten(1)
    assert all((apart[i] != apart[j]).sum() > apart.shape[1] // 2 for i in range(4) for j in range(i))


def test_streams_of_neighbouring_seeds_and_indices_are_uncorrelated():
    pairs = [(seed, index) for seed in range(12) for index in range(12)] + [(2**40, 0), (0, 2**40), (10**9, 7)]
    numbers = torch.stack([torch.rand(4000, generator=seeded(*pair), dtype=torch.float64) for pair in pairs]).numpy()
    correlation = np.corrcoef(numbers) - np.eye(len(pairs))
    assert np.abs(correlation).max() < 5.5 / np.sqrt(4000)
    assert abs(numbers.mean() - 0.5) < 5 / np.sqrt(12 * numbers.size)


def test_seeds_that_agree_in_32_bits_give_different_instances():
    assert not torch.equal(torch.rand(8, generator=seeded(5, 0)), torch.rand(8, generator=seeded(5 + 2**32, 0)))


def test_the_words_of_the_twister_have_the_place_that_seeded_assumes():
    """They are compared with the reference initialisation of MT19937 from one seed, word by word."""
    words = torch.Generator().manual_seed(7).get_state().view(torch.int64)[3:627].tolist()
    word = 7
    for i, stored in enumerate(words):
        assert stored == word
        word = (1812433253 * (word ^ (word >> 30)) + i + 1) & 0xFFFFFFFF


def test_a_seeded_generator_draws_the_numbers_of_the_reference_twister():
    """The reference is NumPy's MT19937 with the same 624 words."""
    words = np.random.SeedSequence(3, spawn_key=(9,)).generate_state(624)
    reference = np.random.MT19937()
    reference.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": 624}}
    drawn = torch.randint(2**20, (700,), generator=seeded(3, 9))
    np.testing.assert_array_equal(drawn.numpy(), reference.random_raw(700) % 2**20)


def test_the_global_generator_is_unchanged():
    state = torch.get_rng_state()
    for name in SCENARIOS:
        if name not in SLOW:
            scenario(name).sample(2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in SLOW])
def test_precision_is_as_requested_and_single_is_double_rounded(name):
    double, single = (scenario(name).sample(3, dtype=dtype) for dtype in (torch.complex128, torch.complex64))
    assert double.truth.H.dtype == torch.complex128 and single.truth.H.dtype == torch.complex64
    for exact, rounded in zip(leaves(double), leaves(single), strict=True):
        assert rounded.dtype in (torch.complex64, torch.float32, torch.int64)
        torch.testing.assert_close(rounded, exact.to(rounded.dtype), rtol=0, atol=0)
    for value in double.context.values():
        assert value.dtype in (torch.float64, torch.complex128)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in SLOW])
def test_every_context_has_a_power_limit_and_leads_with_the_batch(name):
    instance = scenario(name).sample(3)
    assert {"p_max", "p_max_transmitter"} & set(instance.context)
    assert all(value.shape[0] == 3 for value in instance.context.values())


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_description_survives_json(name):
    described = scenario(name).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["scenario"] == SCENARIOS[name].__name__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count must be positive"),
        ({"count": 1, "seed": -1}, "seed=-1"),
        ({"count": 1, "first": -2}, "first=-2"),
        ({"count": 1, "dtype": torch.float64}, "dtype must be"),
    ],
)
def test_a_bad_request_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Rayleigh().sample(**arguments)


def test_a_scenario_without_a_known_covariance_raises():
    with pytest.raises(ConfigError, match="Weak has no known channel covariance"):
        SCENARIOS["weak"]().covariance({})
