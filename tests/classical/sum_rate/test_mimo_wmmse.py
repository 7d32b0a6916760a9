"""Users with several antennas: the textbook iteration, properties of a step, closed form, bound, and files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from oracles_sumrate import mimo_rate, textbook_mimo_wmmse

from beamforge import Network, Problem, solve
from beamforge.classical.bounds import bound
from beamforge.classical.sum_rate.block_diagonalisation import RegularisedBlockDiagonalisation
from beamforge.classical.sum_rate.mimo_wmmse import ReducedMimoWMMSE, respond
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.classical.sum_rate.user_streams import UserStreams
from beamforge.cli import main
from beamforge.core.constraints import TotalPower
from beamforge.core.observation import Observation
from beamforge.core.utilities import MinRate, SumRate

PROBLEM = Problem(SumRate(), (TotalPower(1.0),))


def gaussian(*shape, seed=0, dtype=torch.complex128):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def total(network, W):
    return network.rate(W).sum(-1)


@pytest.mark.parametrize(
    ("K", "M", "N", "snr_db"), [(4, 2, 8, 0), (4, 2, 8, 30), (6, 2, 8, 15), (3, 3, 4, 0), (3, 3, 4, 30)]
)
def test_the_textbook_iteration_from_the_same_starts_is_not_better(K, M, N, snr_db):
    count, noise = 5, 10 ** (-snr_db / 10)
    network = Network.broadcast(gaussian(count, K * M, N, seed=K), noise, receive_antennas=M)
    method = ReducedMimoWMMSE()
    found = total(network, method.solve(PROBLEM, network).W).numpy()
    data = method.prepare(PROBLEM.bind(network), Observation(network))
    starts = [method.beams(data, state).numpy() for state in method.init(data, None, None)]
    best = np.zeros(count)
    for b in range(count):
        H, user = network.H[b, 0].reshape(K, M, N).numpy(), network.streams.user[b].numpy()
        noises, ones = np.full(K, noise), np.ones(K)
        ends = [textbook_mimo_wmmse(H, start[b], user, noises, 1.0, ones, 150) for start in starts]
        best[b] = max(mimo_rate(H, W, user, noises, ones) for W in ends)
    assert found.mean() >= 0.998 * best.mean() and (found >= 0.97 * best).all()


def random_question(seed=0):
    """Four instances of three users with two antennas, unequal noise and weights, and beams of power 2."""
    network = Network.broadcast(
        gaussian(4, 6, 5, seed=seed),
        torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.1,
        receive_antennas=2,
    )
    problem = Problem(SumRate(torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)), (TotalPower(2.0),)).bind(network)
    W = gaussian(4, 5, 6, seed=seed + 1)
    return network, problem, W * (2 / W.abs().square().sum((-2, -1)))[:, None, None].sqrt()


def test_a_step_equals_the_textbook_step_with_the_multiplier_in_closed_form():
    network, problem, W = random_question()
    data = UserStreams.of(problem, Observation(network))
    X, rate = respond(data, data.H @ W / 2**0.5)
    found = data.columns(data.H.mH @ X) * 2**0.5
    for b in range(4):
        H, noise = network.H[b, 0].reshape(3, 2, 5).numpy(), network.noise[b].numpy()
        beams, user, weights = W[b].numpy(), network.streams.user[b].numpy(), problem.maximise.weights[b].numpy()
        A, right = np.zeros((5, 5), complex), np.zeros((5, 6), complex)
        for k in range(3):
            mine, heard = user == k, H[k] @ beams
            U = np.linalg.solve(heard @ heard.conj().T + noise[k] * np.eye(2), heard[:, mine])
            Q = weights[k] * np.linalg.inv(np.eye(2) - U.conj().T @ heard[:, mine])
            A += H[k].conj().T @ U @ Q @ U.conj().T @ H[k] + noise[k] * np.trace(U @ Q @ U.conj().T) / 2 * np.eye(5)
            right[:, mine] = H[k].conj().T @ U @ Q
        expected = np.linalg.solve(A, right)
        expected *= np.sqrt(2 / np.sum(np.abs(expected) ** 2))
        np.testing.assert_allclose(found[b], expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(rate[b], mimo_rate(H, beams, user, noise, weights), rtol=1e-9)


def test_plain_steps_never_decrease_the_rate():
    network, problem, W = random_question()
    solution = ReducedMimoWMMSE(acceleration="none", max_iterations=60).solve(problem, network, start=W)
    assert (solution.trace.diff(dim=-1) >= -1e-10).all() and (solution.trace[:, -1] > 1.05 * solution.trace[:, 0]).all()
    weights = problem.maximise.weights
    assert ((weights * network.rate(solution.W)).sum(-1) >= solution.trace[:, -1] - 1e-9).all()


def test_single_antennas_give_the_result_of_the_reduced_wmmse():
    H = gaussian(10, 4, 6)
    plain, order = Network.broadcast(H, 0.05), torch.tensor([3, 0, 1, 2])
    network = Network.broadcast(H, 0.05, stream_user=order)
    found = total(network, ReducedMimoWMMSE().solve(PROBLEM, network).W)
    known = total(plain, ReducedWMMSE().solve(PROBLEM, plain).W)
    assert (found.mean() / known.mean() - 1).abs() < 5e-3


@pytest.mark.parametrize("method", [ReducedMimoWMMSE, RegularisedBlockDiagonalisation])
def test_a_unitary_transform_of_a_user_s_antennas_changes_no_rate(method):
    H = gaussian(4, 3, 2, 6)
    Q, _ = torch.linalg.qr(gaussian(4, 3, 2, 2, seed=1))
    rates = [
        network.rate(method().solve(PROBLEM, network).W)
        for network in (Network.broadcast(h.flatten(1, 2), 0.1, receive_antennas=2) for h in (H, Q @ H))
    ]
    torch.testing.assert_close(*rates, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("K", "M", "N"), [(4, 2, 8), (6, 2, 8), (2, 3, 2)])
def test_order_of_methods_and_the_bound(K, M, N):
    for snr_db in (-5, 10, 25):
        network = Network.broadcast(gaussian(8, K * M, N), 10 ** (-snr_db / 10), receive_antennas=M)
        wmmse = total(network, ReducedMimoWMMSE().solve(PROBLEM, network).W)
        rzf = total(network, RegularisedBlockDiagonalisation().solve(PROBLEM, network).W)
        above = bound(PROBLEM, network)
        assert (rzf <= wmmse * (1 + 1e-6)).all() and (wmmse <= above).all()
        assert rzf.mean() > 0.5 * wmmse.mean()
    assert torch.isinf(bound(Problem(MinRate(), (TotalPower(1.0),)), network)).all()


def test_the_bound_is_reached_by_one_user():
    network = Network.broadcast(gaussian(5, 3, 4), 0.1, receive_antennas=3)
    found = total(network, ReducedMimoWMMSE(tolerance=1e-12).solve(PROBLEM, network).W)
    torch.testing.assert_close(found, bound(PROBLEM, network), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_users_without_a_channel_and_weights_of_zero(dtype):
    H = gaussian(4, 6, 5, dtype=dtype)
    H[0, 2:4] = 0
    H[1] = 0
    network = Network.broadcast(H, 1e-4, receive_antennas=2)
    weights = torch.tensor([1.0, 1.0, 0.0], dtype=H.real.dtype)
    problem = Problem(SumRate(weights), (TotalPower(1.0),))
    for method in (ReducedMimoWMMSE(), RegularisedBlockDiagonalisation()):
        solution = method.solve(problem, network)
        assert solution.solved.all() and torch.isfinite(solution.W.real).all()
    rate = network.rate(ReducedMimoWMMSE().solve(problem, network).W)
    assert (rate[1] == 0).all() and (rate[2:, 2] < 1e-2).all() and (rate[2:, :2] > 1).all()


def test_from_a_file_to_a_file(tmp_path, capsys):
    H = gaussian(4, 3, 2, 8).numpy()
    np.save(tmp_path / "H.npy", H)
    stated = ["--noise", "0.1", "--p-max", "1"]
    arguments = ["solve", str(tmp_path / "H.npy"), "--axes", "BKMN", "--problem", "sum-rate", *stated]
    assert main([*arguments, "--json", "--out", str(tmp_path / "out.npz")]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["read"] == "4 instances of 3 users with 2 antennas each, 8 transmit antennas"
    found = dict(np.load(tmp_path / "out.npz"))
    assert found["W"].shape == (4, 8, 6) and found["stream_user"].tolist() == [0, 0, 1, 1, 2, 2]
    expected = [
        [mimo_rate(H[b], found["W"][b], found["stream_user"], np.full(3, 0.1), np.eye(3)[k]) for k in range(3)]
        for b in range(4)
    ]
    np.testing.assert_allclose(found["rate"], expected, rtol=1e-9)
    assert main(["evaluate", str(tmp_path / "H.npy"), str(tmp_path / "out.npz"), "--json"]) == 0
    np.testing.assert_allclose(json.loads(capsys.readouterr().out)["mean_utility"], summary["mean_utility"], rtol=1e-9)
    W = solve(H, noise=0.1, p_max=1.0, axes="BKMN").W
    np.testing.assert_allclose(np.abs(W), np.abs(found["W"]), atol=1e-6)


def test_streams_of_a_user_do_not_interfere_and_the_strongest_is_first():
    network = Network.broadcast(gaussian(4, 6, 8), 0.01, receive_antennas=2)
    W = ReducedMimoWMMSE().solve(PROBLEM, network).W
    for b in range(4):
        for k in range(3):
            A = (network.H[b, 0, 2 * k : 2 * k + 2] @ W[b]).numpy()
            S, others = A[:, 2 * k : 2 * k + 2], np.delete(A, [2 * k, 2 * k + 1], 1)
            J = S.conj().T @ np.linalg.solve(others @ others.conj().T + 0.01 * np.eye(2), S)
            assert abs(J[0, 1]) <= 1e-9 * J[0, 0].real and J[0, 0].real >= J[1, 1].real


@pytest.mark.parametrize("method", [ReducedMimoWMMSE, RegularisedBlockDiagonalisation])
@pytest.mark.parametrize("snr_db", [0, 40, 80])
def test_single_precision_is_almost_as_good(method, snr_db):
    H, noise = gaussian(4, 8, 8), 10 ** (-snr_db / 10)
    double = Network.broadcast(H, noise, receive_antennas=2)
    single = Network.broadcast(H.to(torch.complex64), noise, receive_antennas=2)
    solution = method().solve(PROBLEM, single)
    assert solution.W.dtype == torch.complex64 and solution.solved.all()
    torch.testing.assert_close(solution.W.abs().square().sum((-2, -1)), torch.ones(4), rtol=1e-5, atol=0)
    expected = total(double, method().solve(PROBLEM, double).W)
    torch.testing.assert_close(total(single, solution.W).double(), expected, rtol=1e-2, atol=0)


def test_users_have_power_on_their_streams_only():
    H, user = gaussian(4, 6, 6), torch.tensor([1, 0, -1, 1, 1])
    network = Network.broadcast(H, 0.1, stream_user=user, receive_antennas=2)
    W = ReducedMimoWMMSE().solve(PROBLEM, network).W
    assert (W[..., 2] == 0).all() and (W[..., 4] == 0).all()  # no data; more streams than the two antennas of the user
    rate = network.rate(W)
    assert (rate[:, 2] == 0).all() and (rate[:, :2] > 0).all()
    begun = ReducedMimoWMMSE().solve(PROBLEM, network, start=W)
    assert (total(network, begun.W) >= total(network, W) - 1e-6).all()


def test_more_starts_are_never_worse_and_their_draws_do_not_depend_on_the_batch():
    network = Network.broadcast(gaussian(6, 12, 8), 0.03, receive_antennas=2)
    rates = [total(network, ReducedMimoWMMSE(starts=count).solve(PROBLEM, network).W) for count in (1, 4, 7)]
    assert (rates[1] >= rates[0] - 1e-9).all() and (rates[2] >= rates[1] - 1e-9).all()
    last = Network.broadcast(network.H[-1, 0], 0.03, receive_antennas=2)
    alone = total(last, ReducedMimoWMMSE(starts=7).solve(PROBLEM, last).W)
    torch.testing.assert_close(alone, rates[2][-1], rtol=1e-6, atol=0)
