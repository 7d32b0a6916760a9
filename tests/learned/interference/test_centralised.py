"""Fully connected networks on all channels: conventions, projection, the sizes they serve, and that they learn."""

from __future__ import annotations

import pytest
import torch

from beamforge.core.errors import ConfigError, UnsupportedProblem
from beamforge.core.named_problems import build_problem
from beamforge.learned.interference.centralised import DirectBeamLearning, NaiveFeatureLearning
from beamforge.training.data.interference_grid import InterferenceGrid
from beamforge.training.stream import Stream

KINDS = (DirectBeamLearning, NaiveFeatureLearning)


def method(kind, problem="sum-rate", **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind("random", problem, **{"cells": 3, "antennas": 4, **settings})


def batch(count=8, step=0, dtype=torch.complex128):
    source = InterferenceGrid(cells=(3, 3), antennas=(4, 4), snr_db=(5, 5), weighted_share=0.5)
    return Stream.training(source, seed=0, batch=count, dtype=dtype).batch_at(step)


@pytest.mark.parametrize("kind", KINDS)
def test_they_serve_the_size_and_problem_they_were_trained_for(kind):
    instance = batch()
    problem = {name: build_problem(name, instance.context) for name in ("sum-rate", "max-min")}
    assert method(kind, "max-min").solve(problem["max-min"], instance).W.shape == (8, 4, 3)
    for solver in (method(kind), kind(), method(kind, "max-min", cells=4)):
        with pytest.raises(UnsupportedProblem):
            solver.solve(problem["max-min"], instance)


def test_direct_beams_are_projected():
    """Beams within the limit stay, longer ones are cut to it."""
    solver, instance = method(DirectBeamLearning), batch()
    answer = torch.randn(8, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    answer[0] = 0.1
    solver.networks["sum-rate"] = Says(answer)
    problem = build_problem("sum-rate", instance.context)
    power = solver.solve(problem, instance).W.abs().square().sum(-2)
    P = instance.context["p_max_transmitter"]
    torch.testing.assert_close(power[0], 8 * 0.01 * P[0])
    expected = P * answer.reshape(8, 3, 8).square().sum(-1).clamp_max(1)
    torch.testing.assert_close(power.sort(-1)[0], expected.sort(-1)[0])


class Says(torch.nn.Module):
    """A network that answers the same whatever it sees."""

    def __init__(self, answer):
        super().__init__()
        self.register_buffer("answer", answer)

    def forward(self, x):
        return self.answer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("problem", ["sum-rate", "max-min"])
def test_they_learn(kind, problem):
    solver, held_out = method(kind, problem), batch(200, 10**6, torch.complex64)
    optimiser = torch.optim.Adam(solver.parameters(), 2e-3)
    with torch.no_grad():
        before = solver.loss(held_out, torch.Generator())[0]
    for step in range(80):
        loss, _ = solver.loss(batch(64, step, torch.complex64), torch.Generator())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        assert solver.loss(held_out, torch.Generator())[0] < before - 0.02


@pytest.mark.parametrize("wrong", [{"problem": "min-power"}, {"cells": 0}, {"width": 0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DirectBeamLearning("random", **wrong)
