"""The boundary of two users against the exact max-min, WMMSE and random beams, and rays for more users."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.classical.interference.pareto_boundary import ParetoBoundary, along_rays, boundary
from beamforge.core.evaluate import evaluate
from beamforge.core.named_problems import build_problem
from beamforge.core.network import Network
from beamforge.registry import create
from beamforge.scenarios.interference import Interference


def question(goal, antennas=2, snr_db=10.0, weights=True, count=8, cells=2):
    scenario = Interference(cells, antennas, snr_db, 0.5, random_weights=weights)
    instance = scenario.sample(count, seed=5, dtype=torch.complex128)
    return build_problem(goal, instance.context), instance


@pytest.mark.parametrize("antennas", [1, 2, 8])
@pytest.mark.parametrize("snr_db", [0.0, 25.0])
@pytest.mark.parametrize("weights", [False, True])
def test_it_is_the_global_optimum(antennas, snr_db, weights):
    for goal, method, above in (("max-min", "duality", 1e-6), ("sum-rate", "wmmse", np.inf)):
        problem, instance = question(goal, antennas, snr_db, weights)
        found = evaluate(problem, instance, ParetoBoundary().solve(problem, instance).W)
        other = create(problem, instance.truth, method).solve(problem, instance).W
        ratio = found.utility / evaluate(problem, instance, other).utility
        assert found.feasible.all()
        assert (ratio > 1 - 1e-9).all() and (ratio < 1 + above).all()


def test_no_random_beams_are_beyond_the_boundary():
    _, instance = question("sum-rate", count=2)
    power = instance.context["p_max_transmitter"]
    rates, W = boundary(instance.truth, power, points=401)
    torch.testing.assert_close(instance.truth.rate(W[:, 200]), rates[:, 200])
    assert (W.abs().square().sum(-2) <= power[:, None] * (1 + 1e-9)).all()
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(2, 4000, 2, 2, dtype=torch.complex128, generator=generator)
    X = X / X.abs().square().sum(-2, keepdim=True).sqrt() * power[:, None, None].sqrt()
    wide = Network.interference(instance.truth.H.repeat_interleave(4000, 0), instance.truth.noise[0])
    tried = wide.rate(X.flatten(0, 1)).unflatten(0, (2, 4000))
    slope = (tried[..., 1] / tried[..., 0]).atan() * 2 / np.pi * 400
    near = torch.take_along_dim(rates, slope.round().long().unsqueeze(-1), 1)
    assert ((tried / near).amin(-1) <= 1 + 0.02).all()
    assert ((tried / near).amin(-1) > 0.6).any()


def test_ends_are_those_of_one_user_alone():
    _, instance = question("sum-rate", antennas=3)
    rates, _ = boundary(instance.truth, 10.0, points=5)
    best = torch.log2(1 + 10 * instance.truth.H.abs().square().sum(-1).diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(rates[:, 0, 0], best[:, 0])
    torch.testing.assert_close(rates[:, -1, 1], best[:, 1])
    assert (rates[:, 1:, 0] <= rates[:, :-1, 0] + 1e-9).all() and (rates[:, 1:, 1] >= rates[:, :-1, 1] - 1e-9).all()


def test_rays_of_two_users_end_on_the_same_boundary():
    _, instance = question("max-min", antennas=3, count=2)
    power = instance.context["p_max_transmitter"]
    rates, _ = boundary(instance.truth, power, points=5)
    angle = torch.linspace(0, np.pi / 2, 5, dtype=torch.float64)[1:-1]
    rays = torch.stack([angle.cos(), angle.sin()], -1)
    found, W = along_rays(instance.truth, power, rays)
    torch.testing.assert_close((found / rays).amin(-1), (rates[:, 1:-1] / rays).amin(-1), rtol=1e-6, atol=1e-6)
    assert (found <= rates[:, 1:-1] * (1 + 1e-6)).all()  # where a ray leaves at a flat side, one of them has more
    assert W.shape == (2, 3, 3, 2)


def test_users_without_a_channel_and_parallel_channels():
    problem, instance = question("sum-rate", count=4)
    H = instance.truth.H
    H[0, :, 0], H[1], H[2, 0, 1] = 0, 0, 2j * H[2, 0, 0]
    for goal in ("sum-rate", "max-min"):
        problem = build_problem(goal, instance.context)
        solution = ParetoBoundary().solve(problem, instance)
        assert solution.solved.all() and torch.isfinite(solution.W.abs()).all()
        report = evaluate(problem, instance, solution.W)
        assert report.feasible.all() and report.utility[2:].gt(0).all()
