"""Balanced powers for fixed directions: against the spectral radius, and where multipliers are inaccurate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.classical.duality.power_limited import PowerLimitedMaxMin
from beamforge.classical.duality.rescaled_powers import balancing_factors
from beamforge.core.beams import Beams
from beamforge.core.constraints import PerTransmitterPower
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.utilities import MinRate, MinSinr


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def beams_and_costs(scale):
    H = normal(3, 1, 4, 5, seed=1)
    W = 0.1 * torch.linalg.pinv(H.squeeze(1) + 0.01 * normal(3, 4, 5, seed=2))
    network = Network.multicell(scale * H, torch.linspace(0.5, 2, 4, dtype=torch.float64), torch.zeros(4).long())
    cost = W.abs().square() / torch.linspace(0.1, 1, 5, dtype=torch.float64)[:, None]  # five antennas' limits
    return network, W, cost


@pytest.mark.parametrize("scale", [0.1, 1e4])
def test_the_level_is_that_of_the_spectral_radius(scale):
    network, W, cost = beams_and_costs(scale)
    target = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64).expand(3, 4)
    factor = balancing_factors(network, W, cost, target, torch.zeros(3, 4, dtype=torch.float64))
    found = (network.sinr(W * factor.sqrt().unsqueeze(-2)) / target).numpy()
    for b, (A, c) in enumerate(zip(network.apply(W).abs().square().numpy(), cost.numpy(), strict=True)):
        ratio = target[b].numpy() / np.diag(A)
        coupling = ratio[:, None] * (A - np.diag(np.diag(A)))
        noise = ratio * network.noise[b].numpy()
        expected = min(1 / np.abs(np.linalg.eigvals(coupling + np.outer(noise, limit))).max() for limit in c)
        np.testing.assert_allclose(found[b], expected, rtol=1e-9)


def test_rates_are_balanced_too_and_a_user_without_a_beam_is_left_out():
    network, W, cost = beams_and_costs(10.0)
    W[1, :, 2] = cost[1, :, 2] = 0
    W, cost = 2 * W, 4 * cost
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64).expand(3, 4)
    factor = balancing_factors(network, W, cost, torch.ones_like(weights), weights)
    after = W * factor.sqrt().unsqueeze(-2)
    level = weights * network.rate(after)
    counted = network.rate(W) > 0
    assert (counted.sum(-1) == torch.tensor([4, 3, 4])).all()
    for b in range(3):
        torch.testing.assert_close(level[b][counted[b]], level[b][counted[b]].amin().expand(counted[b].sum()))
    assert ((cost * factor.unsqueeze(-2)).sum(-1) <= 1).all()
    assert (level[counted].amin() > (weights * network.rate(W))[counted].amin()).all()


@pytest.mark.parametrize("goal", [MinSinr(1.0), MinRate(1.0)])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_users_are_balanced_where_interference_alone_decides(goal, dtype):
    """With one antenna users cannot be separated, so powers hardly matter at 30 dB, and the dual is flat."""
    H = (30 * normal(6, 3, 5, 1, seed=3)).to(dtype)
    network = Network.multicell(H, 1.0, torch.tensor([0, 1, 2, 0, 1]))
    limit = PerTransmitterPower([1.0, 0.1, 10.0])
    solution = PowerLimitedMaxMin().solve(Problem(goal, (limit,)), network)
    sinr = network.sinr(solution.W)
    assert (solution.status <= 1).all()
    digits = 1e-9 if dtype == torch.complex128 else 1e-5
    torch.testing.assert_close(sinr, sinr.amin(-1, keepdim=True).expand_as(sinr), rtol=digits, atol=0)
    assert limit.bind(network).violation(Instance.perfect(network), Beams(solution.W)).amax() < digits
    each = torch.einsum(
        "bnk,bkl->bkl", solution.W.abs().square(), torch.eye(3)[network.streams.transmitter].to(sinr.dtype)
    )
    each = each / torch.tensor([1.0, 0.1, 10.0], dtype=sinr.dtype)
    A = network.apply(solution.W).abs().square().double().numpy()
    for b in range(6):  # with one antenna there are no other directions: the spectral radius is the optimum
        coupling = A[b] / np.diag(A[b])[:, None] - np.eye(5)
        costs = np.outer(1 / np.diag(A[b]), np.ones(5))[None] * each[b].T.double().numpy()[:, None]
        best = min(1 / np.abs(np.linalg.eigvals(coupling + cost)).max() for cost in costs)
        assert sinr[b, 0].item() == pytest.approx(best, rel=1e3 * digits)
