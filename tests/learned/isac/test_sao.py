"""The layers as a method: exact masks, symmetries, limits that hold, inputs that are refused or flagged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learning import all_random

from beamforge import Instance
from beamforge.classical.isac.null_space import NullSpaceSensing
from beamforge.core.errors import ConfigError, UnsupportedProblem
from beamforge.core.named_problems import build_problem
from beamforge.core.network import Network
from beamforge.core.solution import Status
from beamforge.learned.isac.isac_data import IsacData
from beamforge.learned.isac.sao import SAOIsac
from beamforge.learned.l2o.masks import Masks
from beamforge.registry import create
from beamforge.reproduce.isac.score import score
from beamforge.scenarios import Isac
from beamforge.training.data.isac import MaskedIsac
from beamforge.training.stream import Stream

SMALL = {"checkpoint": "random", "size": 8, "layers": 2, "width": 8, "heads": 2, "depth": 4}


def made(std=0.2, **settings):
    solver = SAOIsac(**{**SMALL, **settings})
    return all_random(solver, std) if std else solver


def sampled(users=4, antennas=6, targets=2, count=6, dtype=torch.complex128, **fields):
    instance = Isac(users=users, antennas=antennas, targets=targets, **fields).sample(count, seed=2, dtype=dtype)
    return instance, build_problem("isac", instance.context)


def random_data(batch=8):
    """A training batch of several sizes and numbers of targets."""
    return IsacData.posed(Stream.training(MaskedIsac(size=8, sizes=2, targets=(1, 4)), 0, batch).batch_at(0))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize(("users", "antennas", "targets"), [(1, 1, 1), (1, 4, 3), (5, 2, 1), (4, 6, 2), (8, 8, 5)])
def test_claimed_solutions_keep_all_limits_by_an_independent_score(users, antennas, targets, dtype):
    instance, problem = sampled(users, antennas, targets, dtype=dtype, sensing_snr_db=3.0)
    solution = made().solve(problem, instance)
    rate, excess = score(instance, solution.W.numpy())
    solved = solution.solved.numpy()
    assert solved.any() and excess[solved].max() <= 1e-6
    spent = np.linalg.norm(solution.W.numpy()[solved], axis=(1, 2)) ** 2
    np.testing.assert_allclose(spent, 1, rtol=1e-12 if dtype == torch.complex128 else 1e-6)
    np.testing.assert_allclose(rate[solved], solution.trace[:, -1].numpy()[solved], rtol=1e-3)
    assert (solution.trace.diff() >= 0).all() and solution.trace.shape[-1] == 3


def test_what_stands_in_masked_places_changes_no_bit():
    solver, data = made(), random_data()
    noisy_H = torch.where(data.masks.samples(), data.H, torch.full_like(data.H, 1e3 - 5j))
    there = data.masks.antennas.unsqueeze(-1) & data.targets.unsqueeze(-2)
    noisy_C = torch.where(there, data.C, torch.full_like(data.C, 7e2 + 3j))
    noisy = IsacData.masked(noisy_H, noisy_C, data.weights, data.masks, data.targets)
    with torch.no_grad():
        one, two = solver.walk(data), solver.walk(noisy)
    assert len(one) == 3 and not data.targets.all() and not data.masks.samples().all()
    assert all(torch.equal(a, b) for pair in zip(one, two, strict=True) for a, b in zip(*pair, strict=True))


def test_masked_users_antennas_and_targets_are_as_good_as_none():
    instance, problem = sampled(5, 6, 3)
    data = IsacData.of(instance.truth, problem.bind(instance.truth))
    wide = torch.nn.functional.pad
    H, C = wide(data.H, (0, 2, 0, 3)), wide(data.C, (0, 1, 0, 2))
    padded = IsacData(H, C, wide(data.weights, (0, 3)), Masks.of(H), wide(data.targets, (0, 1)))
    with torch.no_grad():
        small, large = made().walk(data), made().walk(padded)
    for (W, F), (wide_W, wide_F) in zip(small, large, strict=True):
        torch.testing.assert_close(wide_W[:, :6, :5], W, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(wide_F[:, :6, :3], F, rtol=1e-7, atol=1e-8)
        assert (wide_W[..., 5:] == 0).all() and (wide_F[..., 3:] == 0).all() and (wide_W[:, 6:] == 0).all()


def test_relabelled_users_and_targets_have_relabelled_beams():
    instance, problem = sampled(5, 6, 3)
    data = IsacData.of(instance.truth, problem.bind(instance.truth))
    users, targets = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 0, 1])
    moved = data._replace(H=data.H[:, users], C=data.C[..., targets], masks=data.masks)
    solver = made()
    with torch.no_grad():
        (W, F), (moved_W, moved_F) = solver.walk(data)[-1], solver.walk(moved)[-1]
    torch.testing.assert_close(moved_W, W[..., users], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(moved_F, F[..., targets], rtol=1e-6, atol=1e-7)


def test_an_untrained_network_is_already_far_better_than_the_null_space():
    instance, problem = sampled(4, 8, 2, count=20)
    ours, simple = made(std=0).solve(problem, instance), NullSpaceSensing().solve(problem, instance)
    both = ours.solved & simple.solved
    rates = [instance.truth.rate(solution.W).sum(-1)[both].mean() for solution in (ours, simple)]
    assert both.sum() >= 10 and ours.solved.sum() >= simple.solved.sum() and rates[0] > rates[1]


def test_more_ascent_steps_better_an_untrained_network():
    instance, problem = sampled(6, 6, 3, count=20)
    means = []
    for steps in (0, 1, 4):
        solution = made(std=0, ascent_steps=steps).solve(problem, instance)
        means.append(instance.truth.rate(solution.W).sum(-1)[solution.solved].mean())
        assert (solution.iterations == 2 * steps).all()
    assert means[0] < means[1] < means[2]


def test_targets_out_of_reach_and_targets_without_a_gain_are_flagged_and_nothing_else_is():
    instance, _ = sampled(4, 6, 2, sensing_snr_db=0.0)
    gain = instance.context["target_gain"].clone()
    gain[0, 1], gain[3, 0] = 0, 1e-6
    changed = Instance.perfect(instance.truth, **{**instance.context, "target_gain": gain})
    solution = made().solve(build_problem("isac", changed.context), changed)
    before = made().solve(build_problem("isac", instance.context), instance)
    assert (solution.status[[0, 3]] == Status.INFEASIBLE).all() and (solution.W[[0, 3]] == 0).all()
    kept = [1, 2, 4, 5]
    assert torch.equal(solution.status[kept], before.status[kept]) and before.solved.any()
    torch.testing.assert_close(solution.W[kept], before.W[kept])


@pytest.mark.parametrize("streams", [0, 1, 2])
def test_fewer_sensing_streams_than_targets_still_keep_what_is_claimed(streams):
    instance, problem = sampled(3, 6, 3, count=12, sensing_snr_db=0.0)
    network = Network.broadcast(instance.truth.channel, instance.truth.noise, sensing_streams=streams)
    few = Instance.perfect(network, **instance.context)
    solution = made().solve(problem, few)
    assert solution.W.shape[-1] == 3 + streams and solution.solved.any()
    assert score(few, solution.W.numpy())[1][solution.solved.numpy()].max() <= 1e-6


def test_more_users_or_antennas_than_it_was_trained_for_are_refused():
    for users, antennas in ((9, 2), (2, 9)):
        instance, problem = sampled(users, antennas, 1)
        words = f"sao-isac has weights for up to 8 users and 8 antennas, got {users} and {antennas}; isac-wmmse"
        with pytest.raises(UnsupportedProblem, match=words):
            made().solve(problem, instance)
    instance, problem = sampled(17, 4, 1)
    with pytest.raises(UnsupportedProblem, match=r"sao-isac \(up to 16 users and 16 antennas.*does not serve.*wmmse"):
        create(problem, instance.truth, "sao-isac")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ascent_steps": -1}, "ascent_steps must not be negative, got -1"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        made(**settings)


def test_the_gradient_of_the_loss_is_right():
    """Along directions in which all parameters move together; and nearly every parameter has one."""
    source = MaskedIsac(size=4, sizes=1, targets=(2, 3), sensing_snr_db=(3.0, 3.0))
    batch = Stream.training(source, 3, 4, torch.complex128).batch_at(0)
    solver = all_random(SAOIsac(checkpoint="random", size=4, layers=2, width=4, heads=1, depth=2).double(), 0.3)
    solver.loss(batch, torch.Generator())[0].backward()
    parameters = list(solver.parameters())
    assert sum(bool(parameter.grad.abs().max() > 0) for parameter in parameters) >= 0.9 * len(parameters)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        moves = [torch.randn(each.shape, dtype=torch.float64, generator=generator) for each in parameters]
        ends = []
        with torch.no_grad():
            for step in (1e-6, -2e-6, 1e-6):
                for parameter, move in zip(parameters, moves, strict=True):
                    parameter += step * move
                ends.append(solver.loss(batch, torch.Generator())[0].item())
        slope = sum(float((each.grad * move).sum()) for each, move in zip(parameters, moves, strict=True))
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4, abs=1e-6)


def test_only_the_layers_of_a_window_learn():
    solver, batch = made().double(), Stream.training(MaskedIsac(size=4, sizes=1), 0, 4, torch.complex128).batch_at(0)
    solver.train()
    solver.focus(range(1, 2))
    solver.loss(batch, torch.Generator())[0].backward()
    assert solver.depth() == 2 and all(parameter.grad is None for parameter in solver.layers[0].parameters())
    assert any(parameter.grad.abs().max() > 0 for parameter in solver.layers[1].parameters())
