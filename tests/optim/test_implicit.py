"""Derivatives of fixed points: exact, batched, none for instances that have not converged, no second derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge import Network, Problem, Status
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.core.constraints import TotalPower
from beamforge.core.utilities import SumRate
from beamforge.optim.implicit import attach_fixed_point


def contraction(A, b):
    """x -> 0.4 tanh(A x) + b, a contraction for small A."""
    return lambda x: 0.4 * torch.tanh((A @ x.unsqueeze(-1)).squeeze(-1)) + b


def fixed_point(A, b):
    x = torch.zeros_like(b)
    with torch.no_grad():
        for _ in range(200):
            x = contraction(A, b)(x)
    return attach_fixed_point(contraction(A, b), x)


@pytest.mark.parametrize("size", [1, 5])
def test_the_derivative_is_that_of_the_fixed_point(size):
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(3, size, size, dtype=torch.float64, generator=generator) / size
    b = torch.randn(3, size, dtype=torch.float64, generator=generator)
    torch.autograd.gradcheck(fixed_point, (A.requires_grad_(), b.requires_grad_()), atol=1e-8)


def test_operators_without_a_batching_rule_are_differentiated_one_by_one():
    class Half(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x / 2

        @staticmethod
        def backward(context, gradient):
            return torch.from_numpy(gradient.numpy() / 2)  # vmap cannot trace NumPy

    b = torch.tensor([[1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    x = attach_fixed_point(lambda x: Half.apply(x) + b, 2 * b.detach())
    (slope,) = torch.autograd.grad(x.sum(), b)
    np.testing.assert_allclose(slope, [[2.0, 2.0]], rtol=1e-12)


def test_second_derivatives_are_refused():
    b = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    x = fixed_point(torch.eye(2, dtype=torch.float64).unsqueeze(0), b)
    with pytest.raises(RuntimeError, match=r'no second derivatives: use gradient="unrolled"'):
        torch.autograd.grad(x.square().sum(), b, create_graph=True)


def test_the_derivative_of_an_instance_that_has_not_converged_is_finite():
    H = torch.randn(6, 4, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    H[0] = torch.eye(4)  # converges at once
    H.requires_grad_()
    problem = Problem(SumRate(), (TotalPower(1.0),))
    solution = ReducedWMMSE(starts=1, max_iterations=12, tolerance=1e-6).solve(problem, Network.broadcast(H, 1e-2))
    weight = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    value = (solution.W.abs().square() * weight).sum((-2, -1))
    unfinished = solution.status == int(Status.MAX_ITERATIONS)
    if not unfinished.any():
        pytest.skip("every instance has converged")
    (slope,) = torch.autograd.grad(value[unfinished].sum(), H, retain_graph=True)
    assert torch.isfinite(slope.real).all()
