"""Users with a SINR target of 0 and antennas with a limit of 0: left out of the problem, exact zeros in the beams."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge import Network, Problem, Status, UnsupportedProblem, evaluate
from beamforge.core.constraints import PerAntennaPower, PerTransmitterPower, SinrAtLeast, TotalPower
from beamforge.core.utilities import MinRate, MinSinr, SumRate, TransmitPower
from beamforge.registry import METHODS, create


def channels(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


TARGETS = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]], dtype=torch.float64)


def test_a_user_with_a_target_of_zero_gets_no_power_and_costs_none():
    H = channels(4, 3, 5)
    problem = Problem(TransmitPower(), (SinrAtLeast(TARGETS),))
    network = Network.broadcast(H, 0.1)
    solution = create(problem, network).solve(problem, network)
    assert (solution.status == int(Status.CONVERGED)).all()
    power = solution.W.abs().square().sum(-2)
    assert (power[TARGETS == 0] == 0).all() and (power[TARGETS > 0] > 0).all()
    assert evaluate(problem, network, solution.W).feasible.all()
    alone = Problem(TransmitPower(), (SinrAtLeast(TARGETS[0, 1:]),))
    without = Network.broadcast(H[0, 1:], 0.1)
    expected = create(alone, without).solve(alone, without).W.abs().square().sum()
    np.testing.assert_allclose(power[0].sum(), expected, rtol=1e-9)


def test_balanced_sinrs_are_those_without_the_user_with_a_target_of_zero():
    H = channels(4, 3, 5)
    problem, network = Problem(MinSinr(TARGETS[:1]), (TotalPower(1.0),)), Network.broadcast(H[:1], 0.1)
    solution = create(problem, network).solve(problem, network)
    alone = Problem(MinSinr(TARGETS[0, 1:]), (TotalPower(1.0),))
    without = Network.broadcast(H[0, 1:], 0.1)
    expected = evaluate(alone, without, create(alone, without).solve(alone, without).W).utility
    np.testing.assert_allclose(evaluate(problem, network, solution.W).utility[0], expected, rtol=1e-9)


def test_of_links_the_transmitter_is_left_out_with_its_user():
    G = torch.rand(4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.1 + torch.eye(3)
    network = Network.power_control(G, 0.1)
    for name in ("foschini-miljanic", "duality"):
        problem = Problem(TransmitPower(), (SinrAtLeast(TARGETS),))
        solution = create(problem, network, name).solve(problem, network)
        p = solution.W.abs().square().squeeze(-2).numpy()
        assert (p[TARGETS == 0] == 0).all()
        F = G[0, 1:, 1:].numpy()
        t = TARGETS[0, 1:].numpy()
        system = np.diag(np.diag(F)) - t[:, None] * (F - np.diag(np.diag(F)))
        np.testing.assert_allclose(p[0, 1:], np.linalg.solve(system, 0.1 * t), rtol=1e-7)


ANTENNAS = torch.tensor([[1.0, 0.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("goal", "name"),
    [(SumRate(), name) for name in ("wmmse", "fastfp", "rzf", "zf", "mrt")] + [(MinRate(), "duality")],
)
def test_an_antenna_with_a_limit_of_zero_is_off(goal, name):
    """The other antennas get the beams of the problem without it."""
    H = channels(3, 2, 4)
    network = Network.broadcast(H, 0.1)
    problem = Problem(goal, (PerAntennaPower(ANTENNAS.unsqueeze(1)),))
    solution = create(problem, network, name).solve(problem, network)
    assert evaluate(problem, network, solution.W).feasible.all()
    on = ANTENNAS > 0
    assert (solution.W[~on] == 0).all()
    without = Network.broadcast(H[0][:, on[0]], 0.1)
    smaller = Problem(goal, (PerAntennaPower(ANTENNAS[0][on[0]]),))
    expected = evaluate(smaller, without, create(smaller, without, name).solve(smaller, without).W).utility
    np.testing.assert_allclose(evaluate(problem, network, solution.W).utility[0], expected, rtol=1e-5)
    assert (solution.W[2] == 0).all()


def test_a_transmitter_with_a_limit_of_zero_is_off():
    network = Network.interference(channels(5, 3, 3, 4), 0.1)
    problem = Problem(SumRate(), (PerTransmitterPower(torch.tensor([1.0, 0.0, 2.0]).double()),))
    for name in ("wmmse", "rzf", "fastfp"):
        solution = create(problem, network, name).solve(problem, network)
        assert (solution.W[..., 1] == 0).all() and (solution.W[..., [0, 2]].abs().sum((-2, -1)) > 0).all()
        assert evaluate(problem, network, solution.W).feasible.all()


def test_power_at_an_antenna_that_is_off_violates_the_limit():
    network = Network.broadcast(channels(2, 4), 0.1)
    problem = Problem(SumRate(), (PerAntennaPower([[1.0, 0.0, 1.0, 1.0]]),))
    report = evaluate(problem, network, 0.1 * torch.ones(4, 2, dtype=torch.complex128))
    assert not report.feasible and report.violation["PerAntennaPower"] == torch.inf


def test_users_with_several_streams_cannot_be_left_out():
    network = Network.broadcast(channels(3, 4), 0.1, stream_user=torch.tensor([0, 1, 2, 2]))
    problem = Problem(TransmitPower(), (SinrAtLeast([0.0, 1.0, 1.0]),))
    assert not any(kind.supports(problem, network) for kinds in METHODS.values() for kind in kinds)
    with pytest.raises(UnsupportedProblem):
        create(problem, network)
