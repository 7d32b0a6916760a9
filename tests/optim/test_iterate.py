"""`iterate` on maps whose fixed points, rates of convergence and derivatives are known in closed form."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from beamforge import ConfigError
from beamforge.core.solution import Status
from beamforge.optim.iterate import IterativeSolver, iterate


class Quadratic(NamedTuple):
    """Maximise -1/2 x'Ax + b'x."""

    A: Tensor
    b: Tensor


class Ascent(IterativeSolver):
    """x <- x + s (b - Ax): a linear contraction to A^-1 b with the quadratic as its merit."""

    def step(self, data, state):
        slope = data.b - (data.A @ state.unsqueeze(-1)).squeeze(-1)
        merit = (state * (data.b - 0.5 * (data.A @ state.unsqueeze(-1)).squeeze(-1))).sum(-1)
        return state + 0.3 * slope, merit


def quadratic(batch=6, n=5, seed=0, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(batch, n, n, dtype=torch.float64, generator=generator))
    eigenvalues = 10 ** (-spread * torch.rand(batch, n, dtype=torch.float64, generator=generator))
    b = torch.randn(batch, n, dtype=torch.float64, generator=generator)
    return Quadratic(Q @ torch.diag_embed(eigenvalues) @ Q.mT, b)


def test_every_acceleration_ends_at_the_fixed_point_and_saves_evaluations():
    data = quadratic()
    expected = np.linalg.solve(data.A.numpy(), data.b.numpy()[..., None])[..., 0]
    spent = {}
    for acceleration in ("none", "squarem", "anderson"):
        method = Ascent(tolerance=1e-15, max_iterations=20000, acceleration=acceleration)
        outcome = iterate(method, data, torch.zeros_like(data.b))
        assert (outcome.status == Status.CONVERGED).all()
        np.testing.assert_allclose(outcome.state, expected, rtol=1e-4)
        spent[acceleration] = outcome.iterations.sum().item()
    assert spent["squarem"] < spent["none"] / 3
    assert spent["anderson"] < spent["none"] / 10


@pytest.mark.parametrize("acceleration", ["none", "squarem", "anderson"])
def test_results_do_not_depend_on_the_size_of_the_batch(acceleration):
    data = quadratic(batch=9)
    method = Ascent(tolerance=1e-10, max_iterations=5000, acceleration=acceleration)
    together = iterate(method, data, torch.zeros_like(data.b))
    assert together.iterations.unique().numel() >= 3, "instances must stop at different iterations for this to test"
    for i in range(9):
        one = slice(i, i + 1)
        alone = iterate(method, Quadratic(data.A[one], data.b[one]), torch.zeros_like(data.b[one]))
        torch.testing.assert_close(alone.state[0], together.state[i], rtol=1e-9, atol=1e-12)
        assert alone.iterations[0] == together.iterations[i]


@pytest.mark.parametrize("acceleration", ["squarem", "anderson"])
def test_the_trace_never_falls_and_ends_at_the_merit(acceleration):
    data = quadratic(spread=3.0)
    outcome = iterate(Ascent(acceleration=acceleration), data, torch.zeros_like(data.b))
    assert (outcome.trace.diff(dim=-1) >= -1e-12 * outcome.trace[:, 1:].abs()).all()
    torch.testing.assert_close(outcome.trace[:, -1], outcome.merit)


def test_a_start_at_the_solution_stops_at_once():
    data = quadratic()
    solution = torch.linalg.solve(data.A, data.b)
    assert (iterate(Ascent(), data, solution).iterations <= 2).all()


def test_an_instance_stopped_at_max_iterations_has_that_status():
    data = quadratic()
    outcome = iterate(Ascent(max_iterations=3), data, torch.zeros_like(data.b))
    assert (outcome.status == Status.MAX_ITERATIONS).all()
    assert (outcome.iterations == 3).all()
    expected = torch.zeros_like(data.b)
    for _ in range(3):
        expected = expected + 0.3 * (data.b - (data.A @ expected.unsqueeze(-1)).squeeze(-1))
    torch.testing.assert_close(outcome.state, expected)


@pytest.mark.parametrize("acceleration", ["none", "squarem", "anderson"])
def test_an_instance_with_nan_does_not_affect_others(acceleration):
    data = quadratic()
    spoilt = Quadratic(data.A, data.b.clone())
    spoilt.b[0] = torch.nan
    method = Ascent(max_iterations=300, acceleration=acceleration)
    clean, other = (iterate(method, d, torch.zeros_like(data.b)) for d in (data, spoilt))
    torch.testing.assert_close(other.state[1:], clean.state[1:], rtol=0, atol=0)


@pytest.mark.parametrize("gradient", ["unrolled", "implicit"])
@pytest.mark.parametrize("acceleration", ["none", "squarem", "anderson"])
def test_the_derivative_of_the_fixed_point_is_that_of_the_inverse(gradient, acceleration):
    data = quadratic(spread=0.5)
    A, b = (leaf.clone().requires_grad_() for leaf in data)
    method = Ascent(tolerance=1e-16, max_iterations=2000, acceleration=acceleration, gradient=gradient)
    weight = torch.arange(5, dtype=torch.float64)
    state = method.run(Quadratic(A, b), torch.zeros_like(data.b)).state
    found = torch.autograd.grad((state * weight).sum(), (A, b))
    adjoint = torch.linalg.solve(data.A.mT, weight.expand_as(data.b))
    expected = (-adjoint.unsqueeze(-1) * torch.linalg.solve(data.A, data.b).unsqueeze(-2), adjoint)
    close = 1e-6 if gradient == "implicit" else 1e-3  # derivatives converge later than the iterates
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=close, atol=close)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"acceleration": "andersen"}, "did you mean 'anderson'"),
        ({"gradient": "implicitly"}, "did you mean 'implicit'"),
        ({"max_iterations": 0}, "at least 1"),
        ({"tolerance": -1.0}, "negative"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        Ascent(**settings)
