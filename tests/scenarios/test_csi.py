"""Pilot estimates: their error against the closed form, what they depend on, and their limiting cases."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from beamforge.core.errors import ConfigError
from beamforge.scenarios import UPA, Cell, Fairness, Interference, PathLoss, PilotCSI, Rayleigh

COUNT = 20_000


def repeated(scenario, count=COUNT):
    """The statistics of one instance with `count` draws of fading and pilots."""
    draws = {name: value.expand(count, *value.shape) for name, value in scenario.draw(torch.Generator()).items()}
    generator = torch.Generator().manual_seed(3)
    for name in ("fading", "pilot_noise"):
        draws[name] = torch.randn(draws[name].shape, dtype=torch.complex128, generator=generator)
    if "phase" in draws:
        draws["phase"] = torch.rand(draws["phase"].shape, dtype=torch.float64, generator=generator)
    return scenario.build(draws)


CHANNELS = [
    UPA(users=2, columns=3, rows=2),
    Rayleigh(users=2, antennas=4, snr_db=3.0),
    Cell(users=2, antennas=4, rician_factor=2.0, shadowing_db=3.0),
]


@pytest.mark.parametrize("channels", CHANNELS, ids=lambda channels: type(channels).__name__)
def test_the_error_agrees_with_the_closed_form(channels):
    """E|h - estimate|^2 = tr(R - R (R + I/rho)^-1 R); for i.i.d. entries N / (1 + rho)."""
    if isinstance(channels, Rayleigh):
        scenario = PilotCSI(channels, pilot_low_db=5.0, pilot_high_db=5.0)
    else:
        scenario = PilotCSI(channels)
    instance = repeated(scenario)
    h, estimate = instance.truth.channel.numpy().conj(), instance.observation.network.channel.numpy().conj()
    quality, R = instance.context["csi_quality"][0].numpy(), instance.context["covariance"][0].numpy()
    for k in range(2):
        N = R.shape[-1]
        unit = np.trace(R[k]).real / N
        error = np.trace(R[k] - R[k] @ np.linalg.inv(R[k] + np.eye(N) / quality[k]) @ R[k]).real
        measured = (np.abs(h[:, k] - estimate[:, k]) ** 2).sum(-1)
        assert abs(measured.mean() - error) < 5 * measured.std() / np.sqrt(COUNT)
        if isinstance(channels, Rayleigh):
            np.testing.assert_allclose(quality[k], 10**0.5 * 10**0.3, rtol=1e-12)
            assert abs(error - N / (1 + quality[k])) < 1e-9
        # orthogonality principle: error and estimate are uncorrelated
        cross = (h[:, k] - estimate[:, k]).T @ estimate[:, k].conj() / COUNT / unit
        assert np.abs(cross).max() < 6 / np.sqrt(COUNT)


def test_the_truth_is_the_scenario_without_pilots():
    inner = Fairness(users=3)
    plain, piloted = inner.sample(4, seed=9), PilotCSI(inner).sample(4, seed=9)
    assert torch.equal(plain.truth.H, piloted.truth.H)
    assert torch.equal(plain.context["user_position"], piloted.context["user_position"])
    assert not torch.equal(piloted.observation.network.H, piloted.truth.H)


def test_strong_pilots_give_the_channel_and_weak_pilots_zero():
    strong = PilotCSI(pilot_low_db=90.0, pilot_high_db=90.0).sample(3, dtype=torch.complex128)
    torch.testing.assert_close(strong.observation.network.H, strong.truth.H, rtol=0, atol=1e-3)
    weak = PilotCSI(pilot_low_db=-90.0, pilot_high_db=-90.0).sample(3, dtype=torch.complex128)
    assert weak.observation.network.H.abs().max() < 1e-3


def test_better_pilots_never_give_a_larger_error():
    errors = []
    for power_db in (-10.0, 0.0, 10.0, 20.0, 30.0):
        instance = PilotCSI(pilot_low_db=power_db, pilot_high_db=power_db).sample(300, seed=1)
        errors.append((instance.observation.network.H - instance.truth.H).abs().square().mean().item())
    assert errors == sorted(errors, reverse=True)


def test_the_estimate_is_in_the_range_of_the_covariance():
    """A plane wave has a covariance of rank one: for any pilot noise the estimate is a multiple of it."""
    instance = PilotCSI(UPA(users=1, angular_spread_deg=0.0)).sample(20, dtype=torch.complex128)
    truth, seen = instance.truth.channel.squeeze(1), instance.observation.network.channel.squeeze(1)
    along = (truth.conj() * seen).sum(-1).abs()
    torch.testing.assert_close(along, truth.norm(dim=-1) * seen.norm(dim=-1), rtol=1e-6, atol=0)


def test_other_units_scale_the_estimate():
    """The estimate is as accurate for gains and noise near 1e-24 as near 1e-12."""
    loud = Cell(users=3, antennas=4, shadowing_db=0.0)
    quiet = replace(loud, path_loss=PathLoss(intercept_db=32.4 + 120), noise_dbm=-92.0 - 120)
    near, far = (PilotCSI(channels).sample(5, dtype=torch.complex128) for channels in (loud, quiet))
    torch.testing.assert_close(far.observation.network.H * 1e6, near.observation.network.H, rtol=1e-8, atol=0)


def test_the_quality_is_uniform_in_decibels_and_the_same_for_all_users():
    quality = PilotCSI(UPA(users=2, columns=2, rows=1), -5.0, 25.0).sample(2000).context["csi_quality"].numpy()
    np.testing.assert_array_equal(quality[:, 0], quality[:, 1])
    assert stats.kstest(10 * np.log10(quality[:, 0]), stats.uniform(-5, 30).cdf).pvalue > 1e-3


def test_channels_without_statistics_are_refused():
    with pytest.raises(ConfigError, match="channels must be a scenario with a known covariance, got 'Interference'"):
        PilotCSI(Interference())
    with pytest.raises(ConfigError, match="got 'PilotCSI'"):
        PilotCSI(PilotCSI())
