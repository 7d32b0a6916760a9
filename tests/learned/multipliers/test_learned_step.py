"""Learned strides: where they lead whatever their weights, against NumPy."""

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
from beamforge.learned.multipliers.sum_rate import reach

PROBLEM = Problem(SumRate(), (TotalPower(1.0),))


def cell(K=5, N=4, batch=3, noise=0.01):
    H = torch.randn(batch, K, N, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    network = Network.broadcast(H, noise)
    return ReducedWMMSE().prepare(PROBLEM.bind(network), Observation(network))


def stride(std=0.0, seed=0):
    module, generator = LearnedStep(8).double(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters() if std else ():
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return module


def follow(module, data, state):
    there = reach(data, state)
    return there.image, module(
        data, state, there.image, there.power / there.spent[:, None, None], observe(data).shifts[:, 0]
    )


def test_untrained_it_goes_one_and_a_half_times_as_far():
    data, state = cell(), from_ridge(cell(), 10.0)
    image, found = follow(stride(), data, state)
    start, end = (
        value.root.numpy() / np.linalg.norm(value.root.numpy(), axis=-1, keepdims=True) for value in (state, image)
    )
    np.testing.assert_allclose(found.root.detach().numpy(), start * (end / start) ** 1.5, rtol=1e-9)
    expected = state.gain.numpy() * (image.gain.numpy() / state.gain.numpy()) ** 1.5
    np.testing.assert_allclose(found.gain.detach().numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("std", [0.1, 1.0])
def test_where_wmmse_stays_it_stays(std):
    data = cell(4, 6)  # everybody is served, so that the fixed point has no zeros
    state = from_ridge(data, 1.0)
    for _ in range(3000):
        state, _ = ReducedWMMSE().step(data, state)
    _, found = follow(stride(std), data, state)
    torch.testing.assert_close(found.gain, state.gain, rtol=1e-4, atol=0)
    root = state.root / torch.linalg.vector_norm(state.root, dim=-1, keepdim=True)
    torch.testing.assert_close(found.root, root, rtol=1e-4, atol=0)


@pytest.mark.parametrize("std", [0.0, 1.0])
def test_who_is_switched_off_stays_off(std):
    data = cell()
    root = from_ridge(data, 1.0).root.index_fill(-1, torch.tensor([1]), 0)
    state = Multipliers(root, from_ridge(data, 1.0).gain)
    image, found = follow(stride(std), data, state)
    assert (image.root[:, 1] == 0).all() and (found.root[:, 1] == 0).all()
    assert (found.root[:, 0] > 0).all() and torch.isfinite(found.gain).all()


def test_users_are_a_set():
    data, order = cell(6, 5), torch.tensor([3, 1, 5, 0, 2, 4])
    shuffled = data._replace(H=data.H[:, order], gram=data.gram[:, order][:, :, order], weights=data.weights[:, order])
    module = stride(0.5)
    _, found = follow(module, data, from_ridge(data, 10.0))
    _, other = follow(module, shuffled, from_ridge(shuffled, 10.0))
    torch.testing.assert_close(found.root[:, order], other.root)
    torch.testing.assert_close(found.gain[:, order], other.gain)
