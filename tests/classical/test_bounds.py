"""Bounds: the capacity by CVXPY, by Jindal's water-filling and in closed form; weak duality; no beams above bounds."""

import cvxpy
import numpy as np
import pytest
import torch
from oracles import channels, rates, water_filling

from beamforge import Network, Problem, ShapeError
from beamforge.classical.bounds import bound, dpc_sum_capacity
from beamforge.classical.linear import RZF
from beamforge.classical.sum_rate.mimo_wmmse import ReducedMimoWMMSE
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.core.constraints import PerAntennaPower, PerTransmitterPower, SinrAtLeast, TotalPower
from beamforge.core.utilities import MinRate, MinSinr, SumRate, TransmitPower
from beamforge.optim.simplex import simplex_maximum

SIZES = [(2, 4), (4, 4), (5, 3)]


def broadcast(H, noise=1.0):
    return Network.broadcast(torch.as_tensor(H), noise)


def cvxpy_capacity(H, power, weights):
    """The dual multiple-access channel as a semidefinite-representable problem, in N x N matrices."""
    order = np.argsort(-weights)
    steps = weights[order] - np.append(weights[order][1:], 0)
    q = cvxpy.Variable(len(H), nonneg=True)
    value, covariance = 0, np.eye(H.shape[1])
    for k, step in zip(order, steps, strict=True):
        covariance = covariance + q[k] * np.outer(H[k].conj(), H[k])
        value = value + step * cvxpy.log_det(covariance)
    program = cvxpy.Problem(cvxpy.Maximize(value), [cvxpy.sum(q) == power])
    program.solve(solver=cvxpy.CLARABEL)
    return program.value / np.log(2)


def jindal_capacity(H, power, steps=2000):
    """Sum-power iterative water-filling with averaging (Jindal et al. 2005, Algorithm 2)."""
    K = len(H)
    q = np.full(K, power / K)
    for _ in range(steps):
        gains = np.empty(K)
        for k in range(K):
            rest = sum(q[j] * np.outer(H[j].conj(), H[j]) for j in range(K) if j != k) + np.eye(H.shape[1])
            gains[k] = (H[k] @ np.linalg.solve(rest, H[k].conj())).real
        q = water_filling(gains, power) / K + (K - 1) * q / K
    return np.linalg.slogdet(np.eye(H.shape[1]) + (H.conj().T * q) @ H)[1] / np.log(2)


