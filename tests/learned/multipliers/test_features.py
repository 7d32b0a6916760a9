"""Inputs of the filter: the floor against regularised zero forcing, features and shifts against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge import Network, Problem
from beamforge.classical.linear import RZF
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.core.constraints import TotalPower
from beamforge.core.observation import Observation
from beamforge.core.utilities import SumRate
from beamforge.learned.multipliers.features import observe
from beamforge.scenarios import Rayleigh

PROBLEM = Problem(SumRate(), (TotalPower(1.0),))


def prepared(network):
    return ReducedWMMSE().prepare(PROBLEM.bind(network), Observation(network))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize(
    "source", [Rayleigh(8, 8, 20.0), Rayleigh(12, 8, 30.0), Rayleigh(8, 16, 0.0, 40.0), Rayleigh(8, 8, 40.0, 0.0, 0.99)]
)
def test_the_floor_is_infinite_or_at_least_the_rate_of_zero_forcing(source, dtype):
    network = source.sample(60, seed=4, dtype=dtype).truth
    exact = Network.broadcast(network.channel.to(torch.complex128), network.noise.double())
    rate = exact.rate(RZF().solve(PROBLEM, exact).W).sum(-1)
    floor = observe(prepared(network)).floor.double()
    told = torch.isfinite(floor)
    assert (floor[told] >= rate[told]).all()
    if dtype is torch.complex128:
        torch.testing.assert_close(floor, rate, rtol=1e-6, atol=0)


def test_on_ordinary_channels_the_floor_is_close_to_that_rate_in_single_precision():
    network = Rayleigh(16, 16, 20.0).sample(50, seed=4).truth
    rate = network.rate(RZF().solve(PROBLEM, network).W).sum(-1)
    torch.testing.assert_close(observe(prepared(network)).floor, rate, rtol=3e-3, atol=0)


@pytest.mark.parametrize("noise", [1e-1, 1e-3, 1e-6, 1e-9])
def test_the_floor_covers_the_rounding_error(noise):
    H = torch.randn(20, 4, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    H[:10, 1] = H[:10, 0]
    exact = Network.broadcast(H.to(torch.complex128), noise)
    rate = exact.rate(RZF().solve(PROBLEM, exact).W).sum(-1)
    assert (observe(prepared(Network.broadcast(H, noise))).floor >= rate).all()


def test_shifts_and_features_against_numpy():
    network = Network.broadcast(torch.randn(1, 4, 3, dtype=torch.complex128), 0.1)
    data = prepared(network)
    seen = observe(data)
    G = data.gram[0].numpy()
    R = np.linalg.inv(G + 4 * np.eye(4))
    g, r = np.diag(G).real, np.diag(R).real
    off = 1 - np.eye(4)
    np.testing.assert_allclose(seen.shifts[0, 0], off * abs(G) ** 2 / np.outer(g, g), rtol=1e-9)
    np.testing.assert_allclose(seen.shifts[0, 1], off * abs(R) ** 2 / np.outer(r, r), rtol=1e-9)
    np.testing.assert_allclose(seen.shifts[0, 2], off * abs(G) ** 2 / np.outer(g * (g + 40), np.ones(4)), rtol=1e-9)
    np.testing.assert_allclose(seen.nodes[0, :, 5], 4 * r, rtol=1e-9)
    np.testing.assert_allclose(seen.nodes[0, :, 0], np.log(g) / 5, rtol=1e-9)
