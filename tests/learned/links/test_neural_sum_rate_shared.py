"""Learned steps of power control: properties that hold for any weights, good, random or absurd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learning import all_random, check_gradient_of_loss

import beamforge
from beamforge import Network, Problem
from beamforge.checks import check_solver
from beamforge.classical.links.single_link_starts import climb, single_link_starts
from beamforge.classical.links.wmmse import LinkWMMSE, SharedPower
from beamforge.core.batching import take
from beamforge.core.constraints import PerTransmitterPower, TotalPower
from beamforge.core.errors import ConfigError, UnsupportedProblem
from beamforge.core.named_problems import build_problem
from beamforge.core.utilities import SumRate
from beamforge.io import weights
from beamforge.io.weights import Weights
from beamforge.learned.links.neural_sum_rate_shared import KEPT, LEADERS, NeuralSumRateShared, Rounds, link_features
from beamforge.registry import configure
from beamforge.scenarios.base import TEST_SEEDS
from beamforge.scenarios.power_control import Strong, Weak
from beamforge.training.data.links import Links
from beamforge.training.recipe import Recipe
from beamforge.training.stream import Stream

MODEL = "neural-sum-rate-shared"


def random_solver(std, seed=0, **settings):
    return all_random(NeuralSumRateShared(checkpoint="random", **settings), std, seed)


def problem_and_instances(links=8, count=10, kind=Strong, dtype=torch.complex128, **settings):
    """A problem and its instances."""
    instance = kind(links=links, **settings).sample(count, seed=4, dtype=dtype)
    return build_problem("sum-rate", instance.context), instance


def rate(solver, problem, instance):
    """The weighted sum rate, computed from the beams."""
    with torch.no_grad():
        solution = solver.solve(problem, instance)
    assert solution.solved.all()
    return (problem.bind(instance.truth).maximise.weights * instance.truth.rate(solution.W)).sum(-1)


def equal(problem, instance):
    """The rate of equal powers."""
    network, L = instance.truth, instance.truth.users
    power = problem.bind(network).get(TotalPower).limit
    W = (power / L).sqrt()[:, None, None].expand(-1, 1, L).to(network.H.dtype)
    return (problem.bind(network).maximise.weights * network.rate(W)).sum(-1)


# --- solutions -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("std", [0.0, 0.2])
@pytest.mark.parametrize("settings", [{"steps": 0}, {"samples": 3}])
def test_any_weights_conform(std, settings):
    check_solver(random_solver(std, **settings))


@pytest.mark.parametrize("links", [1, 2, 5, 40])
def test_one_set_of_weights_for_any_number_and_the_trace_is_the_rate(links):
    """The last rate of the trace against the rate of the powers in NumPy; all power is spent."""
    problem, instance = problem_and_instances(links, 2, random_weights=True)
    with torch.no_grad():
        solution = random_solver(0.2).solve(problem, instance)
    p = solution.W.abs().square().squeeze(-2).numpy()
    G, worth = instance.truth.gains.numpy(), instance.context["weights"].numpy()
    for i in range(2):
        received = G[i] * p[i]
        own = np.diagonal(received)
        expected = (worth[i] * np.log2(1 + own / (0.05 + np.where(np.eye(links), 0, received).sum(-1)))).sum()
        assert solution.trace[i, -1].item() == pytest.approx(expected, rel=1e-9)
        assert p[i].sum() == pytest.approx(2.0, rel=1e-9)


def test_relabelled_links_get_relabelled_powers():
    problem, instance = problem_and_instances(9, 6, random_weights=True)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    G = instance.truth.gains[:, order][:, :, order]
    moved = build_problem("sum-rate", instance.context | {"weights": instance.context["weights"][:, order]})
    solver = random_solver(0.3)
    with torch.no_grad():
        there = solver.solve(problem, instance).W[..., order]
        here = solver.solve(moved, Network.power_control(G, 0.05)).W
    torch.testing.assert_close(here, there, rtol=1e-6, atol=1e-8)


def test_untrained_rounds_are_stretched_steps_of_wmmse():
    problem, instance = problem_and_instances(7, 6)
    data = SharedPower.of(problem.bind(instance.truth), instance.truth)
    z = Rounds(width=4, rounds=1).double()(data, single_link_starts(data, LEADERS))
    _, rates = climb(data, single_link_starts(data, LEADERS), 1)
    rises = data.rate(z.exp()) >= rates[..., 0]
    assert rises.double().mean() > 0.9
    torch.testing.assert_close(data.rate(z.exp())[rises], rates[..., 1][rises])


def test_links_of_weight_zero_get_no_power_and_units_of_weights_do_not_matter():
    _, instance = problem_and_instances(6, 10)
    worth = torch.tensor([5.0, 1, 1, 1, 1, 0], dtype=torch.float64)
    with torch.no_grad():
        one, other = (
            random_solver(0.1).solve(Problem(SumRate(unit * worth), (TotalPower(2.0),)), instance).W
            for unit in (1, 1e-3)
        )
    assert (one.abs().square()[..., -1] < 1e-9).all(), "a link of weight zero has power"
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


# --- safeguards ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("std", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("kind", [Strong, Weak])
def test_never_worse_than_equal_power(std, kind):
    for dtype, slack in ((torch.complex128, 1e-12), (torch.complex64, 1e-5)):
        problem, instance = problem_and_instances(10, 40, kind, dtype, random_weights=True)
        for steps in (0, 2):
            found = rate(random_solver(std, steps=steps), problem, instance)
            assert (found >= equal(problem, instance) * (1 - slack)).all()


def test_no_result_is_worse_than_a_given_start():
    problem, instance = problem_and_instances(16, 20)
    with torch.no_grad():
        start = random_solver(0.0, samples=8, steps=30).solve(problem, instance).W
        found = random_solver(3.0, steps=0).solve(problem, instance, start=start).W
    assert (
        problem.bind(instance.truth).value(instance.truth, found)
        >= rate(random_solver(0.0, samples=8, steps=30), problem, instance) * (1 - 1e-9)
    ).all()


@pytest.mark.parametrize("std", [0.0, 0.3, 3.0])
def test_more_steps_or_samples_never_lower_the_rate(std):
    problem, instance = problem_and_instances(12, 30)
    found = torch.stack(
        [rate(random_solver(std, steps=steps), problem, instance) for steps in (0, 1, 2, 5, 10, 20)], -1
    )
    assert (found.diff(dim=-1) >= -1e-12).all() and (found[:, -1] > found[:, 0]).any()
    found = torch.stack([rate(random_solver(std, samples=count), problem, instance) for count in (1, 2, 4, 8, 20)], -1)
    assert (found.diff(dim=-1) >= -1e-12).all() and (found[:, -1] > found[:, 0]).any()
    with torch.no_grad():
        trace = random_solver(std).solve(problem, instance).trace
    assert trace.shape == (30, 11) and (trace.diff(dim=-1) >= 0).all()


def hostile(name):
    """Gains far from training: [4, L, L] and the noise."""
    generator = torch.Generator().manual_seed(0)
    G = torch.rand(4, 6, 6, dtype=torch.float64, generator=generator)
    if name == "200 links":
        return torch.rand(2, 200, 200, dtype=torch.float64, generator=generator), 0.05
    if name == "gains over 120 dB":
        return 10 ** (-12 * G), 0.05
    if name == "gains over 120 dB, almost no noise":
        return 10 ** (-12 * G), 1e-12
    if name == "no interference":
        return torch.diag_embed(G[:, 0]), 0.05
    if name == "links without a direct gain":
        return G * (1 - torch.diag(torch.tensor([1.0, 0, 1, 0, 0, 0], dtype=torch.float64))), 0.05
    if name == "no direct gain at all":
        return G * (1 - torch.eye(6, dtype=torch.float64)), 0.05
    if name == "noise apart by 120 dB":
        return G, torch.logspace(-10, 2, 6, dtype=torch.float64)
    return torch.zeros_like(G), 0.05


HOSTILE = [
    "200 links",
    "gains over 120 dB",
    "gains over 120 dB, almost no noise",
    "no interference",
    "links without a direct gain",
    "no direct gain at all",
    "noise apart by 120 dB",
    "nothing",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("std", [0.1, 3.0])
def test_gains_far_from_training_get_at_least_equal_power(name, std):
    G, noise = hostile(name)
    for dtype, slack in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        level = noise.to(dtype) if isinstance(noise, torch.Tensor) else noise
        network = Network.power_control(G.to(dtype), level)
        instance = type(problem_and_instances(2, 1)[1]).perfect(network)
        problem = Problem(SumRate(), (TotalPower(2.0),))
        found, floor = rate(random_solver(std), problem, instance), equal(problem.bind(network), instance)
        assert (found >= floor * (1 - slack)).all(), f"{found.tolist()} below {floor.tolist()}"
        data = SharedPower.of(problem.bind(network), network)
        _, features = link_features(data, single_link_starts(data, 3).log())
        assert all(torch.isfinite(value).all() and value.abs().max() < 60 for value in features)


@pytest.mark.parametrize("weights_are", [0.0, 1e-12])
def test_weights_that_are_zero_or_tiny(weights_are):
    problem, instance = problem_and_instances(5, 4)
    problem = Problem(SumRate(weights_are), (TotalPower(2.0),))
    with torch.no_grad():
        solution = random_solver(0.2).solve(problem, instance)
    assert solution.solved.all() and torch.isfinite(solution.W.abs()).all()


def test_without_interference_the_powers_are_those_of_water_filling():
    from oracles import water_filling

    gains = torch.tensor([4.0, 2.0, 1.0, 0.05], dtype=torch.float64)
    problem = Problem(SumRate(), (TotalPower(2.0),))
    with torch.no_grad():
        W = random_solver(0.05, steps=80).solve(problem, Network.power_control(torch.diag(gains), 0.5)).W
    np.testing.assert_allclose(W.abs().square().squeeze(-2).numpy(), water_filling(gains / 0.5, 2.0), atol=1e-3)


def test_other_instances_and_the_chunk_size_do_not_matter(monkeypatch):
    problem, instance = problem_and_instances(12, 9, random_weights=True)
    bound = problem.bind(instance.truth)
    solver = random_solver(0.5)
    together = rate(solver, problem, instance)
    monkeypatch.setattr("beamforge.learned.links.neural_sum_rate_shared.CHUNK", 1)
    torch.testing.assert_close(rate(solver, problem, instance), together, rtol=1e-9, atol=0)
    alone = [rate(solver, *take((bound, instance), slice(i, i + 1))) for i in range(9)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-9, atol=0)


# --- the loss --------------------------------------------------------------------------------------------------------
def test_the_derivative_of_the_loss_is_that_of_finite_differences():
    source = Links(links=(5, 5), strong_share=0.7, gain_db=(-10.0, 10.0))
    instance = Stream.training(source, 0, 6, torch.complex128).batch_at(0)
    solver = random_solver(0.1, width=5, rounds=3).double()
    check_gradient_of_loss(solver, instance, step=1e-6)


def test_the_loss_is_the_rate_of_the_best_candidate():
    """Minus its logarithm; the soft maximum is low by at most log(number) over the sharpness."""
    instance = Stream.training(Links(links=(16, 16), strong_share=1.0), 0, 12, torch.complex128).batch_at(0)
    problem = build_problem("sum-rate", instance.context).bind(instance.truth)
    solver = random_solver(0.0)
    with torch.no_grad():
        loss, _ = solver.loss(instance, torch.Generator())
        p = solver.candidates(SharedPower.of(problem, instance.truth))
    assert p.shape == (12, KEPT, 16)
    best = (
        torch.stack(
            [
                problem.value(instance.truth, (2 * p[:, i]).sqrt().unsqueeze(-2).to(torch.complex128))
                for i in range(KEPT)
            ]
        )
        .amax(0)
        .log()
        .mean()
    )
    assert -best - 0.02 < loss < -best + 0.03


def test_learning_lowers_the_loss():
    stream = Stream.training(Links(links=(16, 16), strong_share=1.0), 0, 16)
    torch.manual_seed(0)
    solver, generator = NeuralSumRateShared(checkpoint="random", rounds=2), torch.Generator()
    held_out = Stream.validation(stream.source, 64).batch_at(0)
    with torch.no_grad():
        before = solver.loss(held_out, generator)[0].item()
    optimiser = torch.optim.AdamW(solver.parameters(), lr=1e-2)
    for step in range(30):
        optimiser.zero_grad()
        solver.loss(stream.batch_at(step), generator)[0].backward()
        optimiser.step()
    with torch.no_grad():
        assert solver.loss(held_out, generator)[0].item() < before - 0.003


# --- the weights that come with the package ------------------------------------------------------------------------
def test_shipped_weights_state_their_origin():
    header = weights.load(MODEL).header
    assert header["version"] and len(header["commit"]) >= 7 and header["commit"] != "unknown"
    recipe = Recipe.find(MODEL).tables()
    for section in ("model", "data"):
        wanted = {name: list(value) if isinstance(value, tuple) else value for name, value in recipe[section].items()}
        assert header["recipe"][section] == wanted, "the shipped recipe is not that of the shipped weights"


@pytest.mark.parametrize(
    ("links", "steps", "samples", "percent"),
    [(4, 10, 1, 99.9), (16, 10, 1, 99.8), (64, 0, 1, 99.5), (64, 10, 8, 99.7), (100, 10, 1, 99.0)],
)
def test_shipped_weights_reach_the_best_of_a_climb_from_every_link(links, steps, samples, percent):
    instance = Strong(links).sample(30, seed=TEST_SEEDS[3])
    problem = build_problem("sum-rate", instance.context)
    data = SharedPower.of(problem.bind(instance.truth), instance.truth)
    _, rates = climb(data, single_link_starts(data, 64), 30)
    found = rate(NeuralSumRateShared(steps=steps, samples=samples), problem, instance)
    assert found.mean() >= percent / 100 * rates[..., -1].amax(-1).mean()


@pytest.mark.parametrize("links", [4, 64])
def test_shipped_weights_are_optimal_under_weak_interference(links):
    instance = Weak(links, random_weights=True).sample(20, seed=TEST_SEEDS[3])
    problem = build_problem("sum-rate", instance.context)
    best = problem.value(instance.truth, LinkWMMSE(starts=1).solve(problem, instance).W)
    assert rate(NeuralSumRateShared(), problem, instance).mean() >= 0.9995 * best.mean()


def test_by_name():
    G = torch.rand(20, 8, 8, generator=torch.Generator().manual_seed(0))
    found = beamforge.solve(G, noise=0.05, p_max=2.0, method=MODEL, steps=2, samples=3)
    assert found.trace.shape == (20, 3) and (found.iterations == 2).all()


# --- weights and settings --------------------------------------------------------------------------------------------
def test_weights_come_back_from_a_file(tmp_path):
    path, solver = tmp_path / "w.safetensors", random_solver(0.3, width=10, rounds=3)
    header = {"model": MODEL, "settings": {"checkpoint": "random", "width": 10, "rounds": 3}}
    weights.save(path, Weights(solver.state_dict(), header))
    again = NeuralSumRateShared(checkpoint=str(path))
    assert not any(parameter.requires_grad for parameter in again.parameters()), "loaded weights require gradients"
    problem, instance = problem_and_instances(5, 5)
    with torch.no_grad():
        assert torch.equal(again.solve(problem, instance).W, solver.solve(problem, instance).W)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: Weights(w.tensors, w.header | {"model": "other"}), f"checkpoint must be of model {MODEL}"),
        (lambda w: Weights(w.tensors, {**w.header, "settings": {"width": 99, "rounds": 3}}), "checkpoint must fit"),
        (lambda w: Weights({**w.tensors, "extra": torch.ones(1)}, w.header), "checkpoint must fit"),
        (lambda w: Weights(w.tensors, {**w.header, "settings": {}}), "checkpoint must fit"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_a_sentence(change, words, tmp_path):
    solver = random_solver(0.3, width=10, rounds=3)
    header = {"model": MODEL, "settings": {"width": 10, "rounds": 3}}
    weights.save(tmp_path / "w.safetensors", change(Weights(solver.state_dict(), header)))
    with pytest.raises(ConfigError, match=words) as refused:
        NeuralSumRateShared(checkpoint=str(tmp_path / "w.safetensors"))
    assert "\n" not in str(refused.value) and "w.safetensors" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": "-1"}, "steps must not be negative, got -1"),
        ({"samples": "0"}, "samples, width and rounds must be at least 1, got 0"),
        ({"rounds": "0", "checkpoint": "random"}, "samples, width and rounds must be at least 1"),
        ({"sample": "3"}, "did you mean 'samples'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        configure(NeuralSumRateShared, {"checkpoint": "random"} | settings)


def test_other_questions_are_refused():
    limits = Problem(SumRate(), (PerTransmitterPower(1.0),))
    with pytest.raises(UnsupportedProblem):
        random_solver(0.1).solve(limits, problem_and_instances(3, 2)[1])
