"""The exact step against a cone program, and the minimum power for sensing SNR targets alone."""

import cvxpy
import numpy as np
import pytest
import torch

from beamforge.classical.isac.dual import (
    SensingQuadratic,
    barrier,
    initial_multipliers,
    least_power,
    multipliers,
    value,
)
from beamforge.core.sensing import steering


def problem(level, e, batch=3, antennas=5, users=3, targets=3, sensing_weight=0.0):
    generator = torch.Generator().manual_seed(2)
    H = torch.randn(batch, users, antennas, dtype=torch.complex128, generator=generator)
    q, b = (torch.rand(batch, users, dtype=torch.float64, generator=generator) + 0.3 for _ in range(2))
    angles = 1.5 * torch.rand(batch, targets, dtype=torch.float64, generator=generator)
    C, one = 4 * steering(angles, antennas), torch.ones(batch, dtype=torch.float64)
    A, B = (H.mH * q[:, None, :]) @ H, H.mH * b[:, None, :]
    return SensingQuadratic(
        A,
        B,
        C,
        torch.full((batch, targets), level, dtype=torch.float64),
        one,
        e * one,
        sensing_weight * torch.ones_like(C.real[:, 0]),
    )


def cone_program(data, instance):
    A, B, C = (each[instance].numpy() for each in (data.A, data.B, data.C))
    N, K = B.shape
    W, S = cvxpy.Variable((N, K), complex=True), cvxpy.Variable((N, N), hermitian=True)
    limits = [cvxpy.bmat([[S, W], [W.H, np.eye(K)]]) >> 0, cvxpy.real(cvxpy.trace(S)) <= 1]
    limits += [
        cvxpy.real(c.conj() @ S @ c) >= level for c, level in zip(C.T, data.level[instance].numpy(), strict=True)
    ]
    error = cvxpy.real(cvxpy.trace(A @ S)) - 2 * cvxpy.real(cvxpy.trace(B.conj().T @ W))
    return cvxpy.Problem(cvxpy.Minimize(error), limits).solve(solver="CLARABEL")


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("level", [0.5, 3.0])
def test_minimum_error_equals_that_of_the_cone_program(level):
    x = None
    for e in (1e-1, 1e-3, 1e-5, 1e-8):
        data = problem(level, e)
        x = multipliers(data, initial_multipliers(data) if x is None else x)
    T = barrier(data, x).inverse
    W = T @ data.B
    S = W @ W.mH + 1e-8 * T
    trace = lambda M: M.diagonal(dim1=-2, dim2=-1).sum(-1).real  # noqa: E731
    error = trace(data.A @ S) - 2 * trace(data.B.mH @ W)
    assert (trace(S) <= 1).all()
    assert ((data.C.conj() * (S @ data.C)).sum(-2).real >= level).all()
    for instance in range(len(error)):
        assert error[instance].item() == pytest.approx(cone_program(data, instance), rel=1e-5)


@pytest.mark.parametrize(("level", "sensing_weight"), [(1.0, 0.0), (-1.0, 0.7)])
def test_derivatives_of_the_dual(level, sensing_weight):
    data = problem(level, 0.1, sensing_weight=sensing_weight)
    x = multipliers(data, initial_multipliers(data)) * torch.tensor([1.3, 0.8, 1.1, 0.9], dtype=torch.float64)
    here = barrier(data, x)
    for place in range(4):
        h = 1e-5 * x[:, place].mean()
        shift = torch.zeros(4, dtype=torch.float64)
        shift[place] = h
        slope = (value(data, x + shift) - value(data, x - shift)) / (2 * h)
        torch.testing.assert_close(here.gradient[:, place], slope, rtol=1e-6, atol=1e-6)
        difference = (barrier(data, x + shift).gradient - barrier(data, x - shift).gradient) / (2 * h)
        torch.testing.assert_close(here.hessian[:, place], difference, rtol=1e-5, atol=1e-5)


def test_minimum_power_for_the_targets():
    C = problem(1.0, 1.0, targets=2).C
    level = torch.tensor([[2.0, 1.0]], dtype=torch.float64).expand(len(C), -1)
    found = least_power(C, level)
    for instance in range(len(C)):
        S = cvxpy.Variable((5, 5), hermitian=True)
        columns = C[instance].numpy().T
        limits = [S >> 0] + [cvxpy.real(c.conj() @ S @ c) >= one for c, one in zip(columns, [2.0, 1.0], strict=True)]
        least = cvxpy.Problem(cvxpy.Minimize(cvxpy.real(cvxpy.trace(S))), limits).solve(solver="CLARABEL")
        assert found[instance].item() == pytest.approx(least, rel=1e-5)
    one = least_power(C[..., :1], level[:, :1])
    torch.testing.assert_close(one, 2.0 / C[..., 0].abs().square().sum(-1), rtol=1e-6, atol=0)
    assert least_power(0 * C, level).isinf().all()
