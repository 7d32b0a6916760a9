"""Second moments of the Rayleigh scenario against NumPy."""

import numpy as np
import pytest
import torch
from scipy import stats

from beamforge.scenarios import Rayleigh


def channel(scenario, count, seed=0):
    return scenario.sample(count, seed=seed, dtype=torch.complex128).truth.channel.numpy()


def test_entries_are_independent_circular_gaussians_of_unit_variance():
    h = channel(Rayleigh(users=2, antennas=3), 6000).reshape(-1, 6)
    sigma = 1 / np.sqrt(len(h))
    assert np.abs(h.T @ h.conj() / len(h) - np.eye(6)).max() < 5 * sigma
    assert np.abs(h.T @ h / len(h)).max() < 5 * sigma * np.sqrt(2)
    assert stats.kstest(2 * np.abs(h[:, 0]) ** 2, stats.chi2(2).cdf).pvalue > 1e-3
    assert stats.kstest(h[:, 5].real * np.sqrt(2), "norm").pvalue > 1e-3


def test_power_and_noise_follow_the_snr():
    instance = Rayleigh(snr_db=23.0).sample(2, dtype=torch.complex128)
    np.testing.assert_allclose(instance.context["p_max"] / instance.truth.noise[:, 0], 10**2.3, rtol=1e-12)
    assert (instance.context["p_max"] == 1).all()


def test_gains_are_uniform_in_decibels_over_the_spread():
    """The mean of |h|^2 over 400 antennas is the gain to within a fifth of a decibel."""
    h = channel(Rayleigh(users=40, antennas=400, gain_spread_db=30.0), 50)
    gain_db = 10 * np.log10((np.abs(h) ** 2).mean(-1)).ravel()
    assert -15.8 < gain_db.min() < -14.5 and 14.5 < gain_db.max() < 15.8
    assert stats.kstest(gain_db, stats.uniform(-15, 30).cdf).pvalue > 1e-3


def test_antennas_are_correlated_exponentially_with_an_independent_phase_per_user():
    scenario = Rayleigh(users=3, antennas=5, correlation=0.7, gain_spread_db=10.0)
    draws = {
        "phase": torch.tensor([0.1, 0.35, 0.8], dtype=torch.float64).expand(40_000, 3),
        "gain": torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).expand(40_000, 3),
        "fading": torch.randn(40_000, 3, 5, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)),
    }
    h = scenario.build(draws).truth.channel.numpy().conj()
    n = np.arange(5)
    for k, (theta, gain) in enumerate(
        zip(2 * np.pi * np.array([0.1, 0.35, 0.8]), 10 ** np.array([-0.5, 0, 0.5]), strict=True)
    ):
        apart = n[:, None] - n
        R = gain * 0.7 ** np.abs(apart) * np.exp(1j * theta * apart)
        np.testing.assert_allclose(scenario.covariance(draws)[0, k], R, rtol=1e-12)
        np.testing.assert_allclose(h[:, k].T @ h[:, k].conj() / len(h), R, atol=5 * gain / np.sqrt(len(h)))


@pytest.mark.parametrize("options", [{}, {"correlation": 0.6, "gain_spread_db": 20.0}])
def test_covariance_gives_the_mean_received_power_of_a_beam(options):
    """E|h^H w|^2 = w^H R w; a misplaced conjugate would violate this."""
    scenario = Rayleigh(users=1, antennas=4, **options)
    draws = {name: value.expand(30_000, *value.shape) for name, value in scenario.draw(torch.Generator()).items()}
    draws["fading"] = torch.randn(30_000, 1, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    w = torch.tensor([1, 1j, -1, 0.5 - 1j], dtype=torch.complex128)
    delivered = (scenario.build(draws).truth.channel @ w).abs().square().mean()
    expected = (w.conj() @ scenario.covariance(draws)[0, 0] @ w).real
    torch.testing.assert_close(delivered, expected, rtol=5 / 30_000**0.5, atol=0)
