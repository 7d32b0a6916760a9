"""Derivatives of resolvents to second order, and of rates with respect to zero power gains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge import Network
from beamforge.classical.structure import coefficients, resolvent_columns


def hermitian(K, seed=0):
    A = torch.randn(2, K, K, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
    return A @ A.mH


def columns(A, ridges):
    """Resolvent columns of the Hermitian part of A, so that any perturbation of A is allowed."""
    return torch.view_as_real(resolvent_columns((A + A.mH) / 2, ridges))


def test_resolvents_have_derivatives_of_every_order():
    ridges = torch.tensor([[0.5, 1.0, 2.0]] * 2, dtype=torch.float64, requires_grad=True)
    A = hermitian(3).requires_grad_()
    torch.autograd.gradcheck(columns, (A, ridges))
    torch.autograd.gradgradcheck(columns, (A, ridges))


def test_the_second_derivative_of_one_over_m_plus_nu():
    """``d^2 (m + nu)^-1 / dm^2 = 2 (m + nu)^-3``, which is 2/27 for m = 1 and nu = 2."""
    m = torch.ones(1, 1, 1, dtype=torch.float64, requires_grad=True)
    z = resolvent_columns(m, torch.full((1, 1), 2.0, dtype=torch.float64))
    (first,) = torch.autograd.grad(z.sum(), m, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), m)
    np.testing.assert_allclose(second.item(), 2 / 27, rtol=1e-12)


def test_derivatives_are_correct_for_equal_eigenvalues():
    A = torch.eye(3, dtype=torch.complex128).expand(2, 3, 3).clone().requires_grad_()
    ridges = torch.tensor([[0.5, 1.0, 2.0]] * 2, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradgradcheck(columns, (A, ridges))
    value = coefficients((A + A.mH) / 2, ridges, ridges).abs().square().sum()
    assert torch.isfinite(torch.autograd.grad(value, A)[0].real).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rates_have_derivatives_with_respect_to_zero_gains(dtype):
    G = torch.tensor([[1.0, 0.0, 0.2], [0.0, 2.0, 0.0], [0.3, 0.0, 0.0]], dtype=dtype)
    p = torch.tensor([1.0, 2.0, 0.5], dtype=dtype)
    W = torch.complex(p.sqrt(), torch.zeros_like(p)).unsqueeze(0)

    def rate(G):
        return Network.power_control(G, 0.5).rate(W)

    leaf = G.clone().requires_grad_()
    assert torch.equal(Network.power_control(leaf, 0.5).gains == 0, G == 0)
    torch.testing.assert_close(rate(leaf).detach(), rate(G))
    received = G.double() @ p.double() + 0.5
    signal = G.double().diagonal() * p.double()
    for k in range(3):
        (slope,) = torch.autograd.grad(rate(leaf)[k], leaf)
        expected = torch.zeros(3, 3, dtype=torch.float64)
        disturbance = received[k] - signal[k]
        expected[k] = p.double() * (1 / received[k] - 1 / disturbance) / np.log(2)
        expected[k, k] = p[k].double() / received[k] / np.log(2)
        torch.testing.assert_close(slope.double(), expected, rtol=1e-5, atol=1e-7)