@pytest.mark.parametrize(("K", "N"), SIZES)
def test_weighted_capacity_agrees_with_cvxpy(K, N):
    H, weights = channels(2, K, N, seed=1), np.random.default_rng(1).uniform(0, 2, (2, K))
    weights[1, 0] = 0
    ours = dpc_sum_capacity(broadcast(H), 5.0, torch.as_tensor(weights))
    theirs = [cvxpy_capacity(H[b], 5.0, weights[b]) for b in range(2)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(("K", "N"), SIZES)
def test_capacity_agrees_with_iterative_water_filling(K, N):
    H = channels(K, N, seed=2)
    ours = dpc_sum_capacity(broadcast(H), 10.0)
    assert ours == pytest.approx(jindal_capacity(H, 10.0), rel=1e-7)


def test_one_user_and_orthogonal_users_have_closed_forms():
    H = channels(6, 1, 3)
    alone = np.log2(1 + 2.0 * (np.abs(H) ** 2).sum((1, 2)) / 0.3)
    np.testing.assert_allclose(dpc_sum_capacity(broadcast(H, 0.3), 2.0), alone, rtol=1e-8)
    gains, weights = np.array([4.0, 0.02, 1.0, 30.0]), np.array([1.0, 3.0, 0.5, 2.0])
    for power in (0.01, 1.0, 1e4):
        p = water_filling(gains, power, weights)
        ours = dpc_sum_capacity(broadcast(np.diag(np.sqrt(gains)) + 0j), power, torch.as_tensor(weights))
        assert ours == pytest.approx((weights * np.log2(1 + gains * p)).sum(), rel=1e-8)


@pytest.mark.parametrize("snr_db", [-20, 0, 20, 50])
@pytest.mark.parametrize(("K", "N"), SIZES)
def test_no_beams_exceed_it(K, N, snr_db):
    H, weights = channels(8, K, N, seed=3), torch.rand(8, K, dtype=torch.float64)
    problem = Problem(SumRate(weights), (TotalPower(10 ** (snr_db / 10)),))
    W = ReducedWMMSE(tolerance=1e-6, starts=5).solve(problem, broadcast(H)).W
    reached = (np.asarray(weights) * rates(H, W, 1.0)).sum(-1)
    above = np.asarray(bound(problem, broadcast(H)))
    assert (above >= reached * (1 - 1e-12)).all()
    assert (above <= np.minimum(reached * 2, reached + 4 * K)).all()  # the bound is not trivial


def test_capacity_grows_with_power_and_does_not_depend_on_units():
    H = channels(1, 5, 4, seed=4)
    powers = torch.logspace(-6, 6, 40, dtype=torch.float64)
    found = dpc_sum_capacity(Network.broadcast(torch.as_tensor(H).expand(40, 5, 4), 1.0), powers)
    assert (found.diff() > 0).all()
    scaled = Network.broadcast(torch.as_tensor(H).expand(40, 5, 4) * 1e-7, 1e-14)
    torch.testing.assert_close(dpc_sum_capacity(scaled, powers), found, rtol=1e-8, atol=0)


def test_users_without_a_channel_and_other_instances_change_nothing():
    H = channels(3, 4, 4, seed=5)
    H[1] *= 1e6
    found = dpc_sum_capacity(broadcast(H), 10.0)
    torch.testing.assert_close(found[:1], dpc_sum_capacity(broadcast(H[:1]), 10.0), rtol=1e-12, atol=0)
    silent = np.concatenate([H, np.zeros((3, 2, 4))], 1)
    torch.testing.assert_close(dpc_sum_capacity(broadcast(silent), 10.0), found, rtol=1e-8, atol=0)
    assert dpc_sum_capacity(broadcast(np.zeros((2, 3)) + 0j), 1.0).item() == pytest.approx(0, abs=1e-12)


def test_single_precision_is_rounded_upward():
    H = torch.as_tensor(channels(64, 4, 4, seed=6)).to(torch.complex64)
    exact = dpc_sum_capacity(Network.broadcast(H.to(torch.complex128), 1.0), 100.0)
    single = dpc_sum_capacity(Network.broadcast(H, 1.0), 100.0)
    assert single.dtype == torch.float32
    assert (single.double() >= exact * (1 - 1e-9)).all()
    torch.testing.assert_close(single.double(), exact, rtol=3e-7, atol=0)


def test_an_interrupted_maximum_is_still_a_bound():
    gains = torch.tensor([[5.0, 1.0, 0.3]], dtype=torch.float64)

    def parallel(gains, x):
        heard = 1 + gains * x
        return heard.log().sum(-1), gains / heard, torch.diag_embed((gains / heard).square())

    truth = np.log1p(np.asarray(gains[0]) * water_filling(np.asarray(gains[0]), 1.0)).sum()
    start, zero = torch.tensor([[0.01, 0.04, 0.95]], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    found = [simplex_maximum(parallel, gains, start, zero, steps).bound.item() for steps in range(16)]
    assert all(value >= truth * (1 - 1e-12) for value in found)
    assert (np.diff(found) <= 0).all()
    assert found[0] > truth + 0.1
    assert found[-1] == pytest.approx(truth, rel=1e-9)


# --- other questions -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "limit", [TotalPower(3.0), PerTransmitterPower(2.0), PerAntennaPower(0.7)], ids=lambda x: type(x).__name__
)
def test_bounds_hold_for_several_transmitters(limit):
    H = torch.as_tensor(channels(32, 2, 4, 3, seed=7))
    network = Network.multicell(H, 0.1, torch.tensor([0, 0, 1, 1]))
    for goal in (SumRate(), MinRate(torch.tensor([1.0, 2.0, 1.0, 1.0], dtype=torch.float64)), MinSinr(2.0)):
        problem = Problem(goal, (limit,)).bind(network)
        above = bound(problem, network)
        assert torch.isfinite(above).all()
        assert (above >= problem.value(network, RZF().solve(problem, network).W)).all()


def test_cells_without_mutual_interference_reach_the_bound():
    H = torch.zeros(2, 2, 3, dtype=torch.complex128)
    H[0, 0], H[1, 1] = torch.as_tensor(channels(3)), torch.as_tensor(channels(3, seed=1))
    gains = np.array([np.linalg.norm(H[0, 0]) ** 2, np.linalg.norm(H[1, 1]) ** 2]) / 0.5
    network = Network.interference(H, 0.5)
    each = bound(Problem(SumRate(), (PerTransmitterPower(torch.tensor([1.0, 3.0], dtype=torch.float64)),)), network)
    assert each.item() == pytest.approx(np.log2(1 + gains * [1, 3]).sum(), rel=1e-8)
    total = bound(Problem(SumRate(), (TotalPower(4.0),)), network)
    assert total.item() == pytest.approx(np.log2(1 + gains * water_filling(gains, 4.0)).sum(), rel=1e-8)


def uplink_sinr(H, q):
    """SINRs of the uplink from their definition, one user at a time."""
    found = []
    for k in range(len(H)):
        rest = sum(q[j] * np.outer(H[j].conj(), H[j]) for j in range(len(H)) if j != k) + np.eye(H.shape[1])
        found.append(q[k] * (H[k] @ np.linalg.solve(rest, H[k].conj())).real)
    return np.array(found)


@pytest.mark.parametrize("snr_db", [0, 30])
def test_least_rate_and_sinr_are_those_of_a_grid_of_uplink_powers(snr_db):
    H, power, a = channels(2, 3, seed=8), 10 ** (snr_db / 10), np.array([1.0, 2.5])
    grid = [uplink_sinr(H, power * np.array([s, 1 - s])) for s in np.linspace(1e-4, 1 - 1e-4, 20001)]
    rate = np.max(np.min(a * np.log2(1 + np.array(grid)), 1))
    sinr = np.max(np.min(np.array(grid) / a, 1))
    limits, weights = (TotalPower(power),), torch.as_tensor(a)
    assert bound(Problem(MinRate(weights), limits), broadcast(H)).item() == pytest.approx(rate, rel=2e-4)
    assert bound(Problem(MinSinr(weights), limits), broadcast(H)).item() == pytest.approx(sinr, rel=2e-3)
    H[1] = 0
    assert bound(Problem(MinRate(), limits), broadcast(H)) == 0


def test_least_power_is_exact_for_orthogonal_users_and_below_that_of_any_beams():
    gains, target = np.array([4.0, 0.5, 1.0]), np.array([1.0, 3.0, 0.2])
    problem = Problem(TransmitPower(), (SinrAtLeast(torch.as_tensor(target)),))
    below = bound(problem, broadcast(np.diag(np.sqrt(gains)) + 0j, 0.1))
    assert below.item() == pytest.approx((0.1 * target / gains).sum(), rel=1e-6)
    H = channels(4, 3, 3, seed=9)
    below = bound(problem, broadcast(H, 0.1))
    for b in range(4):
        W = cvxpy.Variable((3, 3), complex=True)
        A = H[b] @ W
        cones = [
            cvxpy.norm(cvxpy.hstack([A[k, j] for j in range(3) if j != k] + [0.1**0.5]))
            <= cvxpy.real(A[k, k]) / target[k] ** 0.5
            for k in range(3)
        ]
        program = cvxpy.Problem(
            cvxpy.Minimize(cvxpy.sum_squares(W)), cones + [cvxpy.imag(A[k, k]) == 0 for k in range(3)]
        )
        program.solve(solver=cvxpy.CLARABEL)
        assert below[b].item() == pytest.approx(program.value, rel=1e-5)


def test_unknown_bounds_are_infinite_and_several_transmitters_have_no_capacity():
    assert bound(Problem(SumRate()), broadcast(channels(2, 2))) == torch.inf
    with pytest.raises(ShapeError, match="one transmitter, got 2"):
        dpc_sum_capacity(Network.interference(torch.as_tensor(channels(2, 2, 3)), 1.0), 1.0)


# --- streams and antennas beyond one per user ------------------------------------------------------------------------
def test_rates_with_several_antennas_are_below_the_bound_and_one_user_reaches_it():
    H = torch.as_tensor(channels(5, 6, 4, seed=3))
    network = Network.broadcast(H, torch.tensor([0.1, 0.5, 0.02], dtype=torch.float64), receive_antennas=2)
    for weights in ([1.0, 1.0, 1.0], [3.0, 0.5, 1.0], [0.0, 2.0, 0.0]):
        problem = Problem(SumRate(torch.tensor(weights, dtype=torch.float64)), (TotalPower(2.0),))
        above = bound(problem, network)
        reached = (torch.tensor(weights) * network.rate(ReducedMimoWMMSE().solve(problem, network).W)).sum(-1)
        assert (reached <= above).all()
        if sum(weight > 0 for weight in weights) == 1:
            torch.testing.assert_close(reached, above, rtol=1e-4, atol=0)
            gains = np.linalg.svd(H[0, 2:4].numpy(), compute_uv=False) ** 2 / 0.5
            capacity = np.log2(1 + gains * water_filling(gains, 2.0)).sum()
            assert above[0].item() == pytest.approx(2 * capacity, rel=1e-7)
    assert bound(Problem(MinRate(), (TotalPower(2.0),)), network).isposinf().all()
    targets = Problem(TransmitPower(), (SinrAtLeast(1.0),))
    assert bound(targets, network).isneginf().all()
    with pytest.raises(ShapeError, match="one antenna each"):
        dpc_sum_capacity(network, 1.0)


@pytest.mark.parametrize("goal", [SumRate(), MinRate(), MinSinr()])
def test_bounds_do_not_depend_on_streams_without_data_and_stream_order(goal):
    H = torch.as_tensor(channels(2, 3, 4, seed=4))
    problem = Problem(goal, (TotalPower(2.0),))
    usual = bound(problem, broadcast(H, 0.1))
    for order in ([0, 1, 2, -1], [2, 0, 1], [0, 0, 1, 2, -1]):
        again = bound(problem, Network.broadcast(H, 0.1, stream_user=torch.tensor(order)))
        torch.testing.assert_close(again, usual, rtol=1e-6, atol=0)


def test_bounds_of_several_transmitters_do_not_depend_on_streams_without_data():
    H, problem = torch.as_tensor(channels(2, 2, 3, 4, seed=5)), Problem(SumRate(), (PerTransmitterPower(1.0),))
    usual = bound(problem, Network.multicell(H, 0.1, torch.tensor([0, 1, 1])))
    sensing = Network.multicell(H, 0.1, torch.tensor([0, 1, 1, 0]))
    moved = Network.multicell(H, 0.1, torch.tensor([1, 0, 1]), torch.tensor([2, 0, 1]))
    torch.testing.assert_close(bound(problem, sensing), usual)
    torch.testing.assert_close(bound(problem, moved), usual)
    least = Problem(MinRate(), (PerTransmitterPower(1.0),))
    torch.testing.assert_close(bound(least, sensing), bound(least, Network.multicell(H, 0.1, torch.tensor([0, 1, 1]))))
    assert bound(least, moved).isposinf().all()
