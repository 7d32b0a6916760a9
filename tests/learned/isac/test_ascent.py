"""Gradient and steps of the joint ascent against NumPy and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from isac_problems import beams, normal, problem, score

from beamforge.learned.isac.ascent import ascend, direction, objective, slopes
from beamforge.learned.isac.barrier import barrier
from beamforge.learned.l2o.ascent import of_full_power

PENALTY = torch.tensor([[0.3, 0.2, 0.1]], dtype=torch.float64)


def at_full_power(data, X, penalty):
    """The objective of beams scaled to full power, from the independent score."""
    X = X / torch.linalg.matrix_norm(X)[:, None, None]
    K = data.H.shape[1]
    rate, sensed = score(data, X[..., :K], X[..., K:])
    return rate + (penalty.numpy() * barrier(torch.as_tensor(sensed - 1)).value.numpy()).sum(-1)


@pytest.mark.parametrize("gain", [0.3, 3.0])  # all targets missed, and all met
def test_the_gradient_is_that_of_the_objective_at_full_power(gain):
    data = problem(gain=gain)
    W, F = beams(data)
    met = data.sensed(torch.cat([W, F], -1)) > 1
    assert met.all() if gain > 1 else not met.any()
    penalty, X = PENALTY.expand(3, -1), torch.cat([W, F], -1)
    np.testing.assert_allclose(objective(data, W, F, penalty), at_full_power(data, X, penalty), rtol=1e-10)
    found = slopes(data, W, F, penalty).gradient
    for seed in range(4):
        move = normal(*X.shape, seed=10 + seed)
        ends = [at_full_power(data, X + step * move, penalty) for step in (1e-6, -1e-6)]
        expected = (ends[0] - ends[1]) / 2e-6
        slope = 2 * (found.conj() * move).real.sum((-2, -1))
        np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-5 * abs(expected).max())


def test_a_step_solves_its_linear_system():
    """``A d + sum_m 2 w_m Re<v_m, d> v_m = gradient``, with A and v_m built anew in NumPy."""
    data = problem()
    W, F = beams(data)
    found, auxiliary = slopes(data, W, F, PENALTY.expand(3, -1)), normal(3, 4, 5, seed=9)
    d = direction(data, auxiliary, W, F, PENALTY.expand(3, -1)).numpy()
    for i in range(3):
        H, C, X = data.H[i].numpy(), data.C[i].numpy(), torch.cat([W, F], -1)[i].numpy()
        G, prices = auxiliary[i].numpy(), found.prices[i].numpy()
        share = (abs(G) ** 2).sum(-1) / (abs(H) ** 2).sum(-1)
        left = (prices.sum() / share.sum()) * G.conj().T @ G @ d[i] + found.power[i].numpy() * d[i]
        for m in range(3):
            c = C[:, [m]]
            v = c @ (c.conj().T @ X) - np.linalg.norm(c.conj().T @ X) ** 2 * X
            left = left + 2 * found.curvature[i, m].numpy() * (v.conj() * d[i]).real.sum() * v
        np.testing.assert_allclose(left, found.gradient[i].numpy(), rtol=1e-7, atol=1e-8)


def test_steps_raise_the_objective_keep_the_power_and_reach_the_targets():
    data = problem(batch=20, gain=1.5)
    W, F = beams(data)
    penalty = PENALTY.expand(20, -1)
    before, length = objective(data, W, F, penalty), torch.ones(20, 7, dtype=torch.float64)
    missed = (data.margins(torch.cat([W, F], -1)) < 0).any(-1)
    auxiliary = data.H
    W, F = ascend(data, auxiliary, W, F, penalty, length, 8)
    after = objective(data, W, F, penalty)
    power = W.abs().square().sum((-2, -1)) + F.abs().square().sum((-2, -1))
    torch.testing.assert_close(power, torch.ones(20, dtype=torch.float64))
    assert missed.any() and (data.margins(torch.cat([W, F], -1)) > 0).all(-1).sum() >= 19
    assert (after > before).all()


def test_derivatives_of_steps_are_those_of_finite_differences():
    data = problem(batch=1, users=2, antennas=3, targets=2)
    W, F = beams(data)
    auxiliary, penalty = normal(1, 2, 3, seed=9), PENALTY[:, :2].clone()
    length = torch.full((1, 4), 0.5, dtype=torch.float64)
    leaves = [leaf.clone().requires_grad_() for leaf in (W, F, auxiliary, penalty, length)]

    def after(W, F, auxiliary, penalty, length):
        X = of_full_power(torch.cat([W, F], -1))
        return objective(data, *ascend(data, auxiliary, X[..., :2], X[..., 2:], penalty, length, 1), PENALTY[:, :2])

    assert torch.autograd.gradcheck(after, leaves, eps=1e-6, atol=1e-4, rtol=1e-4)


def test_masked_targets_do_not_count():
    data = problem()
    W, F = beams(data)
    off = data._replace(C=data.C * torch.tensor([1.0, 1.0, 0.0]), targets=torch.tensor([[True, True, False]] * 3))
    fewer = data._replace(C=data.C[..., :2], targets=data.targets[:, :2])
    found = direction(off, data.H, W, F, PENALTY.expand(3, -1))
    expected = direction(fewer, data.H, W, F, PENALTY[:, :2].expand(3, -1))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
