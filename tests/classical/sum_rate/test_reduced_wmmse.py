"""Reduced WMMSE: known optima, stationarity, monotonicity, degenerate channels, published rates."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import channels, rates, water_filling

import beamforge
from beamforge import ConfigError, Network, Problem, Status
from beamforge.checks import check_solver
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.core.constraints import TotalPower
from beamforge.core.utilities import SumRate

SIZES = [(4, 8), (6, 6), (7, 4)]


def total(H, W, noise, weights=1.0):
    return (np.asarray(weights) * rates(H, W, noise)).sum(-1)


@pytest.mark.parametrize(
    "settings",
    [
        {"acceleration": "none", "starts": 1, "gradient": "unrolled"},
        {"acceleration": "anderson", "gradient": "unrolled"},
    ],
)
def test_conformance(settings):
    check_solver(ReducedWMMSE(**settings))


@pytest.mark.parametrize(("K", "N"), SIZES)
def test_the_rate_never_decreases_the_power_is_used_and_the_trace_is_the_rate(K, N):
    H = torch.as_tensor(channels(8, K, N))
    solver = ReducedWMMSE(acceleration="none", starts=1, max_iterations=80, tolerance=0.0)
    problem, network = Problem(SumRate(), (TotalPower(1.0),)), Network.broadcast(H, 0.05)
    solution = solver.solve(problem, network)
    assert (np.diff(solution.trace) > -1e-10).all()
    np.testing.assert_allclose(solution.W.abs().square().sum((-2, -1)), 1, rtol=1e-12)
    one_less = ReducedWMMSE(acceleration="none", starts=1, max_iterations=79, tolerance=0.0).solve(problem, network)
    np.testing.assert_allclose(solution.trace[:, -1], total(H, one_less.W, 0.05), rtol=1e-10)


@pytest.mark.parametrize(("K", "N"), SIZES)
@pytest.mark.parametrize("acceleration", ["none", "squarem", "anderson"])
def test_the_solution_is_stationary(K, N, acceleration):
    """On the sphere |W|^2 = P the Euclidean gradient of the weighted sum rate is a multiple of W."""
    H = torch.as_tensor(channels(6, K, N, seed=2))
    weights = torch.linspace(0.5, 2.0, K, dtype=torch.float64)
    noise = torch.linspace(0.02, 0.2, K, dtype=torch.float64)
    settings = {"acceleration": acceleration, "tolerance": 1e-14, "max_iterations": 5000}
    W = beamforge.solve(H, noise=noise, p_max=3.0, weights=weights, **settings).W.requires_grad_()
    (Network.broadcast(H, noise).rate(W) * weights).sum().backward()
    gradient, beams = W.grad.flatten(1), W.detach().flatten(1)
    along = (beams.conj() * gradient).sum(-1, keepdim=True).real / 3.0
    assert (along > 0).all()
    assert (gradient - along * beams).norm(dim=-1).max() < 1e-4 * gradient.norm(dim=-1).max()


def test_one_user_gets_maximum_ratio_transmission():
    H = channels(5, 1, 4)
    W = beamforge.solve(torch.as_tensor(H), noise=0.1, p_max=2.0).W
    gain = (np.abs(H) ** 2).sum((-2, -1))
    np.testing.assert_allclose(total(H, W, 0.1), np.log2(1 + 2 * gain / 0.1), rtol=1e-10)


@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5, 2.0]])
def test_orthogonal_users_get_water_filling(weights):
    gains = np.array([4.0, 1.0, 0.3, 0.05])
    H = np.diag(np.sqrt(gains)).astype(complex)[None]
    expected = water_filling(gains / 0.1, 1.0, weights)
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    W = beamforge.solve(torch.as_tensor(H), noise=0.1, p_max=1.0, weights=given, tolerance=1e-14).W
    np.testing.assert_allclose(np.diag(W[0].abs().square()), expected, atol=2e-4)
    best = (np.ones(4) if weights is None else weights) @ np.log2(1 + expected * gains / 0.1)
    np.testing.assert_allclose(total(H, W, 0.1, weights or 1.0), best, rtol=1e-8)


def test_two_users_reach_the_best_point_of_a_grid():
    """The optimum has the form of structure.directions with mu and p on a simplex: scan both for two users."""
    H = torch.as_tensor(channels(20, 2, 2, seed=4))
    found = beamforge.solve(H, noise=0.05, p_max=1.0).W
    share = torch.linspace(0, 1, 101, dtype=torch.float64)
    mu, p = torch.meshgrid(share, share, indexing="ij")
    mu, p = (torch.stack([x.flatten(), 1 - x.flatten()], -1) for x in (mu, p))
    best = np.zeros(20)
    for b in range(20):
        h = np.asarray(H[b] / 0.05**0.5)
        shape = np.linalg.inv(np.eye(2) + np.asarray(mu)[:, :, None] * (h @ h.conj().T))
        V = h.conj().T @ shape
        V = V / np.linalg.norm(V, axis=-2, keepdims=True) * np.sqrt(np.asarray(p))[:, None, :]
        best[b] = rates(np.broadcast_to(np.asarray(H[b]), (len(V), 2, 2)), V, 0.05).sum(-1).max()
    assert (total(H, found, 0.05) > best - 1e-3).all()


def test_a_common_scale_of_channels_noise_and_power_changes_nothing():
    H = torch.as_tensor(channels(4, 5, 5))
    W = beamforge.solve(H, noise=0.1, p_max=1.0).W
    scaled = beamforge.solve(H * 1e3, noise=0.1 * 1e6 * 4, p_max=4.0).W
    torch.testing.assert_close(scaled, 2 * W, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "close"), [(torch.complex64, 2e-5), (torch.complex128, 1e-12)])
@pytest.mark.parametrize("scale", [1e-14, 1e-7, 1e6])
def test_gains_of_any_size(dtype, close, scale):
    H = torch.as_tensor(channels(6, 5, 5)).to(dtype)
    reference, there = (
        total(x.to(torch.complex128), beamforge.solve(x, noise=n, p_max=1.0).W, n)
        for x, n in ((H, 0.01), (H * scale, 0.01 * scale**2))
    )
    np.testing.assert_allclose(there, reference, rtol=close)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_degenerate_channels_are_solved(dtype):
    """Rank one, parallel users, one user or all users without a channel, 80 dB: at least the best single user."""
    H = torch.as_tensor(channels(6, 4, 4, seed=9))
    H[0] = H[0, :1] * torch.tensor([1.0, 2.0, 0.5, 1.0])[:, None]
    H[1, 1] = H[1, 0] * (1 + 1e-6)
    H[2, 3] = 0
    H[3] = 0
    H[4] = H[4] * 1e4
    H = H.to(dtype)
    solution = beamforge.solve(H, noise=0.1, p_max=1.0)
    assert (solution.status == Status.CONVERGED).all()
    found = rates(H, solution.W, 0.1)
    single = np.log2(1 + (H.abs() ** 2).sum(-1).amax(-1).numpy() / 0.1)
    assert (found.sum(-1) >= single * (1 - 1e-5)).all()
    np.testing.assert_allclose(found[0].sum(), single[0], rtol=1e-5)  # one beam is the optimum of a rank-one channel
    assert found[2, 3] == 0
    without = beamforge.solve(H[2, :3], noise=0.1, p_max=1.0)
    np.testing.assert_allclose(found[2].sum(), rates(H[2:3, :3], without.W[None], 0.1).sum(), rtol=1e-4)
    assert (found[3] == 0).all()


def test_a_weight_of_zero_switches_a_user_off():
    H = torch.as_tensor(channels(4, 3, 3))
    weights = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    W = beamforge.solve(H, noise=0.1, p_max=1.0, weights=weights).W
    assert (W[..., 1].abs() < 1e-6).all()
    others = beamforge.solve(H[:, [0, 2]], noise=0.1, p_max=1.0, weights=weights[[0, 2]]).W
    np.testing.assert_allclose(total(H, W, 0.1, weights), total(H[:, [0, 2]], others, 0.1, weights[[0, 2]]), rtol=1e-6)


def test_more_starts_are_never_worse_and_a_given_start_is_used():
    H = torch.as_tensor(channels(30, 8, 8))
    best = [total(H, beamforge.solve(H, noise=0.01, p_max=1.0, starts=n).W, 0.01) for n in (1, 2, 4, 8)]
    for fewer, more in itertools.pairwise(best):
        assert (more >= fewer * (1 - 1e-7)).all()
    assert best[-1].mean() > best[0].mean() * 1.002
    again = beamforge.solve(H, noise=0.01, p_max=1.0, start=beamforge.solve(H, noise=0.01, p_max=1.0).W)
    np.testing.assert_allclose(total(H, again.W, 0.01), best[1], rtol=1e-6)
    assert again.iterations.double().mean() < 4


def test_random_starts_come_from_the_generator_and_permute_with_the_users():
    H = torch.as_tensor(channels(10, 12, 12))
    order = torch.tensor([3, 5, 0, 4, 1, 2, 11, 6, 10, 7, 9, 8])

    def run(H, seed):
        generator = torch.Generator().manual_seed(seed)
        return beamforge.solve(H, noise=0.01, p_max=1.0, starts=6, generator=generator).W

    torch.testing.assert_close(run(H, 1), run(H, 1), rtol=0, atol=0)
    assert not torch.allclose(run(H, 1), run(H, 2))
    moved, still = run(H[:, order], 1), run(H, 1)[..., order]
    np.testing.assert_allclose(rates(H[:, order], moved, 0.01), rates(H[:, order], still, 0.01), atol=1e-3)


# --- high SNR --------------------------------------------------------------------------------------------------------
def line_of_sight(B, K, N, seed=0):
    """Half-wavelength array, users of unequal gains at random angles: many have nearly the same direction."""
    rng = np.random.default_rng(seed)
    angle, gain = rng.uniform(-1, 1, (B, K, 1)), np.exp(rng.standard_normal((B, K, 1)))
    return gain * np.exp(1j * np.pi * np.arange(N) * np.sin(angle))


HIGH = [("rayleigh", 4, 4, 40), ("rayleigh", 4, 4, 70), ("rayleigh", 4, 8, 60), ("rayleigh", 8, 8, 80)]
HIGH += [("rayleigh", 16, 16, 100), ("rayleigh", 6, 4, 70), ("line", 8, 16, 60), ("line", 8, 8, 90)]


@pytest.mark.parametrize(("kind", "K", "N", "snr_db"), HIGH)
@pytest.mark.parametrize(("dtype", "slack"), [(torch.complex64, 3e-6), (torch.complex128, 1e-9)])
def test_never_below_a_closed_form_at_any_snr(kind, K, N, snr_db, dtype, slack):
    H = torch.as_tensor(channels(20, K, N) if kind == "rayleigh" else line_of_sight(20, K, N)).to(dtype)
    noise = 10 ** (-snr_db / 10)
    solution = beamforge.solve(H, noise=noise, p_max=1.0)
    found = total(H, solution.W, noise)
    assert (solution.status == Status.CONVERGED).all()
    for other in ("rzf", "zf", "mrt", "multipliers"):
        theirs = total(H, beamforge.solve(H, noise=noise, p_max=1.0, method=other).W, noise)
        assert (found >= theirs * (1 - slack)).all(), f"{other}: {(theirs / found).max() - 1:.1e} above"


@pytest.mark.parametrize(("kind", "K", "N", "snr_db"), HIGH)
def test_converged_means_that_the_gradient_along_the_limit_is_zero(kind, K, N, snr_db):
    """In nats per relative change of the norm of a beam: unlike small steps, this cannot be due to slow convergence."""
    H = torch.as_tensor(channels(10, K, N) if kind == "rayleigh" else line_of_sight(10, K, N))
    noise = 10 ** (-snr_db / 10)
    solution = beamforge.solve(H, noise=noise, p_max=1.0)
    length = torch.ones(10, K, dtype=torch.float64, requires_grad=True)
    W = solution.W * length.unsqueeze(-2)
    W = W / W.abs().square().sum((-2, -1), keepdim=True).sqrt()
    Network.broadcast(H, noise).rate(W).sum().backward()
    assert length.grad.abs().max() < 2e-3


def test_single_precision_converges_to_the_result_of_double():
    for K, N, snr_db in ((4, 4, 70), (8, 8, 40), (16, 16, 100)):
        H = torch.as_tensor(channels(20, K, N)).to(torch.complex64)
        noise = 10 ** (-snr_db / 10)
        single = total(H, beamforge.solve(H, noise=noise, p_max=1.0).W, noise)
        H = H.to(torch.complex128)
        double = total(H, beamforge.solve(H, noise=noise, p_max=1.0).W, noise)
        np.testing.assert_allclose(single.mean(), double.mean(), rtol=2e-4)


def test_few_users_reach_the_best_subset():
    """Line of sight at 40 dB: compared with the best of Newton's method or zero forcing over all subsets of users."""
    H = torch.as_tensor(line_of_sight(30, 4, 8, seed=1))
    found, best = total(H, beamforge.solve(H, noise=1e-4, p_max=1.0).W, 1e-4), np.zeros(30)
    for size in range(1, 5):
        for users in itertools.combinations(range(4), size):
            some = H[:, list(users)]
            best = np.maximum(best, total(some, beamforge.solve(some, noise=1e-4, p_max=1.0, method="rzf").W, 1e-4))
    assert (found >= best * (1 - 1e-9)).all()


