"""Learned steps with untrained and random weights, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge import Network, Problem
from beamforge.classical.sum_rate.reduced_wmmse import Multipliers, ReducedWMMSE, from_ridge
from beamforge.core.constraints import TotalPower
from beamforge.core.observation import Observation
from beamforge.core.utilities import SumRate
from beamforge.learned.multipliers.features import observe
from beamforge.learned.multipliers.learned_step import LearnedStep
from beamforge.learned.multipliers.sum_rate import evaluate_state

PROBLEM = Problem(SumRate(), (TotalPower(1.0),))


def prepared(K=5, N=4, batch=3, noise=0.01):
    H = torch.randn(batch, K, N, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    network = Network.broadcast(H, noise)
    return ReducedWMMSE().prepare(PROBLEM.bind(network), Observation(network))


def random_module(std=0.0, seed=0):
    module, generator = LearnedStep(8).double(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters() if std else ():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return module


def apply_step(module, data, state):
    there = evaluate_state(data, state)
    return there.image, module(
        data, state, there.image, there.power / there.spent[:, None, None], observe(data).shifts[:, 0]
    )


def test_an_untrained_step_is_one_and_a_half_wmmse_steps():
    data, state = prepared(), from_ridge(prepared(), 10.0)
    image, found = apply_step(random_module(), data, state)
    start, end = (
        value.root.numpy() / np.linalg.norm(value.root.numpy(), axis=-1, keepdims=True) for value in (state, image)
    )
    np.testing.assert_allclose(found.root.detach().numpy(), start * (end / start) ** 1.5, rtol=1e-9)
    expected = state.gain.numpy() * (image.gain.numpy() / state.gain.numpy()) ** 1.5
    np.testing.assert_allclose(found.gain.detach().numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("std", [0.1, 1.0])
def test_fixed_points_of_wmmse_are_fixed_points(std):
    data = prepared(4, 6)  # all users are served, so the fixed point has no zeros
    state = from_ridge(data, 1.0)
    for _ in range(3000):
        state, _ = ReducedWMMSE().step(data, state)
    _, found = apply_step(random_module(std), data, state)
    torch.testing.assert_close(found.gain, state.gain, rtol=1e-4, atol=0)
    root = state.root / torch.linalg.vector_norm(state.root, dim=-1, keepdim=True)
    torch.testing.assert_close(found.root, root, rtol=1e-4, atol=0)


@pytest.mark.parametrize("std", [0.0, 1.0])
def test_a_user_that_is_switched_off_stays_off(std):
    data = prepared()
    root = from_ridge(data, 1.0).root.index_fill(-1, torch.tensor([1]), 0)
    state = Multipliers(root, from_ridge(data, 1.0).gain)
    image, found = apply_step(random_module(std), data, state)
    assert (image.root[:, 1] == 0).all() and (found.root[:, 1] == 0).all()
    assert (found.root[:, 0] > 0).all() and torch.isfinite(found.gain).all()


def test_relabelled_users_get_relabelled_multipliers():
    data, order = prepared(6, 5), torch.tensor([3, 1, 5, 0, 2, 4])
    shuffled = data._replace(H=data.H[:, order], gram=data.gram[:, order][:, :, order], weights=data.weights[:, order])
    module = random_module(0.5)
    _, found = apply_step(module, data, from_ridge(data, 10.0))
    _, other = apply_step(module, shuffled, from_ridge(shuffled, 10.0))
    torch.testing.assert_close(found.root[:, order], other.root)
    torch.testing.assert_close(found.gain[:, order], other.gain)
