"""Ascent against finite differences, WMMSE in NumPy, and the formulas of the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.learned.l2o.ascent import Received, ascend, gradient, lmmse, metric, of_full_power, shares

USERS, ANTENNAS = 5, 4


def drawn(batch=3, users=USERS, antennas=ANTENNAS, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.complex128, generator=generator)

    weights = 0.5 + torch.rand(batch, users, dtype=torch.float64, generator=generator)
    return 4 * normal(batch, users, antennas), of_full_power(normal(batch, antennas, users)), weights


def rate_by_hand(H, W, weights):
    """Weighted sum rate in nats of beams scaled to full power, by NumPy."""
    W = W / np.linalg.norm(W, axis=(-2, -1), keepdims=True)
    power = abs(H @ W) ** 2
    signal = np.diagonal(power, axis1=-2, axis2=-1)
    return (weights * np.log1p(signal / (1 + power.sum(-1) - signal))).sum(-1)


def test_the_gradient_is_that_of_the_rate_at_full_power():
    H, W, weights = drawn()
    found, seen = gradient(H, W, weights)
    np.testing.assert_allclose(seen.rate(weights), rate_by_hand(H.numpy(), W.numpy(), weights.numpy()), rtol=1e-12)
    generator = np.random.default_rng(1)
    for _ in range(5):
        move = generator.normal(size=(2, *W.shape)) @ np.eye(USERS)
        move = move[0] + 1j * move[1]
        ends = [rate_by_hand(H.numpy(), W.numpy() + step * move, weights.numpy()) for step in (1e-6, -1e-6)]
        slope = 2 * (found.numpy().conj() * move).sum((-2, -1)).real
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-6)


def wmmse_step(H, W, weights):
    """One pass over receivers, weights and beams, the power price summed from the others: NumPy, one instance."""
    D = H @ W
    total = 1 + (abs(D) ** 2).sum(-1)
    u = np.diagonal(D) / total
    v = weights / (1 - abs(np.diagonal(D)) ** 2 / total)
    M = H.conj().T @ np.diag(v * abs(u) ** 2) @ H + (v * abs(u) ** 2).sum() * np.eye(H.shape[-1])
    W = np.linalg.solve(M, H.conj().T @ np.diag(v * u))
    return W / np.linalg.norm(W)


def test_a_step_of_length_one_is_one_of_wmmse_where_the_auxiliary_rows_are_priced():
    H, W, weights = drawn()
    prices = Received.of(H, W).prices(weights)
    auxiliary = 7.0 * prices.sqrt().unsqueeze(-1) * H
    factor = metric(H, auxiliary, W, weights)
    found = ascend(H, W, weights, 1, torch.ones_like(weights), factor)
    for i in range(len(H)):
        expected = wmmse_step(H[i].numpy(), W[i].numpy(), weights[i].numpy())
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(shares(H, auxiliary), 49 * prices)


def test_euclidean_steps_are_those_of_the_paper():
    """Eq. 8 by PyTorch's own gradient of the rate in bits, whose conjugate it is by real and imaginary parts."""
    H, W, weights = drawn()
    found = ascend(H, W, weights, 2, torch.tensor(1e-3, dtype=torch.float64))
    expected = W
    for _ in range(2):
        leaf = expected.clone().requires_grad_()
        power = (H @ leaf).abs().square()
        signal = power.diagonal(dim1=-2, dim2=-1)
        rate = (weights * torch.log2(1 + signal / (1 + power.sum(-1) - signal))).sum()
        (slope,) = torch.autograd.grad(rate, leaf)
        expected = expected + 1e-3 * slope
        expected = expected / torch.linalg.matrix_norm(expected)[:, None, None]
    # along the beams themselves both only scale: after scaling the difference is of second order in the step
    assert (found - expected).abs().max() < 1e-4 * (found - W).abs().max() + 2e-5
    assert (found - W).abs().max() > 1e-3


@pytest.mark.parametrize("preconditioned", [True, False])
def test_second_derivatives_are_those_of_finite_differences(preconditioned):
    """Of the rate after two steps by the beams before them, the lengths, the channel and the auxiliary channel."""
    H, W, weights = drawn(batch=2)
    length = torch.full_like(weights, 0.4 if preconditioned else 1e-3)
    auxiliary = drawn(batch=2, seed=1)[0]
    leaves = [leaf.clone().requires_grad_() for leaf in (H, W, auxiliary, length)]

    def after(H, W, auxiliary, length):
        factor = metric(H, auxiliary, of_full_power(W), weights) if preconditioned else None
        return Received.of(H, ascend(H, of_full_power(W), weights, 2, length, factor)).rate(weights)

    assert torch.autograd.gradcheck(after, leaves, eps=1e-6, atol=1e-5, rtol=1e-4)


def test_first_beams_are_regularised_zero_forcing_of_those_who_are_there():
    """Eq. 5 with P = 1 and noise one: the level is one and each channel has weight 1/K."""
    H, _, _ = drawn()
    H[1, 2] = 0
    there = H.abs().sum(-1) > 0
    found = lmmse(H, there).numpy()
    for i in range(len(H)):
        rows = H[i, there[i]].numpy()
        M = np.eye(ANTENNAS) + rows.conj().T @ rows / len(rows)
        W = np.linalg.solve(M, rows.conj().T)
        W = W / np.linalg.norm(W, axis=0) / np.sqrt(len(rows))
        np.testing.assert_allclose(found[i][:, there[i].numpy()], W, rtol=1e-9, atol=1e-12)
    assert (found[1, :, 2] == 0).all()


def test_nothing_to_send_is_not_divided_by():
    H, W, weights = drawn()
    H[0], W[0] = 0, 0
    for leaf in (H, W):
        leaf.requires_grad_()
    beams = ascend(H, of_full_power(W), weights, 2, torch.ones_like(weights), metric(H, H, W, weights))
    beams.abs().square().sum().backward()
    assert (beams[0] == 0).all() and beams.isfinite().all() and H.grad.isfinite().all() and W.grad.isfinite().all()
