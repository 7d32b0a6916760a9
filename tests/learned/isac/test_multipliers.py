"""Multipliers for isac: symmetries, derivatives, constraints in NumPy, failures that stay with their instance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from learning import all_random, check_gradient_of_loss

import beamforge
from beamforge import Instance, Network, Status, evaluate
from beamforge.classical.isac.dual import SensingQuadratic, initial_multipliers, multipliers
from beamforge.classical.isac.wmmse import SensingWMMSE
from beamforge.core import batching
from beamforge.core.errors import ConfigError
from beamforge.core.named_problems import build_problem
from beamforge.learned.isac import multipliers as isac_multipliers
from beamforge.learned.isac.derivatives import attached
from beamforge.learned.isac.features import observe
from beamforge.learned.isac.multipliers import SensingMultipliers
from beamforge.registry import create
from beamforge.scenarios import Isac
from beamforge.training.data.isac_grid import IsacGrid
from beamforge.training.stream import Stream


def sampled(count=6, seed=1, **config):
    config = {"users": 5, "antennas": 7, "targets": 3} | config
    instance = Isac(**config).sample(count, seed=seed, dtype=torch.complex128)
    return build_problem("isac", instance.context), instance


def random_solver(std=0.3, **settings):
    return all_random(SensingMultipliers(checkpoint="random", width=12, rounds=2, **settings), std).requires_grad_(
        False
    )


def predicted(solver, data):
    seen = observe(data)
    return isac_multipliers.initial_state(data, seen, solver.corrections(seen))


def prepared(problem, instance):
    return isac_multipliers.with_barrier(SensingWMMSE().prepare(problem.bind(instance.truth), instance.observation))


def violation(instance, W):
    """Largest relative violation of power and sensing SNR limits of each instance, in NumPy."""
    W, context = W.numpy(), {name: value.numpy() for name, value in instance.context.items()}
    n = np.arange(W.shape[1])
    a = np.exp(1j * np.pi * n * np.sin(context["target_angles"])[..., None]) / np.sqrt(len(n))
    gain = np.abs(context["target_gain"]) ** 2 / context["sensing_noise"][:, None]
    snr = gain * (np.abs(a.conj() @ W) ** 2).sum(-1)
    missed = (1 - snr / context["sensing_snr_target"][:, None]).max(-1)
    return np.maximum(missed, (np.abs(W) ** 2).sum((1, 2)) / context["p_max"] - 1)


# --- the prediction --------------------------------------------------------------------------------------------------
def test_prediction_is_equivariant_to_the_order_of_users_and_targets():
    data, solver = prepared(*sampled()), random_solver()
    users, targets = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 0, 1])
    moved = data._replace(
        H=data.H[:, users], weights=data.weights[:, users], C=data.C[..., targets], level=data.level[:, targets]
    )
    one, other = predicted(solver, data), predicted(solver, moved)
    torch.testing.assert_close(other.root, one.root[:, users], rtol=1e-4, atol=0)
    torch.testing.assert_close(other.gain, one.gain[:, users], rtol=1e-4, atol=0)
    torch.testing.assert_close(other.x[:, 1:], one.x[:, 1:][:, targets], rtol=1e-4, atol=0)
    torch.testing.assert_close(other.x[:, 0], one.x[:, 0], rtol=1e-4, atol=0)


def test_prediction_is_invariant_to_rotations_and_to_units():
    """A unitary map of the antennas changes nothing; more power for less sensitive receivers only the multipliers."""
    data, solver = prepared(*sampled()), random_solver()
    generator = torch.Generator().manual_seed(0)
    Q, _ = torch.linalg.qr(torch.randn(7, 7, dtype=torch.complex128, generator=generator))
    one, other = predicted(solver, data), predicted(solver, data._replace(H=data.H @ Q, C=Q.mH @ data.C))
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=0)
    scaled = data._replace(H=data.H / 10, C=data.C / 10, power=100 * data.power)
    other = predicted(solver, scaled)
    torch.testing.assert_close(other.root, one.root, rtol=1e-4, atol=0)
    torch.testing.assert_close(other.x[:, 0], one.x[:, 0] / 100, rtol=1e-4, atol=0)
    torch.testing.assert_close(other.x[:, 1:], one.x[:, 1:], rtol=1e-4, atol=0)


# --- derivatives -----------------------------------------------------------------------------------------------------
def test_derivatives_of_the_multipliers_agree_with_finite_differences():
    generator = torch.Generator().manual_seed(2)
    H = torch.randn(2, 4, 5, dtype=torch.complex128, generator=generator)
    q, g = (torch.rand(2, 4, dtype=torch.float64, generator=generator) + 0.3 for _ in range(2))
    data = prepared(*sampled(2, antennas=5))
    towards = torch.randn(2, 4, dtype=torch.float64, generator=generator)

    def problem(q):
        A, B = (H.mH * q[:, None, :]) @ H, H.mH * (q.sqrt() * g)[:, None, :]
        return SensingQuadratic(A, B, data.C, 0 * data.level + 0.5, data.power, 0 * data.power + 1e-2, 0 * data.level)

    def solved(q):
        return multipliers(problem(q), initial_multipliers(problem(q)))

    size = q.clone().requires_grad_()
    x = attached(problem(size), solved(q))
    torch.testing.assert_close(x.detach(), solved(q), rtol=1e-6, atol=0)
    h = 1e-5
    expected = (solved(q + h * towards) - solved(q - h * towards)) / (2 * h)
    for place in range(x.shape[-1]):
        (slope,) = torch.autograd.grad(x[:, place].sum(), size, retain_graph=True)
        torch.testing.assert_close((slope * towards).sum(-1), expected[:, place], rtol=1e-4, atol=1e-7)


def test_gradient_of_the_rate_agrees_with_finite_differences(monkeypatch):
    monkeypatch.setattr(isac_multipliers, "PRICE_WEIGHT", 0.0)  # the multipliers found are constants in that part
    source = IsacGrid(users=(3, 4), antennas=(4, 5), targets=(2, 2), weighted_share=0.5)
    solver = all_random(SensingMultipliers(checkpoint="random", width=6, rounds=1), 0.2).double()
    check_gradient_of_loss(solver, Stream.training(source, 0, 4, torch.complex128).batch_at(0), 1e-6)


# --- solutions -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("std", [0.0, 0.3, 3.0])
def test_constraints_hold_for_any_weights(std, steps):
    problem, instance = sampled(10)
    solution = random_solver(std, steps=steps).solve(problem, instance)
    assert torch.equal(solution.solved, SensingWMMSE().solve(problem, instance).solved)
    assert solution.solved.sum() >= 6 and (violation(instance, solution.W)[solution.solved.numpy()] <= 1e-8).all()


def test_more_steps_have_a_larger_rate():
    problem, instance = sampled(8)
    rates = [
        evaluate(problem.bind(instance.truth), instance, random_solver(steps=steps).solve(problem, instance).W).utility
        for steps in (0, 2, 8)
    ]
    assert (rates[1] >= rates[0] * (1 - 1e-4)).all() and (rates[2] >= rates[1] * (1 - 1e-4)).all()


def test_absurd_weights_fall_back_to_the_start_without_corrections():
    problem, instance = sampled(10)
    one, other = (
        evaluate(problem.bind(instance.truth), instance, solver.solve(problem, instance).W).utility
        for solver in (random_solver(0.0, steps=0), random_solver(30.0, steps=0))
    )
    assert (other >= 0.9 * one).all()


@pytest.mark.parametrize("method", [SensingMultipliers, SensingWMMSE])
def test_infeasible_and_broken_instances_do_not_affect_others(method):
    """A target with zero gain, one that needs too much power, and a channel that is not finite."""
    problem, instance = sampled(5)
    expected = method().solve(problem, instance)
    context = dict(instance.context)
    context["target_gain"] = context["target_gain"].clone()
    context["target_gain"][1, 0] = 0
    context["target_gain"][2, 1] = 1e-3
    H = instance.truth.channel.clone()
    H[3, 0, 0] = torch.nan
    network = Network.broadcast(H, instance.truth.noise, sensing_streams=7)
    solution = method().solve(build_problem("isac", context), Instance.perfect(network, **context))
    assert solution.status[1:4].tolist() == [Status.INFEASIBLE, Status.INFEASIBLE, Status.NUMERICAL_FAILURE]
    assert (solution.W[1:4] == 0).all() and torch.equal(solution.status[[0, 4]], expected.status[[0, 4]])
    torch.testing.assert_close(solution.W[[0, 4]], expected.W[[0, 4]], rtol=1e-6, atol=1e-8)


def test_an_instance_that_misses_a_limit_is_handed_over(monkeypatch):
    problem, instance = sampled(6)
    whole = SensingMultipliers().run

    def spoiled(self, data, count):
        W = whole(data, count)
        W[0] = torch.nan
        return W

    monkeypatch.setattr(SensingMultipliers, "run", spoiled)
    solution = SensingMultipliers().solve(problem, instance)
    first = int(solution.solved.nonzero()[0])
    assert solution.info["handed_over"].nonzero().flatten().tolist() == [first]
    part = batching.take((problem.bind(instance.truth), instance), slice(first, first + 1))
    expected = SensingWMMSE().solve(*part)
    torch.testing.assert_close(solution.W[first], expected.W[0], rtol=1e-6, atol=1e-8)
    assert (violation(instance, solution.W)[solution.solved.numpy()] <= 1e-8).all()


def test_users_of_zero_weight_and_without_a_channel():
    _, instance = sampled(3, sensing_snr_db=0.0)
    H = instance.truth.channel.clone()
    H[:, 4] = 0
    weights = torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0], dtype=torch.float64).expand(3, 5)
    network = Network.broadcast(H, instance.truth.noise, sensing_streams=7)
    changed = Instance.perfect(network, **instance.context, weights=weights)
    problem = build_problem("isac", changed.context)
    solution = SensingMultipliers().solve(problem, changed)
    best = SensingWMMSE().solve(problem, changed)
    report, converged = (evaluate(problem, changed, each.W) for each in (solution, best))
    assert torch.equal(solution.solved, best.solved) and solution.solved.sum() >= 2
    assert report.feasible[solution.solved].all()
    assert report.utility.sum() >= 0.97 * converged.utility.sum()


def test_it_serves_isac_by_name_and_is_not_the_default():
    problem, instance = sampled(2)
    asked = problem.bind(instance.truth)
    assert isinstance(create(asked, instance.truth, "multipliers"), SensingMultipliers)
    assert isinstance(create(asked, instance.truth), SensingWMMSE)
    context = {name: instance.context[name] for name in ("p_max", "target_angles", "target_gain", "sensing_noise")}
    context["sensing_snr_target"] = instance.context["sensing_snr_target"]
    found = beamforge.solve(
        instance.truth.channel, noise=instance.truth.noise, problem="isac", method="multipliers", steps=1, **context
    )
    torch.testing.assert_close(found.W, SensingMultipliers(steps=1).solve(problem, instance).W, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("settings", [{"steps": -1}, {"width": 0}, {"rounds": 0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match="must"):
        SensingMultipliers(checkpoint="random", **settings)


def test_a_checkpoint_of_another_size_is_refused(tmp_path):
    from beamforge.io.weights import load, save

    known = load("isac-multipliers")
    header = {**known.header, "settings": {**known.settings, "width": 8}}
    save(tmp_path / "other.safetensors", replace(known, header=header))
    with pytest.raises(ConfigError, match="graph filter"):
        SensingMultipliers(checkpoint=str(tmp_path / "other.safetensors"))
