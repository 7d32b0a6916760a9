"""Beams from multipliers, against NumPy and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.classical.structure import coefficients, equal_ridge_coefficients, loaded_inverse


def channels(K, N, batch=6):
    return torch.randn(batch, K, N, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))


def uniform(*shape):
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_the_loaded_inverse_is_numpys_in_either_precision():
    H, level = channels(6, 4), uniform(6, 6) + 0.1
    expected = np.linalg.inv((H @ H.mH).numpy() + np.einsum("bk,kj->bkj", level.numpy(), np.eye(6)))
    np.testing.assert_allclose(loaded_inverse(H @ H.mH, level), expected, atol=1e-12)
    single = loaded_inverse((H @ H.mH).to(torch.complex64), level.float())
    np.testing.assert_allclose(single, expected, atol=1e-4)


@pytest.mark.parametrize(("K", "N"), [(1, 3), (4, 2), (5, 5), (7, 20)])
def test_beams_are_the_solutions_of_their_linear_systems(K, N):
    """``(sum_{l != u} mu_l h_l h_l^H + nu_u I)^-1 h_u`` for each user in NumPy; the user's own mu does not matter."""
    H = channels(K, N, batch=2)
    mu, nu = 10 ** (2 * uniform(2, 2, K) - 1)
    W = (H.mH @ coefficients(H @ H.mH, mu, nu)).numpy()
    h = H.numpy().conj()
    for b in range(2):
        for u in range(K):
            A = nu[b, u].item() * np.eye(N)
            for other in range(K):
                if other != u:
                    A = A + mu[b, other].item() * np.outer(h[b, other], h[b, other].conj())
            v = np.linalg.solve(A, h[b, u])
            v /= np.linalg.norm(v)
            np.testing.assert_allclose(W[b, :, u], v * np.exp(1j * np.angle(v.conj() @ W[b, :, u])), atol=1e-10)


def test_equal_ridges_need_no_eigenvalues():
    H = channels(5, 4)
    mu = uniform(6, 5) + 0.1
    torch.testing.assert_close(equal_ridge_coefficients(H @ H.mH, mu), coefficients(H @ H.mH, mu, torch.ones_like(mu)))


@pytest.mark.parametrize("degenerate", [False, True])
def test_the_derivatives_of_the_structure_are_those_of_finite_differences(degenerate):
    """Orthogonal users of equal gain have equal eigenvalues, where eigenvectors have no derivative."""
    H = channels(3, 4, batch=2) if not degenerate else torch.eye(3, 4, dtype=torch.complex128).expand(2, 3, 4).clone()
    mu, nu = torch.full((2, 3), 0.7, dtype=torch.float64), torch.full((2, 3), 0.3, dtype=torch.float64)

    def received(real, imaginary, mu, nu):
        gram = torch.complex(real, imaginary) @ torch.complex(real, imaginary).mH
        return (gram @ coefficients(gram, mu, nu)).abs().square()

    inputs = [part.clone().requires_grad_() for part in (H.real, H.imag, mu, nu)]
    assert torch.autograd.gradcheck(received, inputs)


def test_one_singular_matrix_does_not_affect_the_inverses_of_others():
    M = torch.stack([torch.ones(3, 3), torch.eye(3)]).to(torch.complex64) * 1e9
    found = loaded_inverse(M, torch.full((2, 3), 1e-3))
    torch.testing.assert_close(found[1], torch.eye(3, dtype=torch.complex64) * 1e-9)
