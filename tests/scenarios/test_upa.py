"""The correlation of the planar array against its formula, entry by entry, and against samples."""

import numpy as np
import pytest
import torch
from scipy import stats

from beamforge.scenarios import UPA


def axis(angle, spread, size):
    R = np.empty((size, size), dtype=complex)
    for m in range(size):
        for n in range(size):
            lag = np.pi * (m - n)
            R[m, n] = np.exp(1j * lag * np.sin(angle)) / (1 + 0.5 * spread**2 * (lag * np.cos(angle)) ** 2)
    return R


def fixed(scenario, count, seed=0):
    """The directions of one instance with `count` draws of the fading."""
    draws = {name: value.expand(count, *value.shape) for name, value in scenario.draw(torch.Generator()).items()}
    shape, generator = draws["fading"].shape, torch.Generator().manual_seed(seed)
    return draws | {"fading": torch.randn(*shape, dtype=torch.complex128, generator=generator)}


@pytest.mark.parametrize("spread", [0.0, 5.0, 10.0, 60.0])
def test_covariance_is_the_kronecker_product_of_the_axes(spread):
    scenario = UPA(users=3, columns=4, rows=3, angular_spread_deg=spread)
    draws = fixed(scenario, 1)
    R = scenario.covariance(draws)[0].numpy()
    directions = (2 * draws["direction"][0].numpy() - 1) * np.radians([[60.0], [45.0]])
    for k, (azimuth, elevation) in enumerate(directions.T):
        expected = np.kron(axis(azimuth, np.radians(spread), 4), axis(elevation, np.radians(spread), 3))
        np.testing.assert_allclose(R[k], expected, atol=1e-12)
        assert np.linalg.eigvalsh(R[k]).min() > -1e-10


def test_samples_have_the_stated_covariance():
    scenario = UPA(users=2, columns=3, rows=2)
    draws = fixed(scenario, 40_000)
    h = scenario.build(draws).truth.channel.numpy().conj()
    R = scenario.covariance(draws)[0].numpy()
    for k in range(2):
        np.testing.assert_allclose(h[:, k].T @ h[:, k].conj() / len(h), R[k], atol=5 / np.sqrt(len(h)))
        assert np.abs(h[:, k].T @ h[:, k] / len(h)).max() < 5 * np.sqrt(2 / len(h))


def test_without_spread_the_channel_is_a_plane_wave_from_its_direction():
    scenario = UPA(users=2, columns=4, rows=2, angular_spread_deg=0.0)
    draws = fixed(scenario, 20)
    H = scenario.build(draws).truth.channel.numpy()
    for k, (azimuth, elevation) in enumerate((2 * draws["direction"][0].numpy().T - 1) * np.radians([60.0, 45.0])):
        columns, rows = np.arange(8) // 2, np.arange(8) % 2
        beam = np.exp(1j * np.pi * (columns * np.sin(azimuth) + rows * np.sin(elevation))) / np.sqrt(8)
        np.testing.assert_allclose(np.abs(H[:, k] @ beam), np.linalg.norm(H[:, k], axis=-1), rtol=1e-6)


def test_directions_and_targets_fill_their_ranges():
    scenario = UPA(users=4, columns=2, rows=2, angular_spread_deg=0.0, target_low_db=-5.0, target_high_db=15.0)
    instance = scenario.sample(1000, dtype=torch.complex128)
    h = instance.truth.channel.numpy().conj()
    for ratio, limit in ((h[..., 2] / h[..., 0], 60), (h[..., 1] / h[..., 0], 45)):
        # the phase between neighbours is pi sin(angle), below pi for either limit
        angle = np.degrees(np.arcsin(np.angle(ratio) / np.pi)).ravel()
        assert stats.kstest(angle, stats.uniform(-limit, 2 * limit).cdf).pvalue > 1e-3
    target_db = 10 * np.log10(instance.context["sinr_target"].numpy()).ravel()
    assert stats.kstest(target_db, stats.uniform(-5, 20).cdf).pvalue > 1e-3
    assert (instance.truth.noise == 1).all() and (instance.context["p_max"] == 100).all()
