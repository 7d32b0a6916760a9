"""The weights of the wireless transformer that come with the package: where they come from, and what they reach."""

from __future__ import annotations

from importlib.resources import files

import pytest
import torch

import beamforge
from beamforge.classical.linear import WeightedSLNR
from beamforge.errors import ConfigError, UnsupportedProblem
from beamforge.evaluate import evaluate
from beamforge.goals import build_problem
from beamforge.learned.wit import SLACK, WiT, nearest, targets
from beamforge.registry import create
from beamforge.scenarios import Fairness, Rayleigh
from beamforge.scenarios.base import TEST_SEEDS
from beamforge.training.weights import load


@pytest.fixture(scope="module")
def drops():
    return Fairness().sample(400, seed=TEST_SEEDS[5])


def reached(solver, drops, jain):
    problem = build_problem("fair-sum-rate", {**drops.context, "jain": jain})
    report = evaluate(problem, drops, solver.solve(problem, drops).W)
    assert report.feasible.all()
    return report.jain.mean().item(), report.utility.mean().item()


def test_headers_tell_where_they_come_from():
    card = (files("beamforge") / "weights" / "wit.md").read_text(encoding="utf-8")
    for target, name in targets().items():
        header = load("wit", name=name).header
        assert header["recipe"]["model"]["jain"] == target and name in card
        assert header["recipe"]["data"] == {**header["recipe"]["data"], "source": "cells", "named_share": 1.0}
        assert (
            len(header["commit"]) >= 7 and "dirty" not in header["commit"] and "/" not in header["settings"]["weights"]
        )


@pytest.mark.parametrize("target", sorted(targets()))
def test_they_meet_their_targets_and_beat_weighted_slnr(target, drops):
    jain, rate = reached(WiT(), drops, target)
    assert jain > target - 0.012  # 0.005 on ten thousand drops
    if target >= 0.75:
        _, reference = reached(WeightedSLNR(), drops, min(jain, 0.955))
        assert rate > (1.01 if jain < 0.95 else 1.05) * reference


def test_the_nearest_network_is_taken_and_what_none_reaches_is_refused(drops):
    known = sorted(targets())
    assert nearest(known[0]) == known[0] and nearest(0.2) == known[0]
    assert nearest(known[-1] + 0.9 * SLACK) == known[-1]
    with pytest.raises(ConfigError, match=r"jain must be one that wit was trained for .*; methods that reach further"):
        reached(WiT(), drops, known[-1] + 2 * SLACK)
    own = WiT(weights=targets()[known[0]])
    with pytest.raises(ConfigError, match=f"jain must be at most {known[0]:g}"):
        reached(own, drops, known[-1])


def test_other_sizes_are_refused_with_the_methods_that_would_do():
    instance = Rayleigh(4, 16, 10.0).sample(2)
    problem = build_problem("fair-sum-rate", {**instance.context, "jain": 0.9})
    with pytest.raises(UnsupportedProblem, match=r"wit \(made for 12 users and 16 antennas\) .* pareto"):
        create(problem, instance.seen, "wit")


def test_by_name(drops):
    H, noise = drops.truth.channel[:8], drops.truth.noise[:8]
    problem = build_problem("fair-sum-rate", {"p_max": 10.0, "jain": 0.86})
    found = beamforge.solve(H, noise=noise, problem=problem, method="wit")
    assert found.W.shape == (8, 16, 12) and torch.equal(found.info["trained_jain"], torch.full((8,), 0.86))
