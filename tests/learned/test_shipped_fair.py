"""The shipped weights of fair multipliers: their header, and the objective they reach."""

from __future__ import annotations

import pytest
import torch

import beamforge
from beamforge import Problem
from beamforge.classical.fairness.pareto import Pareto
from beamforge.cli import main
from beamforge.core.constraints import EqualPower, MeanJainAtLeast, jain_index
from beamforge.core.utilities import SumRate
from beamforge.io.weights import card, load
from beamforge.learned.fairness.multipliers import FairMultipliers
from beamforge.scenarios import Fairness
from beamforge.scenarios.base import TEST_SEEDS
from beamforge.training.recipe import Recipe


def test_the_header_tells_where_they_come_from():
    header = load("fair-multipliers").header
    assert header["version"] and len(header["commit"]) >= 7 and header["commit"] != "unknown"
    recipe = Recipe.find("fair-multipliers").tables()
    for section in ("model", "data"):
        expected = {name: list(v) if isinstance(v, tuple) else v for name, v in recipe[section].items()}
        assert header["recipe"][section] == expected, "the shipped recipe is not the one they were trained by"


def test_they_are_listed_and_come_with_a_card(capsys):
    assert main(["list", "models"]) == 0
    assert "sum rate and fairness by learned multipliers" in capsys.readouterr().out
    told = card("fair-multipliers").read_text(encoding="utf-8")
    assert "beamforge train fair-multipliers" in told and "beamforge reproduce fairness" in told


@pytest.mark.parametrize(
    ("users", "antennas", "price", "percent"),
    [(12, 16, 10.0, 99.7), (12, 16, 35.0, 99.3), (12, 16, 80.0, 99.6), (6, 16, 25.0, 99.5), (20, 16, 35.0, 98.5)],
)
def test_they_are_near_the_frontier(users, antennas, price, percent):
    """``S + price J`` against that of `Pareto`, on held-out drops."""
    drops = Fairness(users=users, antennas=antennas).sample(24, seed=TEST_SEEDS[2]).truth
    problem = Problem(SumRate(), (EqualPower(10.0), MeanJainAtLeast(0.9)))
    found = []
    for solver in (FairMultipliers(price=price), Pareto(price=price, starts=1, tolerance=1e-4)):
        with torch.no_grad():
            rate = drops.rate(solver.solve(problem, drops).W)
        found.append((rate.sum(-1) + price * jain_index(rate)).mean())
    assert found[0] >= percent / 100 * found[1]


def test_by_name():
    drops = Fairness().sample(30, seed=TEST_SEEDS[2])
    asked = {"noise": drops.observation.network.noise, "p_max": 10.0, "problem": "fair-sum-rate", "jain": 0.9}
    found = beamforge.solve(drops.observation.network.channel, method="multipliers", **asked)
    assert jain_index(drops.observation.network.rate(found.W)).mean() >= 0.9 - 1e-6
