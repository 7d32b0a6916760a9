"""Power control: spectral radii by numpy, least powers by a linear solve, agreement with duality, edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.classical.duality.max_min import MaxMin
from beamforge.classical.duality.min_power import Duality
from beamforge.classical.links.balancing import FoschiniMiljanic, PerronFrobenius
from beamforge.core.constraints import PerTransmitterPower, SinrAtLeast, TotalPower
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.solution import Status
from beamforge.core.utilities import MinRate, MinSinr, TransmitPower
from tests.oracles_convex import perron_root


def gains(B, K, seed=0, cross=0.3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    G = cross * torch.rand(B, K, K, dtype=torch.float64, generator=generator)
    return (G + torch.diag_embed(0.5 + torch.rand(B, K, dtype=torch.float64, generator=generator))).to(dtype)


def powers(solution):
    return (solution.W.real.square() + solution.W.imag.square()).squeeze(-2)


@pytest.mark.parametrize("K", [1, 2, 6])
def test_the_level_is_the_inverse_of_the_largest_spectral_radius(K):
    G, noise = gains(5, K), 0.05
    target = torch.linspace(0.5, 2, K, dtype=torch.float64)
    network = Network.power_control(G, noise)
    question = Problem(MinSinr(target), (TotalPower(1.5), PerTransmitterPower(0.4)))
    solution = PerronFrobenius().solve(question, network)
    for b, g in enumerate(G.numpy()):
        direct = np.diag(g)
        F, v = g / direct[:, None] - np.eye(K), noise / direct
        rows = [np.ones(K) / 1.5] + [row / 0.4 for row in np.eye(K)]
        radius = max(perron_root(target.numpy()[:, None] * (F + np.outer(v, row))) for row in rows)
        np.testing.assert_allclose(network.sinr(solution.W)[b] / target, 1 / radius, rtol=1e-9)
    used = torch.maximum(powers(solution).sum(-1) / 1.5, powers(solution).amax(-1) / 0.4)
    torch.testing.assert_close(used, torch.ones_like(used))


@pytest.mark.parametrize(
    "goal", [MinSinr(2.0), MinRate(), MinRate(torch.tensor([1.0, 0.3, 2.0, 0.7], dtype=torch.float64))]
)
def test_total_power_agrees_with_duality(goal):
    network = Network.power_control(gains(20, 4, seed=1), torch.logspace(-4, 2, 4, dtype=torch.float64))
    question = Problem(goal, (TotalPower(2.0),))
    one, other = PerronFrobenius().solve(question, network), MaxMin().solve(question, network)
    torch.testing.assert_close(powers(one), powers(other), rtol=1e-7, atol=1e-12)


def test_a_user_without_a_gain_is_left_out():
    G = gains(2, 4, seed=2)
    G[0, 1, 1] = 0
    network = Network.power_control(G, 0.1)
    solution = PerronFrobenius().solve(Problem(MinRate(), (PerTransmitterPower(1.0),)), network)
    assert powers(solution)[0, 1] == 0
    rate = network.rate(solution.W)
    torch.testing.assert_close(rate[0, [0, 2, 3]], rate[0, :1].expand(3), rtol=1e-8, atol=0)
    assert (solution.status == Status.CONVERGED).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_foschini_miljanic_reaches_the_linear_solution_exactly_if_the_radius_is_below_one(dtype):
    G = gains(200, 4, seed=3, cross=0.6, dtype=dtype)
    network = Network.power_control(G, 0.05)
    question = Problem(TransmitPower(), (SinrAtLeast(1.5),))
    solution = FoschiniMiljanic().solve(question, network)
    direct = np.einsum("bkk->bk", G.double().numpy())
    F = 1.5 * (G.double().numpy() / direct[..., None] - np.eye(4))
    radius = np.array([perron_root(f) for f in F])
    clear = np.abs(radius - 1) > 1e-3
    np.testing.assert_array_equal((solution.status == Status.INFEASIBLE).numpy()[clear], (radius >= 1)[clear])
    assert 20 < (radius < 1).sum() < 180
    fine = (radius < 1) & clear
    expected = np.linalg.solve(np.eye(4) - F, (1.5 * 0.05 / direct)[..., None])[..., 0]
    loose = {torch.float32: 1e-2, torch.float64: 1e-6}[dtype]
    np.testing.assert_allclose(powers(solution)[fine], expected[fine], rtol=loose)
    np.testing.assert_array_equal(solution.status, Duality().solve(question, network).status)


def test_caps_are_kept_or_the_instance_is_infeasible():
    network = Network.power_control(gains(30, 3, seed=4, cross=0.1), 0.1)
    free = FoschiniMiljanic().solve(Problem(TransmitPower(), (SinrAtLeast(1.0),)), network)
    cap = powers(free).median().item()
    capped = FoschiniMiljanic().solve(Problem(TransmitPower(), (SinrAtLeast(1.0), PerTransmitterPower(cap))), network)
    broken = powers(free).amax(-1) > cap
    assert 0 < broken.sum() < 30
    torch.testing.assert_close(capped.status == Status.INFEASIBLE, broken)


@pytest.mark.parametrize("scale", [1e-14, 1e6])
def test_only_ratios_of_gain_to_noise_matter(scale):
    G = gains(4, 3, seed=5)
    question = Problem(MinRate(), (PerTransmitterPower(1.0),))
    usual = powers(PerronFrobenius().solve(question, Network.power_control(G, 0.1)))
    other = powers(PerronFrobenius().solve(question, Network.power_control(G * scale, 0.1 * scale)))
    torch.testing.assert_close(other, usual, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("rates", [False, True])
def test_gradients_match_finite_differences(rates):
    G = gains(2, 3, seed=6).requires_grad_()

    def level(G):
        network = Network.power_control(G, 0.1)
        goal = MinRate() if rates else MinSinr(1.0)
        W = PerronFrobenius().solve(Problem(goal, (PerTransmitterPower(1.0),)), network).W
        return network.sinr(W).mean(-1)

    assert torch.autograd.gradcheck(level, (G,), eps=1e-6, atol=1e-6, rtol=1e-5)

    def least(G):
        network = Network.power_control(G, 0.1)
        return powers(FoschiniMiljanic().solve(Problem(TransmitPower(), (SinrAtLeast(1.0),)), network))

    assert torch.autograd.gradcheck(least, (G,), eps=1e-6, atol=1e-6, rtol=1e-5)
