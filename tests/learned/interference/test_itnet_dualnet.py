"""ITNet and DualNet: what one base station does alone, what is exchanged, and what each turn trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.checks import check_solver
from beamforge.classical.linear import RZF
from beamforge.core.errors import ConfigError
from beamforge.core.named_problems import build_problem
from beamforge.core.network import Network
from beamforge.decentralised.backhaul import SharedMemory
from beamforge.decentralised.base_stations import BaseStations
from beamforge.learned.interference.itnet_dualnet import MaxMinITNet, SumRateITNet
from beamforge.training.data.interference_grid import InterferenceGrid
from beamforge.training.stream import Stream

METHODS = (SumRateITNet, MaxMinITNet)


def method(kind=SumRateITNet, spread=0.3, **settings):
    """Weights that are not trained but not zero either."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        solver = kind(checkpoint="random", **settings)
        for parameter in solver.parameters():
            torch.nn.init.normal_(parameter, std=spread)
    return solver


def batch(count=8, step=0, dtype=torch.complex128, **fields):
    source = InterferenceGrid(**{"cells": (3, 3), "antennas": (4, 4), **fields})
    return Stream.training(source, seed=0, batch=count, dtype=dtype).batch_at(step)


def problem_of(solver, instance):
    return build_problem(solver.problem, instance.context).bind(instance.truth)


@pytest.mark.parametrize("kind", METHODS)
def test_any_weights_conform(kind):
    check_solver(method(kind))


def test_untrained_it_is_the_largest_ratio_of_signal_to_leakage_and_noise():
    instance = batch()
    solver = SumRateITNet(checkpoint="random")
    problem = problem_of(solver, instance)
    found, expected = (each.solve(problem, instance).W for each in (solver, RZF()))
    inner = (found.conj() * expected).sum(-2).abs() / instance.context["p_max_transmitter"]
    assert (inner - 1).abs().max() < 1e-5
    figures = solver.loss(instance, torch.Generator())[1]
    assert abs(figures["gap"]) < 1e-5 and figures["projected"] == 0


@pytest.mark.parametrize("kind", METHODS)
def test_each_base_station_by_itself_does_the_same(kind):
    """With its own channels alone, and what the others say to it."""
    solver, instance = method(kind), batch()
    stations = BaseStations.of(problem_of(solver, instance), instance.truth)
    shared, said = SharedMemory(), []

    class Recorded:
        def exchange(self, sent):
            said.append(shared.exchange(sent))
            return said[-1]

    together = solver.beams(stations, Recorded())
    assert len(said) == 1 and shared.scalars == 6

    class Wire:
        def __init__(self, number):
            self.number = number

        def exchange(self, sent):
            assert sent.shape == (8, 1, 3)
            torch.testing.assert_close(
                sent[:, 0], said[0][:, :, self.number].where(torch.arange(3) != self.number, 0.0)
            )
            return said[0][:, self.number : self.number + 1]

    for k in range(3):
        alone = solver.beams(stations.alone(k), Wire(k))
        torch.testing.assert_close(alone[:, 0], together[:, k])


@pytest.mark.parametrize("kind", METHODS)
def test_one_base_station_sends_mrt(kind):
    instance = batch(cells=(1, 1))
    solver = method(kind, spread=0.1).requires_grad_(False)
    W = solver.solve(problem_of(solver, instance), instance).W
    gain = (instance.truth.H[:, 0] @ W).abs().square().flatten()
    full = instance.context["p_max_transmitter"][:, 0] * instance.truth.H.abs().square().sum((-3, -2, -1))
    assert (gain <= full * (1 + 1e-9)).all() and (gain > 0.5 * full).all()
    np.testing.assert_allclose(
        gain / full, W.abs().square().sum((-2, -1)) / instance.context["p_max_transmitter"][:, 0]
    )


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_silent_users_and_powers_harm_nobody(kind, dtype):
    instance = batch(dtype=dtype, weighted_share=0.0)
    H, power = instance.truth.H.clone(), instance.context["p_max_transmitter"].clone()
    H[0, :, 1], H[1, 2, 2], H[2], H[3, 0, 1] = 0, 0, 0, 0
    power[4, 1] = 0
    weights = torch.ones_like(power)
    weights[5, 0], weights[6] = 0, 0
    problem = build_problem(method(kind).problem, {"p_max_transmitter": power, "weights": weights})
    network = Network.interference(H, 1.0)
    solution = method(kind).solve(problem, network)
    assert (solution.status == 0).all() and torch.isfinite(torch.view_as_real(solution.W)).all()
    assert (solution.W.abs().square().sum(-2) <= power * (1 + 1e-4)).all()
    plain = method(kind).solve(problem_of(method(kind), instance), instance).W
    torch.testing.assert_close(solution.W[7], plain[7])


