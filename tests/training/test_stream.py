"""Batches as functions of (seed, step); separate seeds for training, validation and tests; shares of `Downlink`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from beamforge.core import batching
from beamforge.core.errors import ConfigError
from beamforge.scenarios.base import TEST_SEEDS, VALIDATION_SEEDS, seeded
from beamforge.scenarios.rayleigh import correlated
from beamforge.training.data.downlink import Downlink, sizes
from beamforge.training.stream import Stream

MIXED = Downlink(users=(2, 6), spread_share=0.5, noise_spread_db=(0.0, 20.0), correlated_share=0.5, weighted_share=0.5)


def equal_tensors(one, other) -> bool:
    pairs = zip(batching.leaves(one), batching.leaves(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_batch_is_a_function_of_seed_and_step():
    stream = Stream.training(MIXED, seed=3, batch=16)
    once = [stream.batch_at(step) for step in range(4)]
    torch.manual_seed(99)
    again = [Stream.training(MIXED, seed=3, batch=16).batch_at(step) for step in (3, 2, 1, 0)][::-1]
    assert all(equal_tensors(a, b) for a, b in zip(once, again, strict=True))
    numbers = [x.truth.noise[0, 0].item() for x in once]
    numbers += [Stream.training(MIXED, seed, 16).batch_at(0).truth.noise[0, 0].item() for seed in (4, 2**40)]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("step", range(4))
def test_some_rows_equal_those_of_the_whole_batch(step):
    stream = Stream.training(MIXED, seed=1, batch=12, dtype=torch.complex128)
    whole = stream.batch_at(step)
    parts = [stream.batch_at(step, slice(first, first + 4)) for first in (0, 4, 8)]
    joined = batching.tree_map(lambda *leaves: torch.cat(leaves), *parts)
    for one, other in zip(batching.leaves(whole), batching.leaves(joined), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=0)
    assert parts[0].observation.network is parts[0].truth


def test_training_refuses_held_out_seeds():
    for held_out in (TEST_SEEDS, VALIDATION_SEEDS):
        for seed in (held_out[0], held_out[17], held_out[-1]):
            with pytest.raises(ConfigError, match=f"seed must not be a (test|validation) seed.*got {seed}"):
                Stream.training(MIXED, seed, 4)
    for seed in (TEST_SEEDS[0] - 1, VALIDATION_SEEDS[-1] + 1):
        Stream.training(MIXED, seed, 4)
    with pytest.raises(ConfigError, match="seed must not be negative, got -1"):
        Stream.training(MIXED, -1, 4)


def test_validation_has_one_seed_apart_from_the_tests():
    seed = Stream.validation(MIXED, 4).seed
    assert seed in VALIDATION_SEEDS and seed not in TEST_SEEDS
    assert not set(TEST_SEEDS) & set(VALIDATION_SEEDS)


def test_sizes_reach_the_ends_of_their_ranges_and_favour_few_users():
    drawn = np.array([sizes(seeded(0, step), (2, 40), (0.25, 1.5)) for step in range(4000)])
    users, antennas = drawn.T
    assert users.min() == 2 and users.max() == 40
    uniform, logarithmic = np.log(11 / 2), 9 / 39
    expected = (logarithmic + uniform / np.log(41 / 2)) / 2  # P(K <= 10)
    assert abs((users <= 10).mean() - expected) < 4 * np.sqrt(expected / 4000)
    load = users[users > 20] / antennas[users > 20]
    assert 0.24 < load.min() < 0.3 and 1.4 < load.max() < 1.56
    assert (drawn >= 1).all()


def test_instances_follow_the_formula_from_the_numbers_drawn():
    source = dataclasses.replace(MIXED, correlated_share=0.0, spread_share=1.0, weighted_share=1.0)
    draws = source.draw(seeded(5, 0), 8)
    instance = source.build(draws)
    gain, noise = (10 ** (draws[name].numpy() / 10) for name in ("gain_db", "noise_db"))
    H = (np.sqrt(gain)[..., None] * draws["fading"].numpy()).conj()
    np.testing.assert_allclose(instance.truth.channel.numpy(), H, rtol=1e-12)
    snr = 10 ** (draws["snr_db"].numpy()[:, None] / 10)
    np.testing.assert_allclose(instance.truth.noise.numpy() * snr, noise, rtol=1e-12)
    assert (instance.context["p_max"] == 1).all()
    assert torch.equal(instance.context["weights"], draws["weights"])


def test_shares_and_ranges():
    source = dataclasses.replace(MIXED, users=(8, 8), load=(1.0, 1.0), spread_share=0.3, weighted_share=0.6)
    draws = source.draw(seeded(6, 0), 4000)
    spread = (draws["gain_db"] != 0).any(-1)
    assert torch.equal(spread, (draws["noise_db"] != 0).any(-1))
    for share, expected in (
        (spread, 0.3),
        ((draws["weights"] != 1).any(-1), 0.6),
        (draws["correlation"] > 0, 0.5),
    ):
        assert abs(share.double().mean().item() - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000)
    assert stats.kstest(draws["snr_db"].numpy(), stats.uniform(-5, 35).cdf).pvalue > 1e-3
    weights = draws["weights"][(draws["weights"] != 1).any(-1)]
    assert stats.kstest(weights.flatten().numpy(), stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3
    assert draws["gain_db"].abs().max() < 20 and draws["noise_db"].abs().max() < 10
    r = draws["correlation"][draws["correlation"] > 0]
    assert stats.kstest(r.numpy(), stats.uniform(0, 0.95).cdf).pvalue > 1e-3


def test_each_instance_of_a_batch_has_its_own_correlation():
    white = torch.randn(3, 2, 5, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    phase = torch.rand(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    modulus = torch.tensor([0.0, 0.5, 0.9], dtype=torch.float64)
    n = np.arange(5)
    for i, r in enumerate(modulus.tolist()):
        alone = correlated(white[i : i + 1], r, phase[i : i + 1])
        torch.testing.assert_close(correlated(white, modulus, phase)[i], alone[0], rtol=1e-12, atol=0)
        root = np.linalg.cholesky(r ** np.abs(n[:, None] - n))
        for k in range(2):
            turn = np.exp(2j * np.pi * phase[i, k].item() * n)
            np.testing.assert_allclose(alone[0, k], turn * (root @ white[i, k].numpy()), rtol=1e-10, atol=1e-12)
