"""Least power for SINR targets: cone programs, the certificate, and the boundary of the feasible set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.classical.duality.min_power import Duality
from beamforge.core.constraints import SinrAtLeast, TotalPower
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.solution import Status
from beamforge.core.utilities import TransmitPower
from tests.oracles_convex import LeastPower, sinr

# Tolerances: 1e-7 relative in complex128, 1e-5 in complex64 (all but the channel and the beams is float64 anyway).


def channels(*shape, seed=0, dtype=torch.complex128):
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed)).to(dtype)


def solve(network, target, limit=None, **settings):
    limits = () if limit is None else (TotalPower(limit),)
    return Duality(**settings).solve(Problem(TransmitPower(), (SinrAtLeast(target), *limits)), network)


def power(network, solution):
    return network.transmit_power(solution.W).sum(-1)


def boundary(K, rank, share):
    """The equal target at which ``sum target/(1 + target)`` is the given share of the rank."""
    each = share * rank / K
    return each / (1 - each)


@pytest.mark.parametrize(("K", "N", "target"), [(1, 3, 7.0), (4, 8, 3.0), (5, 5, 10.0), (5, 3, 1.0), (3, 1, 0.3)])
def test_one_transmitter_agrees_with_the_cone_program(K, N, target):
    H = channels(3, K, N)
    noise = torch.logspace(-3, 3, K, dtype=torch.float64)
    targets = target * torch.linspace(0.5, 1.2, K, dtype=torch.float64)
    H = H * noise.sqrt()[:, None]  # SNRs of order one, so that the reference is accurate too
    network = Network.broadcast(H, noise)
    solution = solve(network, targets)
    oracle = LeastPower(1, K, N, [0] * K)
    expected = [oracle(H[b : b + 1].numpy(), noise.numpy(), targets.numpy()) for b in range(3)]
    np.testing.assert_allclose(power(network, solution), expected, rtol=1e-6)
    for b in range(3):
        reached = sinr(H[b : b + 1].numpy(), solution.W[b].numpy(), noise.numpy(), [0] * K)
        np.testing.assert_allclose(reached, targets, rtol=1e-9)
    assert (solution.info["duality_gap"] < 1e-9).all()
    dual = (solution.info["dual"] * noise).sum(-1)
    torch.testing.assert_close(dual, power(network, solution), rtol=1e-9, atol=0)


def test_several_transmitters_agree_with_the_cone_program():
    H, serving = channels(4, 2, 4, 3, seed=1), [0, 1, 1, 0]
    network = Network.multicell(H, 0.5, torch.tensor(serving))
    solution = solve(network, 0.8)
    oracle = LeastPower(2, 4, 3, serving)
    expected = np.array([oracle(h.numpy(), np.full(4, 0.5), np.full(4, 0.8)) for h in H])
    feasible = np.isfinite(expected)
    assert feasible.any()
    np.testing.assert_array_equal(solution.status == Status.CONVERGED, feasible)
    np.testing.assert_allclose(power(network, solution)[feasible], expected[feasible], rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize(("K", "N", "rank"), [(6, 8, 3), (8, 4, 4), (5, 1, 1)])
def test_feasible_exactly_below_the_rank(dtype, K, N, rank):
    mixing = channels(50, rank, N, seed=2) if rank < min(K, N) else torch.eye(N, dtype=torch.complex128)
    network = Network.broadcast((channels(50, K, rank if rank < min(K, N) else N) @ mixing).to(dtype), 1.0)
    for share in (0.5, 0.9, 0.99, 0.999):
        solution = solve(network, boundary(K, rank, share))
        assert (solution.status == Status.CONVERGED).all()
        assert (network.sinr(solution.W) >= boundary(K, rank, share) * (1 - 1e-4)).all()
        assert (solution.info["duality_gap"] < 1e-5).all()
    for share in (1.001, 1.1, 1.3):
        if share * rank / K < 1:
            solution = solve(network, boundary(K, rank, share))
            assert (solution.status == Status.INFEASIBLE).all()
            assert (solution.W == 0).all()


def test_infeasible_exactly_where_the_plain_iteration_diverges():
    H = channels(200, 4, 4, 2, seed=3)
    network = Network.interference(H, 1.0)
    solution = solve(network, 1.0)
    h = H.numpy()
    level = np.ones((200, 4))
    for _ in range(400):  # the plain fixed-point iteration, from its definition
        new = np.empty_like(level)
        for k in range(4):
            own = h[:, k, k].conj()
            A = np.eye(2) + sum(
                level[:, j, None, None] * h[:, k, j].conj()[:, :, None] * h[:, k, j][:, None, :]
                for j in range(4)
                if j != k
            )
            new[:, k] = 1 / (own.conj()[:, None] @ np.linalg.solve(A, own[..., None])).real.ravel()
        change, level = np.abs(new / level - 1).max(-1), np.minimum(new, 1e12)
    settled, diverged = change < 1e-9, level.max(-1) > 1e9
    settled &= ~diverged
    assert settled.sum() > 50
    assert diverged.sum() > 50
    assert (solution.status[settled] == Status.CONVERGED).all()
    assert (solution.status[diverged] == Status.INFEASIBLE).all()
    np.testing.assert_allclose(power(network, solution)[settled], level.sum(-1)[settled], rtol=1e-6)


@pytest.mark.parametrize(("angle", "gap"), [(1e-2, 1e-9), (1e-4, 1e-8), (1e-6, 1e-3)])
def test_nearly_parallel_users(angle, gap):
    H = channels(20, 4, 6, seed=4)
    H[:, 1] = H[:, 0] + angle * channels(20, 6, seed=5)
    network = Network.broadcast(H, 1.0)
    solution = solve(network, 3.0)
    assert (solution.status == Status.CONVERGED).all()
    assert (solution.info["duality_gap"] < gap).all()
    torch.testing.assert_close(
        network.sinr(solution.W), torch.full((20, 4), 3.0, dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_infeasible_instances_are_flagged_and_do_not_affect_others():
    H = channels(6, 4, 6, seed=6)
    alone = solve(Network.broadcast(H, 1.0), 2.0)
    H[1, 2] = 0  # no channel
    H[3, 1] = H[3, 0]  # equal channels cannot both have a SINR of 2
    together = solve(Network.broadcast(H, 1.0), 2.0)
    assert together.status.tolist() == [0, 2, 0, 2, 0, 0]
    keep = [0, 2, 4, 5]
    assert (together.W[keep] - alone.W[keep]).abs().max() < 1e-12
    assert torch.isinf(together.info["duality_gap"][[1, 3]]).all()


@pytest.mark.parametrize("gain", [1e-14, 1e6])
def test_scaling_channels_scales_powers(gain):
    H = channels(5, 4, 6, seed=7)
    usual = solve(Network.broadcast(H, 1.0), 2.0)
    network = Network.broadcast(H * gain**0.5, 1.0)
    torch.testing.assert_close(solve(network, 2.0).W * gain**0.5, usual.W, rtol=1e-9, atol=1e-12)


def test_float32_agrees_with_float64():
    H = channels(50, 8, 10, seed=8)
    exact, rough = (Network.broadcast(H.to(t), 1.0) for t in (torch.complex128, torch.complex64))
    one, other = solve(exact, 3.0), solve(rough, 3.0)
    assert other.W.dtype == torch.complex64
    assert other.info["dual"].dtype == torch.float32
    torch.testing.assert_close(power(rough, other).double(), power(exact, one), rtol=1e-5, atol=0)
    assert (rough.sinr(other.W) >= 3 * (1 - 1e-5)).all()


def test_permuted_users_and_rotated_antennas_change_nothing():
    H, order = channels(4, 5, 6, seed=9), [3, 0, 4, 1, 2]
    targets = torch.linspace(1, 3, 5, dtype=torch.float64)
    W = solve(Network.broadcast(H, 1.0), targets).W
    shuffled = solve(Network.broadcast(H[:, order], 1.0), targets[order]).W
    torch.testing.assert_close(shuffled, W[:, :, order], rtol=1e-9, atol=1e-11)
    turn = torch.linalg.qr(channels(6, 6, seed=10))[0]
    torch.testing.assert_close(solve(Network.broadcast(H @ turn, 1.0), targets).W, turn.mH @ W, rtol=1e-9, atol=1e-11)


def test_power_rises_with_every_target_and_a_limit_below_it_is_infeasible():
    network = Network.broadcast(channels(8, 4, 6, seed=11), 1.0)
    base = torch.ones(4, dtype=torch.float64)
    least = power(network, solve(network, base))
    for k in range(4):
        more = base.clone()
        more[k] = 1.1
        assert (power(network, solve(network, more)) > least).all()
    limits = least * torch.tensor([0.99, 1.01] * 4, dtype=torch.float64)
    assert solve(network, base, limits).status.tolist() == [2, 0] * 4


def test_gradients_match_finite_differences_and_the_dual():
    H = channels(2, 3, 4, seed=12).requires_grad_()
    target = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)

    def least(H, target):
        network = Network.broadcast(H, 0.7)
        return power(network, solve(network, target))

    assert torch.autograd.gradcheck(least, (H, target), eps=1e-6, atol=1e-6, rtol=1e-5)
    G = (torch.rand(2, 3, 3, dtype=torch.float64) * 0.1 + torch.eye(3)).requires_grad_()

    def control(G):
        network = Network.power_control(G, 0.1)
        return power(network, solve(network, 1.0))

    assert torch.autograd.gradcheck(control, (G,), eps=1e-6, atol=1e-6, rtol=1e-5)


def test_an_infeasible_instance_does_not_affect_shared_gradients():
    H = channels(2, 3, 4, seed=14)
    target = torch.ones(3, dtype=torch.float64, requires_grad=True)
    network = Network.broadcast(H[:1], 1.0)
    (expected,) = torch.autograd.grad(power(network, solve(network, target)).sum(), target)
    H[1, 0] = 0
    network = Network.broadcast(H, 1.0)
    (found,) = torch.autograd.grad(power(network, solve(network, target)).sum(), target)
    torch.testing.assert_close(found, expected)
