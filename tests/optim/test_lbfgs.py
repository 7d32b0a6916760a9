"""Quasi-Newton ascent on functions whose maximum is known."""

import numpy as np
import pytest
import torch
from scipy.optimize import rosen, rosen_der

from beamforge.optim import lbfgs


def climb(function, start, steps):
    state = lbfgs.begin(function, start)
    values = [state.value]
    for _ in range(steps):
        state = lbfgs.advance(function, state)
        values.append(state.value)
    return state, torch.stack(values)


def quadratics(spread):
    """Five concave quadratics of condition number 10^spread, and their maximum points."""
    generator = torch.Generator().manual_seed(0)
    maximum = torch.randn(5, 12, dtype=torch.float64, generator=generator)
    Q, _ = torch.linalg.qr(torch.randn(5, 12, 12, dtype=torch.float64, generator=generator))
    A = Q @ torch.diag(torch.logspace(0, spread, 12, dtype=torch.float64)) @ Q.mT

    def function(x):
        slope = -(A @ (x - maximum).unsqueeze(-1)).squeeze(-1)
        return 0.5 * (slope * (x - maximum)).sum(-1), slope

    return function, maximum


def rosenbrock(x):
    points = x.numpy()
    return -torch.as_tensor([rosen(p) for p in points]), -torch.as_tensor(np.stack([rosen_der(p) for p in points]))


@pytest.mark.parametrize(("spread", "steps"), [(0, 30), (2, 80), (4, 400)])
def test_it_finds_the_maximum_of_a_quadratic(spread, steps):
    function, maximum = quadratics(spread)
    state, _ = climb(function, torch.zeros_like(maximum), steps)
    torch.testing.assert_close(state.point, maximum, rtol=1e-5, atol=1e-5)


def test_it_finds_the_maximum_of_the_rosenbrock_function():
    start = torch.as_tensor([[-1.2, 1.0, -1.2, 1.0], [0.0, 0.0, 0.0, 0.0], [2.0, -1.0, 2.0, 0.5]], dtype=torch.float64)
    state, _ = climb(rosenbrock, start, 300)
    torch.testing.assert_close(state.point, torch.ones_like(start), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("function", [quadratics(3)[0], rosenbrock])
def test_values_never_decrease(function):
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(5, 12, dtype=torch.float64, generator=generator)
    _, values = climb(function, start, 100)
    assert (values.diff(dim=0) >= -1e-12 * values[1:].abs()).all()


def test_results_do_not_depend_on_the_batch():
    function, maximum = quadratics(2)
    together, _ = climb(function, torch.zeros_like(maximum), 25)

    def third(x):
        value, slope = function(x.expand(5, -1))
        return value[2:3], slope[2:3]

    alone, _ = climb(third, torch.zeros_like(maximum[2:3]), 25)
    torch.testing.assert_close(alone.point[0], together.point[2], rtol=1e-9, atol=1e-9)


def test_the_maximum_is_kept_and_steps_to_nan_are_rejected():
    function, maximum = quadratics(1)
    state, _ = climb(function, maximum, 3)
    torch.testing.assert_close(state.point, maximum)
    edge = torch.full((1, 2), 0.5, dtype=torch.float64)
    state, values = climb(lambda x: (x.log().sum(-1) - 2 * x.sum(-1), 1 / x - 2), edge + 1, 60)  # NaN below 0
    assert torch.isfinite(values).all()
    torch.testing.assert_close(state.point, edge, rtol=1e-6, atol=0)
