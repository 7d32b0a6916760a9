"""Max-min SINRs and rates with a total power limit: cone programs, least power as the inverse problem, edge cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.classical.duality.max_min import MaxMin
from beamforge.classical.duality.min_power import Duality
from beamforge.core.beams import Beams
from beamforge.core.constraints import SinrAtLeast, TotalPower
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.solution import Status
from beamforge.core.utilities import MinRate, MinSinr, TransmitPower
from tests.oracles_convex import LeastPower, max_min

# Tolerances: SINRs equal to 1e-9 in complex128 and 1e-4 in complex64; levels agree with the cone program to 1e-6.


def channels(*shape, seed=0, dtype=torch.complex128):
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed)).to(dtype)


def solve(network, goal, limit):
    return MaxMin().solve(Problem(goal, (TotalPower(limit),)), network)


def power(network, solution):
    return network.transmit_power(solution.W).sum(-1)


@pytest.mark.parametrize(
    ("T", "N", "serving", "goal"),
    [
        (1, 4, [0, 0, 0], MinSinr(1.0)),
        (1, 2, [0, 0, 0], MinSinr(torch.tensor([1.0, 3.0, 0.2], dtype=torch.float64))),
        (1, 4, [0, 0, 0], MinRate(torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64))),
        (2, 2, [0, 1, 1], MinRate()),
        (3, 1, [0, 1, 2], MinSinr(1.0)),
    ],
)
def test_the_level_agrees_with_bisected_cone_programs(T, N, serving, goal):
    H = channels(1, T, 3, N, seed=T + N)
    network = Network.multicell(H, 0.5, torch.tensor(serving))
    solution = solve(network, goal, 4.0)
    bound = goal.bind(network)
    level = bound.value(Instance.perfect(network), Beams(solution.W)).item()
    if isinstance(goal, MinSinr):
        wanted = lambda r: r * bound.target[0].numpy()  # noqa: E731
    else:
        wanted = lambda r: 2 ** (r / bound.weights[0].numpy()) - 1  # noqa: E731
    peak = LeastPower(T, 3, N, serving, total=4.0, peak=True)
    expected = max_min(peak, H[0].numpy(), np.full(3, 0.5), wanted, 0.98 * level, 1.01 * level, steps=22)
    assert level == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("K", "N"), [(1, 1), (4, 8), (8, 8), (8, 4), (40, 16)])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_all_users_get_the_same_and_the_power_is_used(K, N, dtype):
    network = Network.broadcast(channels(20, K, N, seed=K, dtype=dtype), 1.0)
    even = {torch.complex64: 1e-4, torch.complex128: 1e-9}[dtype]
    for limit in (1e-3, 1.0, 1e3):
        solution = solve(network, MinSinr(1.0), limit)
        assert (solution.status == Status.CONVERGED).all()
        assert solution.iterations.max() <= 10
        sinr = network.sinr(solution.W)
        assert (sinr.amax(-1) / sinr.amin(-1) - 1 < even).all()
        torch.testing.assert_close(power(network, solution), torch.full((20,), limit).to(sinr), rtol=1e-5, atol=0)


def test_least_power_for_the_level_is_the_limit():
    network = Network.broadcast(channels(10, 6, 5, seed=2), torch.logspace(-3, 3, 6, dtype=torch.float64))
    target = torch.linspace(0.5, 2, 6, dtype=torch.float64)
    solution = solve(network, MinSinr(target), 30.0)
    level = MinSinr(target).bind(network).value(Instance.perfect(network), Beams(solution.W))
    question = Problem(TransmitPower(), (SinrAtLeast(level.unsqueeze(-1) * target),))
    least = power(network, Duality().solve(question, network))
    torch.testing.assert_close(least, torch.full_like(least, 30.0), rtol=1e-7, atol=0)


def test_a_user_without_a_channel_or_weight_is_left_out():
    H = channels(3, 4, 5, seed=3)
    rest = solve(Network.broadcast(H[:, [0, 1, 3]], 1.0), MinRate(), 5.0)
    dead = H.clone()
    dead[:, 2] = 0
    for network, goal in [
        (Network.broadcast(dead, 1.0), MinRate()),
        (Network.broadcast(H * torch.tensor([1, 1, 0, 1])[:, None], 1.0), MinSinr(1.0)),
    ]:
        solution = solve(network, goal, 5.0)
        assert (solution.status == Status.CONVERGED).all()
        assert (solution.W[:, :, 2] == 0).all()
        torch.testing.assert_close(solution.W[:, :, [0, 1, 3]], rest.W, rtol=1e-8, atol=1e-10)
    weights = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    assert (solve(Network.broadcast(H, 1.0), MinRate(weights), 5.0).W[:, :, 2] == 0).all()


def test_an_instance_does_not_depend_on_the_batch():
    H = channels(4, 4, 5, seed=4)
    alone = solve(Network.broadcast(H, 1.0), MinSinr(1.0), 5.0).W
    H[1] = 0
    H[2, 1] = H[2, 0]
    together = solve(Network.broadcast(H, 1.0), MinSinr(1.0), 5.0)
    assert (together.W[[0, 3]] - alone[[0, 3]]).abs().max() < 1e-12
    assert (together.W[1] == 0).all()
    assert together.status.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("gain", [1e-14, 1e6])
def test_only_the_signal_to_noise_ratio_matters(gain):
    H = channels(5, 4, 6, seed=5)
    usual = solve(Network.broadcast(H, 1.0), MinRate(), 2.0).W
    torch.testing.assert_close(
        solve(Network.broadcast(H * gain**0.5, gain), MinRate(), 2.0).W, usual, rtol=1e-8, atol=1e-10
    )


def test_permuted_users_have_permuted_beams_and_more_power_helps():
    H, order = channels(4, 5, 4, seed=6), [3, 0, 4, 1, 2]
    network = Network.broadcast(H, 1.0)
    solution = solve(network, MinRate(), 2.0)
    shuffled = solve(Network.broadcast(H[:, order], 1.0), MinRate(), 2.0)
    torch.testing.assert_close(shuffled.W, solution.W[:, :, order], rtol=1e-8, atol=1e-10)
    more = solve(network, MinRate(), 2.2)
    assert (network.rate(more.W).amin(-1) > network.rate(solution.W).amin(-1)).all()


@pytest.mark.parametrize("rates", [False, True])
def test_gradients_match_finite_differences(rates):
    H = channels(2, 3, 4, seed=7).requires_grad_()
    share = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)

    def level(H, share):
        network = Network.broadcast(H, 0.7)
        goal = MinRate(share) if rates else MinSinr(share)
        W = solve(network, goal, 3.0).W
        bound = goal.bind(network)
        return (bound.weights * network.rate(W) if rates else network.sinr(W) / bound.target).mean(-1)

    assert torch.autograd.gradcheck(level, (H, share), eps=1e-6, atol=1e-6, rtol=1e-5)
