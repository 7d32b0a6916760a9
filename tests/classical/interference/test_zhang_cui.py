"""Pairs that trade interference: what is agreed on never falls and is kept, and the end is on the boundary."""

from __future__ import annotations

import pytest
import torch

from beamforge.classical.interference.linear import LocalSLNR
from beamforge.classical.interference.pareto_boundary import boundary
from beamforge.classical.interference.zhang_cui import ZhangCuiMaxMin, ZhangCuiSumRate
from beamforge.core.errors import ConfigError
from beamforge.core.evaluate import evaluate
from beamforge.core.named_problems import build_problem
from beamforge.decentralised.backhaul import SharedMemory
from beamforge.decentralised.base_stations import BaseStations
from beamforge.decentralised.launch import apart
from beamforge.scenarios.interference import Interference

GOALS = {"sum-rate": ZhangCuiSumRate, "max-min": ZhangCuiMaxMin}


def question(goal, cells=3, snr_db=5.0, antennas=4, gain=0.8, count=6, weights=True, seed=3):
    scenario = Interference(cells, antennas, snr_db, gain, random_weights=weights)
    instance = scenario.sample(count, seed=seed, dtype=torch.complex128)
    return build_problem(goal, instance.context), instance


@pytest.mark.parametrize("goal", GOALS)
def test_more_iterations_never_lower_what_is_agreed_and_it_is_kept(goal):
    problem, instance = question(goal)
    stations = BaseStations.of(problem.bind(instance.truth), instance.truth)
    last, agreed = None, []

    class Watched(GOALS[goal]):
        def agreed(self, rates):
            agreed.append(super().agreed(rates))
            return agreed[-1]

    for iterations in (0, 1, 4, 12):
        agreed.clear()
        W = Watched(iterations).beams(stations, backhaul := SharedMemory()).mT
        assert backhaul.scalars == 6 * (2 + 4 * iterations)
        best = torch.stack(agreed).amax(0)[:, 0]
        true = evaluate(problem, instance, W).utility / instance.context["weights"].mean(-1)  # the unit agreed on
        assert (true >= best * (1 - 1e-9)).all()
        assert last is None or (best >= last).all()
        last = best
    assert (last > 1.0005 * agreed[0][:, 0]).any(), "no step was worth while"


@pytest.mark.parametrize("goal", GOALS)
def test_two_users_end_on_the_boundary(goal):
    """No point of the boundary is better for both by more than a thousandth."""
    problem, instance = question(goal, cells=2, weights=False, count=4)
    W = GOALS[goal](iterations=80).solve(problem, instance).W
    rate = instance.truth.rate(W)
    ends, _ = boundary(instance.truth, instance.context["p_max_transmitter"], points=801)
    better = (ends / rate.unsqueeze(1)).amin(-1).amax(-1)
    assert (better < 1.002).all() and (better > 1 - 1e-3).all()


@pytest.mark.parametrize("goal", GOALS)
def test_it_is_no_worse_than_where_it_starts(goal):
    problem, instance = question(goal)
    start, end = (method.solve(problem, instance).W for method in (LocalSLNR(), GOALS[goal]()))
    before, after = (evaluate(problem, instance, W).utility for W in (start, end))
    assert (after >= before * (1 - 1e-9)).all()


@pytest.mark.parametrize("goal", GOALS)
def test_processes_find_the_same(goal):
    problem, instance = question(goal, count=3)
    method = GOALS[goal](iterations=6)
    together = method.solve(problem, instance)
    with apart(method, 3, time_limit=60) as operator:
        alone = operator.solve(problem, instance)
    torch.testing.assert_close(alone.W, together.W, rtol=1e-6, atol=1e-6)
    assert torch.equal(alone.info["scalars"], together.info["scalars"])


def test_users_without_weight_or_channel():
    _, instance = question("sum-rate", count=2, weights=False)
    weights = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    W = ZhangCuiSumRate().solve(build_problem("sum-rate", {**instance.context, "weights": weights}), instance).W
    assert (W[..., 1] == 0).all() and torch.isfinite(W.abs()).all()
    instance.truth.H[0, :, 2] = 0
    for goal, kind in GOALS.items():
        solution = kind().solve(build_problem(goal, instance.context), instance)
        assert solution.solved.all() and torch.isfinite(solution.W.abs()).all()


def test_eight_bits_are_enough_to_agree():
    problem, instance = question("sum-rate")
    method = ZhangCuiSumRate()
    exact = evaluate(problem, instance, method.solve(problem, instance).W).utility
    method.message_bits = 8
    rounded = evaluate(problem, instance, method.solve(problem, instance).W).utility
    assert (rounded > 0.97 * exact).all()


def test_refusal():
    with pytest.raises(ConfigError, match="iterations must not be negative, got -1"):
        ZhangCuiSumRate(-1)