def test_identical_users_with_total_power():
    H = torch.as_tensor(channels(10, 3, 8)).repeat_interleave(2, 1)
    found = total(H, beamforge.solve(H, noise=0.01, p_max=1.0).W, 0.01)
    one_each = total(H[:, ::2], beamforge.solve(H[:, ::2], noise=0.01, p_max=1.0).W, 0.01)
    np.testing.assert_allclose(found, one_each, rtol=1e-6)


def test_no_starts_are_refused():
    with pytest.raises(ConfigError, match="starts must be at least 1"):
        ReducedWMMSE(starts=0)


PEERS = os.environ.get("BEAMFORGE_PEERS", "")
FLOOR = {0: (12.12, 12.12), 5: (22.05, 22.06), 10: (35.45, 35.55), 15: (51.75, 52.0), 20: (70.2, 70.9)}


@pytest.mark.skipif(not PEERS, reason="BEAMFORGE_PEERS does not name a folder with johnston_n16k16.npz")
@pytest.mark.parametrize("snr_db", FLOOR)
def test_published_channels(snr_db):
    with np.load(Path(PEERS) / "johnston_n16k16.npz", allow_pickle=False) as file:
        H = file["H"]
    for starts, floor in zip((3, 5), FLOOR[snr_db], strict=True):
        noise = 10 ** (-snr_db / 10)
        W = beamforge.solve(torch.as_tensor(H), noise=noise, p_max=1.0, starts=starts).W
        assert total(H, W, noise).mean() >= floor
