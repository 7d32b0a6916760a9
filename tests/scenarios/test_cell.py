"""`Cell` against its distributions, and `Fairness` against the published table."""

import numpy as np
import pytest
import torch
from scipy import stats

from beamforge import Instance, evaluate
from beamforge.classical.linear import WeightedSLNR
from beamforge.core.constraints import TotalPower
from beamforge.core.problem import Problem
from beamforge.core.utilities import SumRate
from beamforge.scenarios import Cell, Fairness, PathLoss

LOUD = 1e12
"""A Rician factor so large that there is no fading."""


def sampled(scenario, count, seed=0) -> Instance:
    return scenario.sample(count, seed=seed, dtype=torch.complex128)


def loss_db(position, height, frequency=2e9):
    distance = np.sqrt(position[..., 0] ** 2 + position[..., 1] ** 2 + (position[..., 2] - height) ** 2)
    return 32.4 + 20 * np.log10(frequency / 1e9) + 31.9 * np.log10(distance)


def test_users_are_uniform_in_area():
    position = sampled(Cell(radius=300.0, least_distance=35.0), 500).context["user_position"].numpy()
    square = (position[..., :2] ** 2).sum(-1).ravel()
    assert stats.kstest((square - 35.0**2) / (300.0**2 - 35.0**2), "uniform").pvalue > 1e-3
    azimuth = np.arctan2(position[..., 1], position[..., 0]).ravel()
    assert stats.kstest(azimuth / (2 * np.pi) + 0.5, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(square, azimuth)[0, 1]) < 5 / np.sqrt(len(square))
    assert (position[..., 2] == 1.5).all()


def test_path_loss_follows_distance_frequency_and_height():
    scenario = Cell(shadowing_db=0.0, rician_factor=LOUD, frequency=5e9, height=25.0)
    instance = sampled(scenario, 50)
    gain_db = 20 * np.log10(instance.truth.channel.abs()[..., 0].numpy())
    expected = -loss_db(instance.context["user_position"].numpy(), 25.0, 5e9)
    np.testing.assert_allclose(gain_db, expected, atol=1e-4)


def test_path_loss_terms_are_independent():
    free_space = PathLoss(intercept_db=32.45, slope_db=20.0, frequency_slope_db=20.0)
    wavelength = 299_792_458 / 3.5e9
    expected = 20 * np.log10(4 * np.pi * 700.0 / wavelength)
    assert abs(free_space.decibels(torch.tensor(700.0), 3.5e9).item() - expected) < 0.01


def test_shadowing_is_gaussian_in_decibels_and_independent_among_users():
    instance = sampled(Cell(shadowing_db=7.0, rician_factor=LOUD), 1000)
    gain_db = 20 * np.log10(instance.truth.channel.abs()[..., 0].numpy())
    shadow = gain_db + loss_db(instance.context["user_position"].numpy(), 10.0, 3.5e9)
    assert stats.kstest(shadow.ravel() / 7.0, "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(shadow.T) - np.eye(8)).max() < 5 / np.sqrt(1000)


def test_fading_is_rayleigh_by_default():
    instance = sampled(Cell(antennas=2, shadowing_db=0.0), 1000)
    gain = 10 ** (-loss_db(instance.context["user_position"].numpy(), 10.0, 3.5e9) / 10)
    fading = instance.truth.channel.abs().square()[..., 0].numpy() / gain
    assert stats.kstest(fading.ravel(), "expon").pvalue > 1e-3


def test_rician_channels_have_the_stated_covariance_and_factor():
    scenario = Cell(users=2, antennas=4, rician_factor=3.0)
    draws = {name: value.expand(40_000, *value.shape) for name, value in scenario.draw(torch.Generator()).items()}
    generator = torch.Generator().manual_seed(5)
    draws["fading"] = torch.randn(40_000, 2, 4, dtype=torch.complex128, generator=generator)
    draws["phase"] = torch.rand(40_000, 2, dtype=torch.float64, generator=generator)
    instance = scenario.build(draws)
    h, position = instance.truth.channel.numpy().conj(), instance.context["user_position"][0].numpy()
    for k in range(2):
        R = scenario.covariance(draws)[0, k].numpy()
        gain = R[0, 0].real
        sine = position[k, 1] / np.hypot(position[k, 0], position[k, 1])
        a = np.exp(1j * np.pi * np.arange(4) * sine)
        np.testing.assert_allclose(R / gain, (3 * np.outer(a, a.conj()) + np.eye(4)) / 4, atol=1e-9)
        np.testing.assert_allclose(h[:, k].T @ h[:, k].conj() / len(h) / gain, R / gain, atol=5 / np.sqrt(len(h)))
        fourth = (np.abs(h[:, k]) ** 4).mean() / gain**2
        assert abs(fourth - (1 + (1 + 2 * 3) / (1 + 3) ** 2)) < 0.05  # moment of the Rice distribution, F = 3


def test_noise_and_power_are_in_watts():
    instance = sampled(Fairness(), 2)
    np.testing.assert_allclose(instance.truth.noise, 10 ** ((-85.8 - 30) / 10), rtol=1e-12)
    assert instance.context["p_max"].tolist() == [10.0, 10.0]


@pytest.mark.parametrize(
    ("alpha", "sum_rate", "jain"),
    [(0.0, 30.96, 0.667), (0.7, 28.33, 0.737), (1.0, 24.71, 0.858), (1.3, 21.87, 0.930), (5.0, 15.10, 0.967)],
)
def test_weighted_slnr_meets_the_fairness_table(alpha, sum_rate, jain):
    """The means of 2000 drops agree with 10,000 drops by another implementation, to 4 joint standard errors."""
    instance = Fairness().sample(2000, seed=7)
    problem = Problem(SumRate(), (TotalPower(10.0),))
    report = evaluate(problem, instance, WeightedSLNR(alpha=alpha).solve(problem, instance).W)
    for measured, table, digits in ((report.utility, sum_rate, 0.005), (report.jain, jain, 0.0005)):
        error = measured.std().item() * (1 / 2000 + 1 / 10_000) ** 0.5
        assert abs(measured.mean().item() - table) < 4 * error + digits
