"""Branch and bound: grids of uplink powers, closed forms, comparison with local optima, validity of the bounds."""

import numpy as np
import pytest
import torch
from oracles import channels, rates, water_filling

from beamforge import ConfigError, Network, Problem, Status, UnsupportedProblem
from beamforge.classical.bounds import dpc_sum_capacity
from beamforge.classical.sum_rate.branch_and_bound import BranchAndBound
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.core.constraints import TotalPower
from beamforge.core.utilities import SumRate


def solve(H, power, weights=1.0, noise=1.0, **settings):
    """Solution, weighted sum rate by NumPy, and bound for broadcast channels H [B, K, N]."""
    weights = torch.as_tensor(weights, dtype=torch.as_tensor(H).real.dtype)
    problem, network = Problem(SumRate(weights), (TotalPower(power),)), Network.broadcast(torch.as_tensor(H), noise)
    solution = BranchAndBound(**settings).solve(problem, network)
    rate = (np.asarray(weights) * rates(H, solution.W, noise)).sum(-1)
    return solution, rate, np.asarray(solution.info["bound"])


def uplink_rates(H, q):
    """Rates ``log2 det M - log2 det M_k`` [n, K] at uplink powers q [n, K], in N x N matrices."""
    outer = H.conj()[:, :, None] * H[:, None, :]
    M = np.eye(H.shape[1]) + np.einsum("nk,kab->nab", q, outer)
    rest = M[:, None] - q[..., None, None] * outer
    return (np.linalg.slogdet(M)[1][:, None] - np.linalg.slogdet(rest)[1]) / np.log(2)


def simplex_grid(K, steps):
    """Points of the simplex; ratios to the largest coordinate are cubes of a regular grid, dense near the faces."""
    axes = np.meshgrid(*[np.linspace(0, 1, steps)] * (K - 1), indexing="ij")
    others = np.stack([axis.ravel() for axis in axes], -1)
    points = np.concatenate([np.insert(others, k, 1, axis=-1) for k in range(K)]) ** 3
    return points / points.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("K", "N", "snr_db", "steps"), [(2, 2, 0, 4001), (2, 3, 30, 4001), (3, 3, 10, 101), (3, 2, 25, 101)]
)
def test_the_best_grid_point_is_reached_and_below_the_bound(K, N, snr_db, steps):
    H, power = channels(4, K, N, seed=K), 10 ** (snr_db / 10)
    weights = np.random.default_rng(N).uniform(0.5, 2, (4, K))
    solution, rate, bound = solve(H, power, weights)
    best = np.array([(uplink_rates(H[b], power * simplex_grid(K, steps)) @ weights[b]).max() for b in range(4)])
    assert (solution.status == Status.CONVERGED).all()
    assert (best <= bound).all()
    assert (rate >= best * (1 - 1e-4)).all()
    np.testing.assert_allclose(best, rate, rtol=2e-3)  # the grid is fine enough


@pytest.mark.parametrize(("K", "N", "snr_db"), [(3, 3, 20), (4, 4, 10), (4, 3, 0)])
def test_it_is_at_least_thirty_starts_of_wmmse_within_the_gap_and_uses_the_power(K, N, snr_db):
    H, power = channels(10, K, N, seed=11), 10 ** (snr_db / 10)
    solution, rate, bound = solve(H, power)
    problem, network = Problem(SumRate(), (TotalPower(power),)), Network.broadcast(torch.as_tensor(H), 1.0)
    local = rates(H, ReducedWMMSE(starts=30, tolerance=1e-6).solve(problem, network).W, 1.0).sum(-1)
    assert (rate >= local * (1 - 1e-6)).all()
    assert (bound >= rate).all() and (bound <= rate * (1 + 1.001e-4)).all()
    assert (bound <= np.asarray(dpc_sum_capacity(network, power)) * (1 + 1e-8)).all()
    spent = solution.W.abs().square().sum((-2, -1))
    torch.testing.assert_close(spent, torch.full_like(spent, power))


