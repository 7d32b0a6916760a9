"""The interference channel: its gains from every transmitter to every user."""

import numpy as np
import torch
from scipy import stats

from beamforge.scenarios import Interference


def test_direct_and_cross_gains_by_transmitter_and_user():
    H = Interference(cells=3, antennas=4, cross_gain=0.2).sample(4000, dtype=torch.complex128).truth.H
    gain = H.abs().square().mean((0, -1)).numpy()
    expected = np.where(np.eye(3, dtype=bool), 1.0, 0.2)
    assert np.abs(gain / expected - 1).max() < 5 / np.sqrt(16_000)


def test_entries_are_independent():
    H = Interference(cells=2, antennas=2, cross_gain=1.0).sample(5000, dtype=torch.complex128).truth.H
    flat = H.flatten(1).numpy()
    assert np.abs(flat.T @ flat.conj() / len(flat) - np.eye(8)).max() < 5 / np.sqrt(len(flat))
    assert np.abs(flat.T @ flat / len(flat)).max() < 5 * np.sqrt(2 / len(flat))


def test_without_cross_gain_there_is_no_interference():
    network = Interference(cells=3, cross_gain=0.0).sample(5).truth
    W = torch.randn(5, 8, 3, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    direct = torch.einsum("bkn,bnk->bk", torch.stack([network.H[:, k, k] for k in range(3)], 1), W).abs().square()
    torch.testing.assert_close(network.sinr(W), direct)


def test_each_transmitter_has_the_snr_for_its_power_limit():
    instance = Interference(cells=2, snr_db=25.0).sample(3, dtype=torch.complex128)
    np.testing.assert_allclose(instance.context["p_max_transmitter"], np.full((3, 2), 10**2.5), rtol=1e-12)
    assert (instance.truth.noise == 1).all() and instance.truth.streams.transmitter.tolist() == [[0, 1]] * 3


def test_random_weights_are_uniform_and_do_not_change_the_channels():
    plain, weighted = (Interference(random_weights=choice).sample(1000, seed=2) for choice in (False, True))
    assert "weights" not in plain.context
    assert torch.equal(plain.truth.H, weighted.truth.H)
    assert stats.kstest(weighted.context["weights"].flatten().numpy(), "uniform").pvalue > 1e-3
