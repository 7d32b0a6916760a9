"""The shipped weights of the wireless transformer: their headers, and the fairness and rates they reach."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import beamforge
from beamforge.classical.linear import WeightedSLNR
from beamforge.cli import main
from beamforge.core.errors import ConfigError, UnsupportedProblem
from beamforge.core.evaluate import evaluate
from beamforge.core.named_problems import build_problem
from beamforge.core.network import Network
from beamforge.io.weights import card, load
from beamforge.learned.fairness.wit import SLACK, WiT, nearest, shipped, targets
from beamforge.registry import create
from beamforge.scenarios import Fairness, Rayleigh
from beamforge.scenarios.base import TEST_SEEDS


@pytest.fixture(scope="module")
def drops():
    return Fairness().sample(400, seed=TEST_SEEDS[5])


def reached(solver, drops, jain):
    problem = build_problem("fair-sum-rate", {**drops.context, "jain": jain})
    report = evaluate(problem, drops, solver.solve(problem, drops).W)
    assert report.feasible.all()
    return report.jain.mean().item(), report.utility.mean().item()


def test_headers_tell_where_they_come_from():
    told = card("wit").read_text(encoding="utf-8")
    for target, name in targets().items():
        header = load("wit", name=name).header
        assert header["recipe"]["model"]["jain"] == target and name in told
        assert header["recipe"]["data"] == {**header["recipe"]["data"], "source": "cells", "named_share": 1.0}
        assert len(header["commit"]) >= 7 and "dirty" not in header["commit"]
        assert not header["settings"]["checkpoint"].startswith("/"), "a path on one machine is useless on another"


@pytest.mark.parametrize("target", sorted(targets()))
def test_they_meet_their_targets_and_beat_weighted_slnr(target, drops):
    jain, rate = reached(WiT(), drops, target)
    assert jain > target - 0.012  # 0.005 on ten thousand drops
    if target >= 0.75:
        _, reference = reached(WeightedSLNR(), drops, min(jain, 0.955))
        assert rate > (1.01 if jain < 0.95 else 1.05) * reference


def test_the_nearest_network_is_used_and_unreachable_targets_are_refused(drops):
    known = sorted(targets())
    assert nearest(known[0]) == known[0] and nearest(0.2) == known[0]
    assert nearest(known[-1] + 0.9 * SLACK) == known[-1]
    with pytest.raises(ConfigError, match=r"jain must be one that wit was trained for .*; methods that reach higher"):
        reached(WiT(), drops, known[-1] + 2 * SLACK)
    own = WiT(checkpoint=targets()[known[0]])
    with pytest.raises(ConfigError, match=f"jain must be at most {known[0]:g}"):
        reached(own, drops, known[-1])


def test_other_sizes_are_refused_with_the_methods_that_serve_them():
    instance = Rayleigh(4, 16, 10.0).sample(2)
    problem = build_problem("fair-sum-rate", {**instance.context, "jain": 0.9})
    with pytest.raises(UnsupportedProblem, match=r"wit \(made for 12 users of equal .* pareto"):
        create(problem, instance.observation.network, "wit")


def test_unequal_weights_of_the_rates_are_refused(drops):
    few = Network.broadcast(drops.truth.channel[:2], drops.truth.noise[:2])
    asked = {"p_max": 10.0, "jain": 0.86}
    unequal = build_problem("fair-sum-rate", {**asked, "weights": torch.arange(1.0, 13.0)})
    with pytest.raises(UnsupportedProblem, match=r"wit \(.*equal weight.*\) .* pareto"):
        create(unequal, few, "wit")
    assert isinstance(create(build_problem("fair-sum-rate", {**asked, "weights": 2.0}), few, "wit"), WiT)


def test_by_name(drops):
    H, noise = drops.truth.channel[:8], drops.truth.noise[:8]
    problem = build_problem("fair-sum-rate", {"p_max": 10.0, "jain": 0.86})
    found = beamforge.solve(H, noise=noise, problem=problem, method="wit")
    assert found.W.shape == (8, 16, 12) and torch.equal(found.info["trained_jain"], torch.full((8,), 0.86))


def test_on_other_channels_a_network_for_a_higher_target_is_used(drops):
    """Users' gains differ more than in the cell; a mean out of reach is refused with the largest possible."""
    draw = torch.rand(100, 12, 1, generator=torch.Generator().manual_seed(1))

    def spread(decades):
        return Network.broadcast(drops.truth.channel[:100] * 10 ** (decades * (draw - 0.5)), drops.truth.noise[:100])

    def fairness(solver, network, jain):
        problem = build_problem("fair-sum-rate", {"p_max": 10.0, "jain": jain})
        return evaluate(problem, network, solver.solve(problem, network).W).jain.mean().item()

    problem = build_problem("fair-sum-rate", {"p_max": 10.0, "jain": 0.86})
    wider = spread(0.75)
    assert fairness(shipped(0.86), wider, 0.86) < 0.86 - SLACK <= fairness(WiT(), wider, 0.86)
    found, tuned = WiT().solve(problem, wider), WiT().fitted(problem, wider)
    assert tuned.trained_jain == pytest.approx(found.info["trained_jain"][0].item()) and tuned.trained_jain > 0.86
    assert torch.equal(tuned.solve(problem, wider).W, found.W)
    H, noise = torch.cat([wider.channel[:1] * 1e30, wider.channel]), torch.cat([wider.noise[:1], wider.noise])
    beside = WiT().solve(problem, Network.broadcast(H, noise))  # NaN rates are not counted
    assert torch.equal(beside.info["trained_jain"][1:], found.info["trained_jain"])
    torch.testing.assert_close(beside.W[1:], found.W, rtol=1e-4, atol=1e-4)
    widest = spread(1.5)
    with pytest.raises(ConfigError, match=r"jain must be at most 0\.\d+, the largest mean that WiT reaches") as refusal:
        fairness(WiT(), widest, 0.97)
    most = float(str(refusal.value).split("at most ")[1].split(",")[0])
    assert fairness(WiT(), widest, most) >= most - SLACK


def test_the_solution_states_the_target_of_its_network(drops, tmp_path):
    channels = {"H": drops.truth.channel[:8].numpy(), "noise": drops.truth.noise[:8].numpy(), "p_max": np.float64(10)}
    np.savez(tmp_path / "drops.npz", **channels)
    asked = ["--problem", "fair-sum-rate", "--method", "wit", "--jain", "0.8", "--out", str(tmp_path / "beams.npz")]
    assert main(["solve", str(tmp_path / "drops.npz"), *asked]) == 0
    with np.load(tmp_path / "beams.npz") as beams:
        assert beams["trained_jain"].item() in targets() and beams["trained_jain"] >= 0.8