def test_it_leaves_a_poor_local_optimum():
    H = channels(1, 3, 3, seed=2)
    network, problem = Network.broadcast(torch.as_tensor(H), 1.0), Problem(SumRate(), (TotalPower(100.0),))
    poor = torch.zeros(1, 3, 3, dtype=torch.complex128)
    poor[0, :, 0] = torch.as_tensor(H[0, 0]).conj()  # only the first user has power
    solution = BranchAndBound().solve(problem, network, start=poor)
    trapped = rates(H, ReducedWMMSE().solve(problem, network, start=poor).W, 1.0).sum(-1)
    free = rates(H, ReducedWMMSE(starts=30).solve(problem, network).W, 1.0).sum(-1)
    reached = rates(H, solution.W, 1.0).sum(-1)
    assert trapped < 0.9 * free
    assert reached >= free * (1 - 1e-6)
    assert (solution.trace.diff() >= 0).all()


def test_one_user_and_orthogonal_users_have_closed_forms():
    H = channels(3, 1, 4)
    _, rate, bound = solve(H, 2.0)
    alone = np.log2(1 + 2 * (np.abs(H) ** 2).sum((1, 2)))
    np.testing.assert_allclose(rate, alone, rtol=1e-12)
    np.testing.assert_allclose(bound, alone, rtol=1e-7)
    gains, weights = np.array([9.0, 0.05, 1.0, 2.0]), np.array([1.0, 1.0, 2.0, 0.3])
    for power in (0.1, 3.0, 1000.0):
        _, rate, bound = solve(np.diag(np.sqrt(gains))[None] + 0j, power, weights)
        best = (weights * np.log2(1 + gains * water_filling(gains, power, weights))).sum()
        assert rate == pytest.approx(best, rel=1e-6)
        assert best * (1 - 1e-12) <= bound <= best * (1 + 1e-6)


def test_the_bound_is_valid_and_decreases_for_any_number_of_cells():
    H = channels(2, 4, 4, seed=5)
    _, best, _ = solve(H, 100.0)
    bounds = []
    for cells in (1, 10, 100, 1000):
        solution, rate, bound = solve(H, 100.0, gap=1e-3, max_cells=cells)
        assert (solution.info["cells"] <= cells).all()
        assert (
            (solution.status == Status.CONVERGED) == (torch.as_tensor(bound) <= torch.as_tensor(rate) * 1.001)
        ).all()
        bounds.append(bound)
    assert (np.diff(bounds, axis=0) <= 0).all()
    assert (np.array(bounds) >= best).all()
    assert (bounds[0] > best * 1.01).all()
    assert (solve(H, 100.0, max_cells=1)[0].status == Status.MAX_ITERATIONS).all()


def test_degenerate_channels_are_solved_and_do_not_affect_others():
    H = channels(5, 3, 3, seed=6)
    H[1] = 0
    H[2, 1] = H[2, 0]  # parallel users
    H[3, 2] = 0
    H[4] *= 1e-9
    solution, rate, bound = solve(H, 10.0)
    assert (solution.status == Status.CONVERGED).all()
    assert rate[1] == 0 and bound[1] == 0
    two = solve(H[3:4, :2], 10.0)
    assert rate[3] == pytest.approx(two[1][0], rel=1e-3)
    for b in range(5):
        _, alone, above = solve(H[b : b + 1], 10.0)
        assert rate[b] == pytest.approx(alone[0], rel=1e-9, abs=1e-12)
        assert bound[b] == pytest.approx(above[0], rel=1e-9, abs=1e-12)


def test_scaling_the_noise_with_the_channel_changes_nothing():
    H = channels(3, 3, 4, seed=7)
    _, rate, bound = solve(H, 10.0)
    _, scaled, above = solve(H * 1e-5, 10.0, noise=1e-10)
    np.testing.assert_allclose(scaled, rate, rtol=1e-8)
    np.testing.assert_allclose(above, bound, rtol=1e-8)


def test_single_precision_in_and_out():
    H = torch.as_tensor(channels(4, 3, 3, seed=8)).to(torch.complex64)
    solution, rate, bound = solve(H, 30.0)
    assert solution.W.dtype == torch.complex64 and solution.info["bound"].dtype == torch.float32
    _, exact, _ = solve(H.to(torch.complex128), 30.0)
    np.testing.assert_allclose(rate, exact, rtol=1e-5)
    assert (bound >= exact * (1 - 1e-6)).all()


def test_too_many_users_and_impossible_settings_are_refused():
    with pytest.raises(UnsupportedProblem):
        solve(channels(1, 6, 6), 1.0)
    with pytest.raises(ConfigError, match="gap"):
        BranchAndBound(gap=0.0)
    with pytest.raises(ConfigError, match="max_cells"):
        BranchAndBound(max_cells=0)
