"""Newton's method on the dual uplink: derivatives by autograd, duality by NumPy, local optimality, saddles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import channels, water_filling

from beamforge.classical.sum_rate.uplink_newton import newton, rate_derivatives


def gram(B, K, N, snr_db, seed=0):
    H = torch.as_tensor(channels(B, K, N, seed=seed))
    return 10 ** (snr_db / 10) * H @ H.mH


def uplink_rate(gram, weights, shares):
    """Linear MMSE receivers one by one: ``log2(1 + s_k h_k^H (I + sum_(j != k) s_j h_j h_j^H)^-1 h_k)`` from the Gram
    matrix alone, by NumPy."""
    values, vectors = np.linalg.eigh(np.asarray(gram))
    h = vectors * np.sqrt(np.maximum(values, 0))  # rows have that Gram matrix
    total = 0.0
    for k in range(len(h)):
        noise = np.eye(len(h)) + sum(shares[j] * np.outer(h[j].conj(), h[j]) for j in range(len(h)) if j != k)
        total += weights[k] * np.log2(1 + shares[k] * (h[k] @ np.linalg.solve(noise, h[k].conj())).real)
    return total


def test_derivatives_agree_with_automatic_differentiation():
    K = 5
    M, weights = gram(1, K, 4, 15.0)[0], torch.linspace(0.5, 2, K, dtype=torch.float64)
    x = torch.linspace(-1, 1.5, K, dtype=torch.float64)

    def rate(x):
        root = torch.softmax(x, -1).sqrt()
        errors = torch.linalg.inv(torch.eye(K) + root[:, None] * M * root).diagonal().real
        return -(weights * errors.log()).sum()

    found = rate_derivatives(M[None], weights[None], x[None])
    torch.testing.assert_close(found.rate[0], rate(x))
    torch.testing.assert_close(found.gradient[0], torch.autograd.functional.jacobian(rate, x))
    torch.testing.assert_close(-found.curvature[0], torch.autograd.functional.hessian(rate, x))


@pytest.mark.parametrize(("K", "N", "snr_db"), [(3, 4, 0), (6, 4, 20), (4, 4, 70), (8, 8, 100)])
def test_it_converges_to_a_maximum_with_the_rate_of_the_uplink(K, N, snr_db):
    weights = torch.linspace(1, 2, K, dtype=torch.float64).expand(4, K)
    M = gram(4, K, N, snr_db)
    found = newton(M, weights, torch.ones(4, K))
    assert found.converged.all()
    generator = torch.Generator().manual_seed(1)
    for b in range(4):
        at = found.shares[b].numpy()
        best = uplink_rate(M[b], weights[b].numpy(), at)
        np.testing.assert_allclose(found.rate[b], best, rtol=1e-6)
        for _ in range(20):
            near = at * np.exp(1e-2 * torch.randn(K, generator=generator, dtype=torch.float64).numpy())
            assert uplink_rate(M[b], weights[b].numpy(), near / near.sum()) <= best * (1 + 1e-9)


def test_orthogonal_users_get_water_filling():
    gains, weights = np.array([400.0, 10.0, 3.0, 0.1]), np.array([1.0, 2.0, 0.5, 1.0])
    found = newton(
        torch.diag(torch.tensor(gains)).to(torch.complex128)[None], torch.tensor(weights)[None], torch.ones(1, 4)
    )
    np.testing.assert_allclose(found.shares[0], water_filling(gains, 1.0, weights), atol=1e-6)


def test_a_saddle_point_of_equal_users_is_left_and_zero_powers_are_handled():
    H = torch.as_tensor(channels(3, 2, 8)).repeat_interleave(2, 1)
    M = 100 * H @ H.mH
    found = newton(M, torch.ones(3, 4), torch.ones(3, 4))
    assert found.converged.all()
    served = (found.shares > 1e-6).reshape(3, 2, 2)
    assert (served.sum(-1) == 1).all(), "one of each pair"
    two = newton(M[:, ::2, ::2], torch.ones(3, 2), torch.ones(3, 2))
    torch.testing.assert_close(found.rate, two.rate)
    nobody = newton(torch.zeros(2, 3, 3), torch.ones(2, 3), torch.ones(2, 3))
    assert nobody.converged.all() and (nobody.rate == 0).all()
