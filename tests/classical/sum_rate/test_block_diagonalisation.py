"""Regularised block diagonalisation: the published form in NumPy, other closed forms, optimal powers, stream limits."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest
import torch
from oracles_sumrate import mimo_rate

from beamforge import Network, Problem
from beamforge.classical.sum_rate.block_diagonalisation import RegularisedBlockDiagonalisation, levels, water_filled
from beamforge.classical.sum_rate.user_streams import eigenvectors
from beamforge.core.constraints import TotalPower
from beamforge.core.utilities import SumRate

PROBLEM = Problem(SumRate(), (TotalPower(1.0),))


def gaussian(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def solved(H, M, noise):
    network = Network.broadcast(torch.as_tensor(H), noise, receive_antennas=M)
    return network, RegularisedBlockDiagonalisation().solve(PROBLEM, network).W


def equal_powers(W):
    W = W / np.linalg.norm(W, axis=0).clip(1e-300)
    return W / np.linalg.norm(W)


def published(H, noise):
    """Directions of Stankovic and Haardt for H [K, M, N]: the regularised null space of the others, then an SVD."""
    K, M, N = H.shape
    found = []
    for k in range(K):
        others = np.delete(H, k, 0).reshape(-1, N)
        _, s, Vh = np.linalg.svd(others)
        s = np.append(s, np.zeros(N - len(s))) if len(s) < N else s
        F = Vh.conj().T @ np.diag((s**2 + K * M * noise) ** -0.5)
        found.append(F @ np.linalg.svd(H[k] @ F)[2].conj().T[:, :M])
    return np.concatenate(found, 1)


def on_rows(rows, noise, streams):
    """Regularised zero forcing on the rows [R, N], equal power for each."""
    return equal_powers(rows.conj().T @ np.linalg.inv(rows @ rows.conj().T + streams * noise * np.eye(len(rows))))


@pytest.mark.parametrize(("K", "M", "N"), [(2, 2, 5), (4, 2, 8), (1, 3, 4), (3, 1, 4)])
def test_directions_agree_with_the_published_form(K, M, N):
    H = gaussian(3, K, M, N)
    _, W = solved(H.flatten(1, 2), M, 0.05)
    for b in range(3):
        expected = published(H[b].numpy(), 0.05)
        along = np.abs(np.sum((expected / np.linalg.norm(expected, axis=0)).conj() * W[b].numpy(), 0))
        np.testing.assert_allclose(along, np.linalg.norm(W[b], axis=0), atol=1e-9)


@pytest.mark.parametrize(("K", "M", "N"), [(4, 2, 8), (6, 2, 8), (3, 4, 8), (10, 2, 8)])
@pytest.mark.parametrize("snr_db", [-5, 10, 30])
def test_the_mean_rate_is_above_regularised_zero_forcing(K, M, N, snr_db):
    count, noise = 40, 10 ** (-snr_db / 10)
    H = gaussian(count, K, M, N, seed=2).numpy()
    network, W = solved(H.reshape(count, K * M, N), M, noise)
    ours = network.rate(W).sum(-1).mean().item()
    user, noises, ones = network.streams.user[0].numpy(), np.full(K, noise), np.ones(K)
    antennas, dominant = [], []
    for each in H:
        antennas.append(mimo_rate(each, on_rows(each.reshape(-1, N), noise, K * M), user, noises, ones))
        _, s, Vh = np.linalg.svd(each, full_matrices=False)
        strength = s.ravel()
        kept = strength >= np.sort(strength)[-min(N, K * M)]
        rows = (s[..., None] * Vh).reshape(-1, N)[kept]
        dominant.append(mimo_rate(each, on_rows(rows, noise, len(rows)), user[kept], noises, ones))
    assert ours > np.mean(antennas) and ours > np.mean(dominant)


def test_at_most_as_many_streams_as_antennas_and_none_for_users_of_zero_weight():
    H = gaussian(5, 12, 4)
    H[0, 2:4] = 0
    network = Network.broadcast(H, 1e-3, receive_antennas=2)
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    problem = Problem(SumRate(weights), (TotalPower(3.0),))
    W = RegularisedBlockDiagonalisation().solve(problem, network).W
    power = W.abs().square().sum(-2)
    assert ((power > 0).sum(-1) == 4).all() and (power[:, 6:8] == 0).all() and (power[0, 2:4] == 0).all()
    torch.testing.assert_close(power.sum(-1), torch.full((5,), 3.0, dtype=torch.float64))


def test_users_with_fewer_streams_than_antennas_get_their_best_directions():
    H = gaussian(6, 4, 6)
    user = torch.tensor([1, -1, 0])
    network = Network.broadcast(H, 0.1, stream_user=user, receive_antennas=2)
    W = RegularisedBlockDiagonalisation().solve(PROBLEM, network).W
    assert W.shape == (6, 6, 3) and (W[..., 1] == 0).all()
    both = Network.broadcast(H, 0.1, receive_antennas=2)
    assert (network.rate(W).sum(-1) > 0.4 * both.rate(solved(H, 2, 0.1)[1]).sum(-1)).all()


@pytest.mark.parametrize("gains", [[4.0, 1.0, 0.1], [1e6, 1e-6, 3.0], [0.0, 2.0, 2.0]])
def test_water_filling_is_optimal(gains):
    weights = np.array([0.5, 2.0, 1.0])
    p = cvxpy.Variable(3, nonneg=True)
    program = cvxpy.Problem(
        cvxpy.Maximize(cvxpy.sum(cvxpy.multiply(weights, cvxpy.log(1 + cvxpy.multiply(gains, p))))),
        [cvxpy.sum(p) == 1],
    )
    program.solve(solver=cvxpy.CLARABEL)
    found = water_filled(torch.tensor(gains, dtype=torch.float64), torch.as_tensor(weights))
    value = (torch.as_tensor(weights) * torch.log1p(torch.tensor(gains, dtype=torch.float64) * found)).sum()
    assert found.sum().item() == pytest.approx(1) and value.item() == pytest.approx(program.value, rel=1e-6)
    nobody = water_filled(torch.zeros(2, 3), torch.ones(2, 3))
    assert (nobody == 0).all()


def test_levels_decrease_to_the_given_number():
    assert levels(8, 8) == [] and levels(5, 8) == []
    for count in (9, 20, 300):
        found = [count, *levels(count, 8)]
        assert found[-1] == 8 and (np.diff(found) < 0).all()


def test_derivatives_of_eigenvectors_agree_with_differences_and_are_finite_for_equal_values():
    A = gaussian(4, 3, 3)
    S, D = A + A.mH, gaussian(4, 3, 3, seed=1)
    D = D + D.mH

    def value(step):
        _, U = eigenvectors(S + step * D)
        return (U.abs().square() * torch.arange(9.0).reshape(3, 3)).sum((-2, -1))

    step = torch.zeros(4, 1, 1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(step).sum(), step)
    expected = (value(torch.tensor(1e-6)) - value(torch.tensor(-1e-6))) / 2e-6
    torch.testing.assert_close(slope.flatten(), expected, rtol=1e-5, atol=1e-5)
    flat = torch.diag_embed(torch.tensor([[1.0, 1.0, 2.0]])).to(torch.complex128).requires_grad_()
    assert torch.isfinite(torch.view_as_real(torch.autograd.grad(eigenvectors(flat)[1].real.sum(), flat)[0])).all()
    broken = torch.stack([torch.eye(2), torch.full((2, 2), torch.nan)]).to(torch.complex128)
    values, U = eigenvectors(broken)
    assert torch.isfinite(values[0]).all() and torch.isnan(values[1]).all()
    assert torch.isfinite(U[0].real).all() and torch.isnan(U[1].real).all()
