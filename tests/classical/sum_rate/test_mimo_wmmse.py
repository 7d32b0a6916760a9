"""Users with several antennas: the textbook iteration, properties of a step, closed form, bound, and files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from oracles_sumrate import mimo_rate, textbook_mimo_wmmse

from beamforge import Network, Problem, solve
from beamforge.checks import check_solver
from beamforge.classical.bounds import bound
from beamforge.classical.sum_rate.mimo_wmmse import MimoRZF, Receivers, ReducedMimoWMMSE, respond, scaled
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.cli import main
from beamforge.core.constraints import TotalPower
from beamforge.core.utilities import MinRate, SumRate

PROBLEM = Problem(SumRate(), (TotalPower(1.0),))


def gaussian(*shape, seed=0, dtype=torch.complex128):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def total(network, W):
    return network.rate(W).sum(-1)


@pytest.mark.parametrize(("K", "M", "N"), [(4, 2, 8), (6, 2, 8), (3, 3, 4)])
@pytest.mark.parametrize("snr_db", [0, 15])
def test_the_textbook_iteration_from_the_same_kinds_of_starts_has_no_more(K, M, N, snr_db):
    H, noise = gaussian(16, K * M, N, seed=K), 10 ** (-snr_db / 10)
    network = Network.broadcast(H, noise, receive_antennas=M)
    found = total(network, ReducedMimoWMMSE().solve(PROBLEM, network).W).numpy()
    user = network.streams.user[0].numpy()
    best = np.zeros(16)
    for number in range(3):
        start = ReducedMimoWMMSE(starts=number + 1)
        data = start.prepare(PROBLEM.bind(network), type("Seen", (), {"network": network}))
        begun = start.beams(data, [*start.init(data, None, None)][number])
        for b in range(16):
            W = textbook_mimo_wmmse(
                H[b].reshape(K, M, N).numpy(), begun[b].numpy(), user, np.full(K, noise), 1.0, np.ones(K), 200
            )
            rate = mimo_rate(H[b].reshape(K, M, N).numpy(), W, user, np.full(K, noise), np.ones(K))
            best[b] = max(best[b], rate)
    assert found.mean() >= 0.999 * best.mean() and (found >= 0.95 * best).all()


def test_a_step_is_that_of_the_textbook_but_for_the_power_and_never_lowers_the_rate():
    K, M, N = 3, 2, 5
    weights = torch.tensor([[1.0, 2.0, 0.5]], dtype=torch.float64).expand(4, -1)
    network = Network.broadcast(gaussian(4, K * M, N), torch.rand(4, K).double() + 0.1, receive_antennas=M)
    data = Receivers.of(network, torch.full((4,), 2.0, dtype=torch.float64), weights)
    X = scaled(data, gaussian(4, K * M, K * M, seed=1))
    rates = []
    for _ in range(30):
        X, rate = respond(data, data.gram @ scaled(data, X))
        rates.append(rate)
    W = data.H.mH @ scaled(data, X) * 2**0.5
    rates = torch.stack([*rates, (weights * network.rate(W)).sum(-1)])
    assert (rates.diff(dim=0) >= -1e-10).all()
    expected = [
        mimo_rate(
            network.H[b, 0].reshape(K, M, N).numpy(),
            W[b].numpy(),
            network.streams.user[b].numpy(),
            network.noise[b].numpy(),
            weights[b].numpy(),
        )
        for b in range(4)
    ]
    np.testing.assert_allclose(respond(data, data.H @ W / 2**0.5)[1], expected, rtol=1e-9)


def test_single_antennas_are_the_case_that_is_known():
    H = gaussian(10, 4, 6)
    plain, order = Network.broadcast(H, 0.05), torch.tensor([3, 0, 1, 2])
    network = Network.broadcast(H, 0.05, stream_user=order)
    found = total(network, ReducedMimoWMMSE().solve(PROBLEM, network).W)
    known = total(plain, ReducedWMMSE().solve(PROBLEM, plain).W)
    assert (found.mean() / known.mean() - 1).abs() < 5e-3


@pytest.mark.parametrize("method", [ReducedMimoWMMSE, MimoRZF])
def test_conformance(method):
    check_solver(method())


@pytest.mark.parametrize("method", [ReducedMimoWMMSE, MimoRZF])
def test_turning_a_user_s_antennas_changes_no_rate(method):
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
        rzf = total(network, MimoRZF().solve(PROBLEM, network).W)
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
    for method in (ReducedMimoWMMSE(), MimoRZF()):
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
    assert found["W"].shape == (4, 8, 6) and found["stream_user"][0].tolist() == [0, 0, 1, 1, 2, 2]
    expected = [
        [mimo_rate(H[b], found["W"][b], found["stream_user"][b], np.full(3, 0.1), np.eye(3)[k]) for k in range(3)]
        for b in range(4)
    ]
    np.testing.assert_allclose(found["rate"], expected, rtol=1e-9)
    assert main(["evaluate", str(tmp_path / "H.npy"), str(tmp_path / "out.npz"), "--json"]) == 0
    np.testing.assert_allclose(json.loads(capsys.readouterr().out)["mean_utility"], summary["mean_utility"], rtol=1e-9)
    W = solve(H, noise=0.1, p_max=1.0, axes="BKMN").W
    np.testing.assert_allclose(np.abs(W), np.abs(found["W"]), atol=1e-6)
