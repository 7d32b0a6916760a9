"""Learned multipliers: properties that hold for any weights, good, random or absurd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from learning import all_random, check_gradient_of_loss
from oracles_sumrate import sum_rate

from beamforge import Network, Problem
from beamforge.checks import check_solver
from beamforge.classical.linear import RZF
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE, annealed, from_ridge
from beamforge.core.batching import take, tree_map
from beamforge.core.constraints import PerAntennaPower, TotalPower
from beamforge.core.errors import ConfigError, UnsupportedProblem
from beamforge.core.observation import Observation
from beamforge.core.utilities import SumRate
from beamforge.io import weights
from beamforge.io.weights import Weights
from beamforge.learned.multipliers.features import observe
from beamforge.learned.multipliers.sum_rate import SumRateMultipliers, evaluate_state, plain_steps
from beamforge.registry import configure
from beamforge.scenarios import Rayleigh
from beamforge.training.data.downlink import Downlink
from beamforge.training.stream import Stream

PROBLEM = Problem(SumRate(), (TotalPower(1.0),))


def random_solver(std, steps=3, seed=0, **settings):
    return all_random(SumRateMultipliers(steps=steps, checkpoint="random", **settings), std, seed)


def channels(K, N, batch=6, seed=0, dtype=torch.complex128):
    return torch.randn(batch, K, N, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def rate(solver, network, problem=PROBLEM):
    with torch.no_grad():
        solution = solver.solve(problem, network)
    assert solution.solved.all()
    return network.rate(solution.W).sum(-1)


# --- solutions -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("std", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("steps", [0, 3])
def test_any_weights_conform(std, steps):
    check_solver(random_solver(std, steps))


@pytest.mark.parametrize(("K", "N"), [(1, 4), (2, 1), (5, 3), (5, 5), (5, 40), (40, 30)])
def test_one_set_of_weights_for_any_size_and_the_rate_is_that_of_the_trace(K, N):
    """The last rate of the trace against the rate of the beams in NumPy."""
    H, noise = channels(K, N, batch=2), torch.rand(2, K, dtype=torch.float64) + 0.1
    weight = torch.rand(2, K, dtype=torch.float64) + 0.5
    problem = Problem(SumRate(weight), (TotalPower(3.0),))
    with torch.no_grad():
        solution = random_solver(0.3).solve(problem, Network.broadcast(H, noise))
    expected = [
        sum_rate(H[i : i + 1].numpy(), solution.W[i].numpy(), [0] * K, noise[i].numpy(), weight[i].numpy())
        for i in range(2)
    ]
    np.testing.assert_allclose(solution.trace[:, -1].numpy(), expected, rtol=1e-9)
    torch.testing.assert_close(solution.W.abs().square().sum((-2, -1)), torch.full((2,), 3.0, dtype=torch.float64))


def test_relabelled_users_get_relabelled_beams():
    H = channels(9, 7)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    solver = random_solver(0.3)
    with torch.no_grad():
        there = solver.solve(PROBLEM, Network.broadcast(H, 0.01)).W[..., order]
        here = solver.solve(PROBLEM, Network.broadcast(H[:, order], 0.01)).W
    torch.testing.assert_close(here, there, rtol=1e-6, atol=1e-8)


def test_rates_depend_on_the_gram_matrix_alone():
    """Channels with the same Gram matrix get the same rates: a rotation into more antennas changes nothing."""
    H = channels(6, 6)
    rotation = torch.linalg.qr(channels(11, 6, batch=1, seed=4))[0].mH
    solver = random_solver(0.3, steps=0)
    few = rate(solver, Network.broadcast(H, 0.02))
    torch.testing.assert_close(few, rate(solver, Network.broadcast(H @ rotation, 0.02)), rtol=1e-9, atol=0)


def test_the_filter_runs_on_the_device_of_the_channels():
    """The command line makes a method before it knows the device; "meta" stands in for one."""
    network = Network.broadcast(channels(3, 3), 0.1)
    data = ReducedWMMSE().prepare(PROBLEM.bind(network), Observation(network))
    data, seen = (tree_map(lambda leaf: leaf.to("meta"), tree) for tree in (data, observe(data)))
    found, ridge = random_solver(0.3).predict(data, seen)
    assert {leaf.device.type for leaf in (*found, ridge)} == {"meta"}
    assert {leaf.dtype for leaf in (*found, ridge)} == {torch.float64}


def test_users_of_weight_zero_get_no_power():
    H = channels(6, 4)
    weight = torch.tensor([5.0, 1, 1, 1, 1, 0], dtype=torch.float64)
    with torch.no_grad():
        W = (
            SumRateMultipliers(checkpoint="random")
            .solve(Problem(SumRate(weight), (TotalPower(1.0),)), Network.broadcast(H, 0.01))
            .W
        )
    power = W.abs().square().sum(-2)
    assert (power[:, -1] < 1e-12).all(), "a user of weight zero has power"
    assert (power[:, 0] > 1e-3).all(), "the user of the largest weight has none"


# --- the safeguard ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("std", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize(
    "source",
    [Rayleigh(8, 8, 20.0), Rayleigh(12, 8, 30.0), Rayleigh(8, 16, -5.0, 30.0), Rayleigh(8, 8, 20.0, 0.0, 0.95)],
)
def test_never_worse_than_regularised_zero_forcing_on_any_instance(std, steps, source):
    for dtype, slack in ((torch.complex128, 1e-9), (torch.complex64, 1e-4)):
        network = source.sample(24, seed=7, dtype=dtype).truth
        for seed in range(2):
            found = rate(random_solver(std, steps, seed), network)
            floor = rate(RZF(), network)
            assert (found >= floor * (1 - slack)).all(), f"short by {(floor - found).max():.2e}"


def hostile(name):
    """Channels far from training: [4, K, N] and the noise."""
    H = channels(6, 6, batch=4)
    if name == "200 users":
        return channels(200, 20, batch=2), 0.01
    if name == "-30 dB":
        return H, 1e3
    if name == "80 dB":
        return H, 1e-8
    if name == "rank one":
        return channels(6, 1, batch=4) @ channels(1, 8, batch=4, seed=1), 0.01
    if name == "parallel users":
        return H[:, :1].expand(4, 6, 6).clone(), 0.01
    if name == "users without a channel":
        H[:, ::2] = 0
        return H, 0.01
    if name == "no user has a channel":
        return torch.zeros_like(H), 0.01
    return H * torch.logspace(-4, 4, 6, dtype=torch.float64).unsqueeze(-1), 0.01  # 160 dB between users


HOSTILE = ["200 users", "-30 dB", "80 dB", "rank one", "parallel users", "users without a channel", "160 dB apart"]


@pytest.mark.parametrize("name", [*HOSTILE, "no user has a channel"])
@pytest.mark.parametrize("std", [0.2, 3.0])
def test_channels_far_from_training_get_at_least_regularised_zero_forcing(name, std):
    H, noise = hostile(name)
    for dtype, slack in ((torch.complex128, 1e-9), (torch.complex64, 1e-4)):
        network = Network.broadcast(H.to(dtype), noise)
        for steps in (0, 3):
            found, floor = rate(random_solver(std, steps), network), rate(RZF(), network)
            assert (found >= floor * (1 - slack)).all(), f"{found.tolist()} below {floor.tolist()}"


@pytest.mark.parametrize("name", HOSTILE)
def test_channels_far_from_training_end_near_wmmse(name):
    H, noise = hostile(name)
    network = Network.broadcast(H, noise)
    data = ReducedWMMSE().prepare(PROBLEM.bind(network), Observation(network))
    classical = plain_steps(data, annealed(data, from_ridge(data, 10)), 60)[1][-1].mean()
    assert rate(random_solver(0.1, steps=60), network).mean() >= 0.9 * classical


def test_an_instance_that_falls_back_to_zero_forcing_does_not_affect_others():
    """Some instances fall back to zero forcing; the others get the same beams as without them."""
    H = torch.cat([channels(6, 6, batch=5), hostile("160 dB apart")[0]])
    network, solver = Network.broadcast(H, 0.01), random_solver(1.0)
    together = rate(solver, network)
    alone = torch.cat([rate(solver, take(network, slice(i, i + 1))) for i in range(len(H))])
    torch.testing.assert_close(together, alone, rtol=1e-7, atol=0)


# --- steps -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("std", [0.0, 0.3, 3.0])
def test_no_step_lowers_the_rate(std):
    network = Rayleigh(12, 10, 20.0).sample(20, seed=3, dtype=torch.complex128).truth
    with torch.no_grad():
        trace = random_solver(std, steps=25).solve(PROBLEM, network).trace
    assert trace.shape == (20, 26)
    assert (trace.diff(dim=-1) >= -1e-9 * trace[:, 1:]).all()


@pytest.mark.parametrize("std", [0.0, 0.3, 3.0])
def test_more_steps_never_lower_the_rate(std):
    """This includes instances whose predicted rate is close to that of zero forcing."""
    network = Rayleigh(8, 8, 10.0).sample(40, seed=3, dtype=torch.complex128).truth
    found = torch.stack([rate(random_solver(std, steps), network) for steps in (0, 1, 2, 3, 5, 8, 13)], -1)
    assert (found.diff(dim=-1) >= -1e-9).all()


def test_a_learned_step_that_would_lower_the_rate_becomes_a_plain_step(monkeypatch):
    """Steps that switch off all users but one are refused, which leaves WMMSE from the predicted state."""
    network = Rayleigh(8, 6, 20.0).sample(10, seed=3, dtype=torch.complex128).truth
    data = ReducedWMMSE().prepare(PROBLEM.bind(network), Observation(network))
    solver, alone = random_solver(0.1, steps=3), torch.eye(8, dtype=torch.float64)[0]
    monkeypatch.setattr(
        solver, "learned_step", lambda data, seen, there: there.state._replace(root=there.state.root * alone)
    )
    with torch.no_grad():
        there = evaluate_state(data, *solver.predict(data, observe(data)))
        _, expected = plain_steps(data, there.image, 2)
        _, found = solver.run_steps(data, observe(data))
    torch.testing.assert_close(found, [there.rate, *expected])


def test_plain_steps_are_those_of_wmmse():
    data = ReducedWMMSE().prepare(PROBLEM.bind(n := Network.broadcast(channels(5, 4), 0.01)), Observation(n))
    X, rates = plain_steps(data, from_ridge(data, 1.0), 7)
    state, solver = from_ridge(data, 1.0), ReducedWMMSE()
    for found in rates[:-1]:
        state, expected = solver.step(data, state)
        torch.testing.assert_close(found, expected)
    W = data.H.mH @ X
    W = W / W.abs().square().sum((-2, -1), keepdim=True).sqrt()
    torch.testing.assert_close(W, solver.beams(data, state))


# --- the loss --------------------------------------------------------------------------------------------------------
def test_the_derivative_of_the_loss_is_that_of_finite_differences():
    instance = Stream.training(
        Downlink((4, 4), (1.2, 1.2), weighted_share=1.0, spread_share=1.0), 0, 3, torch.complex128
    ).batch_at(0)
    solver = random_solver(0.1, width=6, rounds=2).double()
    check_gradient_of_loss(solver, instance)


def test_learning_lowers_the_loss():
    stream = Stream.training(Downlink((4, 12), (0.8, 1.4), (5.0, 25.0)), 0, 32)
    torch.manual_seed(0)
    solver, generator = SumRateMultipliers(checkpoint="random", width=12, rounds=2), torch.Generator().manual_seed(0)
    held_out = Stream.validation(stream.source, 64)
    with torch.no_grad():
        before, shares = solver.loss(held_out.batch_at(0), generator)
    assert 0.7 < shares["share_after_0"] < shares["share_after_1"] < shares["share_after_5"] < 1.02
    optimiser = torch.optim.AdamW(solver.parameters(), lr=5e-3)
    for step in range(25):
        optimiser.zero_grad()
        solver.loss(stream.batch_at(step), generator)[0].backward()
        optimiser.step()
    with torch.no_grad():
        assert solver.loss(held_out.batch_at(0), generator)[0].item() < before.item() - 0.05


# --- weights and settings --------------------------------------------------------------------------------------------
def test_weights_come_back_from_a_file(tmp_path):
    path, solver = tmp_path / "w.safetensors", random_solver(0.3, width=10, rounds=2)
    header = {"model": "multipliers", "settings": {"checkpoint": "random", "width": 10, "rounds": 2}}
    weights.save(path, Weights(solver.state_dict(), header))
    again = SumRateMultipliers(checkpoint=str(path))
    assert not any(parameter.requires_grad for parameter in again.parameters()), "loaded weights require gradients"
    network = Network.broadcast(channels(5, 5), 0.01)
    with torch.no_grad():
        assert torch.equal(again.solve(PROBLEM, network).W, solver.solve(PROBLEM, network).W)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: Weights(w.tensors, w.header | {"model": "other"}), "checkpoint must be of model multipliers"),
        (lambda w: Weights(w.tensors, {**w.header, "settings": {"width": 99, "rounds": 2}}), "checkpoint must"),
        (lambda w: Weights({**w.tensors, "extra": torch.ones(1)}, w.header), "checkpoint must"),
        (lambda w: Weights(dict([*w.tensors.items()][1:]), w.header), "checkpoint must"),
        (lambda w: Weights(w.tensors, {**w.header, "settings": {}}), "checkpoint must"),
        (lambda w: Weights(w.tensors, {**w.header, "settings": {"width": "wide", "rounds": 2}}), "checkpoint must"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_a_sentence(change, words, tmp_path):
    solver = random_solver(0.3, width=10, rounds=2)
    header = {"model": "multipliers", "settings": {"width": 10, "rounds": 2}}
    weights.save(tmp_path / "w.safetensors", change(Weights(solver.state_dict(), header)))
    with pytest.raises(ConfigError, match=words) as refused:
        SumRateMultipliers(checkpoint=str(tmp_path / "w.safetensors"))
    assert "\n" not in str(refused.value) and "w.safetensors" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": "-1"}, "steps must not be negative, got -1"),
        ({"steps": "some"}, "steps must be int"),
        ({"width": "0", "checkpoint": "random"}, "width and rounds must be at least 1, got 0"),
        ({"rounds": "0", "checkpoint": "random"}, "width and rounds must be at least 1"),
        ({"checkpoint": "/nowhere.safetensors"}, "checkpoint must be a safetensors file, got /nowhere.safetensors"),
        ({"step": "3"}, "did you mean 'steps'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        configure(SumRateMultipliers, settings)


def test_other_questions_are_refused():
    limits = Problem(SumRate(), (PerAntennaPower(1.0),))
    with pytest.raises(UnsupportedProblem):
        random_solver(0.1).solve(limits, Network.broadcast(channels(3, 3), 1.0))
    with pytest.raises(UnsupportedProblem):
        random_solver(0.1).solve(PROBLEM, Network.interference(channels(9, 3, batch=1).reshape(3, 3, 3), 1.0))


def test_inputs_of_the_filter_are_finite_and_of_moderate_size():
    for name in [*HOSTILE, "no user has a channel"]:
        H, noise = hostile(name)
        for dtype in (torch.complex64, torch.complex128):
            network = Network.broadcast(H.to(dtype), noise)
            data = ReducedWMMSE().prepare(PROBLEM.bind(network), Observation(network))
            features = observe(data)
            for seen in (features.nodes, features.shifts):
                assert torch.isfinite(seen).all() and seen.abs().max() < math.sqrt(torch.finfo(seen.dtype).max), name
