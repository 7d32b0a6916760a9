"""Graph convolutions against NumPy, equivariance, and the normalisation of inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from beamforge.core.errors import ConfigError
from beamforge.learned.hybrid.graph_convolution import BoundedExponential, GraphConvolution, GraphNetwork, InputNorm


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network(degree=2, seed=0):
    """A network with random weights in double precision."""
    made = GraphNetwork(3, (1.0, 0.1), width=8, degree=degree).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        parameter.data.copy_(0.5 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return made


def test_a_layer_is_a_polynomial_in_the_shift():
    layer = GraphConvolution(3, 2, degree=3).double()
    X, S = random(5, 4, 3), random(5, 4, 4, seed=1)
    weights = [tap.weight.detach().numpy().T for tap in layer.taps]
    expected = sum(np.linalg.matrix_power(S.numpy(), d) @ X.numpy() @ W for d, W in enumerate(weights))
    np.testing.assert_allclose(layer(X, S).detach().numpy(), expected + layer.taps[0].bias.detach().numpy(), atol=1e-12)


@pytest.mark.parametrize("users", [1, 2, 7])
def test_relabelled_users_have_relabelled_outputs(users):
    made, X, S = network(), random(3, users, 3), random(3, users, users, seed=1)
    order = torch.randperm(users, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(made(X[:, order], S[:, order][:, :, order]), made(X, S)[:, order])


def test_with_degree_0_users_do_not_depend_on_each_other():
    made, X = network(degree=0), random(2, 4, 3)
    moved = X.clone()
    moved[:, 1:] += 1
    S = random(2, 4, 4, seed=1)
    assert torch.equal(made(X, S)[:, 0], made(moved, S)[:, 0]) and not torch.equal(made(X, S), made(moved, S))
    X2 = network(degree=1)
    assert not torch.equal(X2(X, S)[:, 0], X2(moved, S)[:, 0])


def test_outputs_start_where_they_are_told_to_and_stay_within_their_bounds():
    fresh = GraphNetwork(3, (1.0, 0.1), degree=1)
    torch.testing.assert_close(
        fresh(torch.randn(2, 4, 3), torch.rand(2, 4, 4)), torch.tensor([1.0, 0.1]).expand(2, 4, 2)
    )
    bounded = BoundedExponential(2.0)
    out = bounded(torch.tensor([-1e3, 0.0, 1e-3, 1e3]))
    torch.testing.assert_close(out, torch.tensor([math.exp(-2), 1.0, math.exp(1e-3), math.exp(2)]))
    assert bounded(torch.tensor(bounded.inverse(0.3))).item() == pytest.approx(0.3)


def test_inputs_are_normalised_by_running_statistics_that_do_not_move_in_evaluation():
    norm = InputNorm(2)
    generator = torch.Generator().manual_seed(0)
    scale, shift = torch.tensor([3.0, 0.5]), torch.tensor([10.0, -4.0])
    for _ in range(800):
        norm(shift + scale * torch.randn(16, 2, 2, generator=generator))
    rows = norm.eval()(shift + scale * torch.randn(4000, 2, 2, generator=generator)).flatten(0, 1)
    assert rows.mean(0).abs().max() < 0.15 and (rows.std(0) - 1).abs().max() < 0.12
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    norm(torch.randn(16, 2, 2))
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("sizes", [{"width": 0}, {"layers": 0}, {"degree": -1}])
def test_sizes_out_of_range_are_refused(sizes):
    with pytest.raises(ConfigError):
        GraphNetwork(3, (1.0,), **sizes)