def test_turns_are_the_printed_losses():
    """(25) with the beams of the temperatures as they were, and (32); written out in their own terms."""
    solver, instance = method(), batch()
    stations = BaseStations.of(problem_of(solver, instance), instance.truth)
    with torch.no_grad():
        asked = solver.temperatures(stations)
        heard = SharedMemory().exchange(asked.allowed)
        duals = solver.duals(asked, heard)
        W = solver.beams(stations, SharedMemory())
        P = stations.power
        norm = stations.H.abs().square().sum(-1)
        d_power = (duals.price / P).numpy()
        d = (duals.loads / norm).numpy() * d_power[..., None]
        noise = (1 + heard.sum(-1)).numpy()
        own, H = stations.own.numpy().conj(), stations.H.numpy().conj()
        q, rates = np.zeros((8, 3)), np.zeros((8, 3))
        for b in range(8):
            for k in range(3):
                A = d_power[b, k] * np.eye(4)
                A = A + sum(d[b, k, j] * np.outer(H[b, k, j], H[b, k, j].conj()) for j in range(3) if j != k)
                direction = np.linalg.solve(A, own[b, k])
                a = np.vdot(own[b, k], direction).real
                p = max(1 / np.log(2) - noise[b, k] / a, 0) / a
                w = np.sqrt(p) * direction
                power = np.vdot(w, w).real
                q[b, k] = -d_power[b, k] * (power - float(P[b, k])) - sum(
                    d[b, k, j] * (abs(np.vdot(H[b, k, j], w)) ** 2 - float(asked.allowed[b, k, j]))
                    for j in range(3)
                    if j != k
                )
                w = w * min(1, np.sqrt(float(P[b, k]) / power))
                np.testing.assert_allclose(W[b, k].numpy(), w, rtol=1e-7, atol=1e-9)
                rates[b, k] = np.log2(1 + abs(np.vdot(own[b, k], w)) ** 2 / noise[b, k])
        usual = instance.truth.rate(RZF().solve(problem_of(solver, instance), instance).W).numpy()
        weights = stations.weights.numpy()
        expected = -((weights * rates).sum(-1) / (weights * usual).sum(-1)).mean()
    np.testing.assert_allclose(solver.turn("itnet", instance, torch.Generator())[0].item(), expected, rtol=1e-6)
    np.testing.assert_allclose(solver.turn("dualnet", instance, torch.Generator())[0].item(), q.mean(), rtol=1e-6)


def test_turns_reach_their_parts():
    solver, instance = method(), batch()
    for part, others in (("itnet", "nothing"), ("dualnet", "itnet")):
        solver.zero_grad()
        solver.turn(part, instance, torch.Generator())[0].backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in solver.get_submodule(part).parameters())
        assert all(p.grad is None for name, p in solver.named_parameters() if name.startswith(others))


@pytest.mark.parametrize("alternating", [True, False])
def test_it_learns(alternating):
    solver = MaxMinITNet(checkpoint="random", alternating=alternating)
    there = {"cells": (4, 4), "snr_db": (0, 0), "weighted_share": 0.0, "dtype": torch.complex64}
    held_out = batch(200, step=10**6, **there)
    optimiser = torch.optim.Adam(solver.parameters(), 3e-3)
    with torch.no_grad():
        before = solver.loss(held_out, torch.Generator())[0]
    for step in range(60):
        instance = batch(64, step, **there)
        for part in solver.turns or [""]:
            loss, _ = (
                solver.turn(part, instance, torch.Generator()) if part else solver.loss(instance, torch.Generator())
            )
            optimiser.zero_grad()
            loss.backward()
            for name, parameter in solver.named_parameters():
                if not name.startswith(part):
                    parameter.grad = None
            optimiser.step()
    with torch.no_grad():
        after, figures = solver.loss(held_out, torch.Generator())
    assert after < before
    if alternating:
        assert figures["gap_size"] < 0.1 * figures["rate_within"]


def test_settings_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="width"):
        SumRateITNet(checkpoint="random", width=0)
    with pytest.raises(ConfigError):
        SumRateITNet(checkpoint=str(tmp_path / "none.safetensors"))
