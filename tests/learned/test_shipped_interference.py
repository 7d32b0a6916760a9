"""The weights for base stations that decide alone: what they say of themselves, and a floor under what they reach."""

from __future__ import annotations

import pytest
import torch

import beamforge
from beamforge.checks import check_solver
from beamforge.classical.duality.power_limited import PowerLimitedMaxMin
from beamforge.classical.sum_rate.wmmse import MulticellWMMSE
from beamforge.core.evaluate import evaluate
from beamforge.core.named_problems import build_problem
from beamforge.io.weights import card, load
from beamforge.learned.interference.multipliers import MaxMinInterference, SumRateInterference
from beamforge.scenarios import Interference
from beamforge.scenarios.base import TEST_SEEDS
from beamforge.training.recipe import Recipe

NAMES = ("interference-sum-rate", "interference-max-min")


def share(name, solver, best, instance):
    """Mean utility in percent of that of the best beams."""
    problem = build_problem(name, instance.context).bind(instance.truth)
    with torch.no_grad():
        ours, theirs = (evaluate(problem, instance, way.solve(problem, instance).W).utility for way in (solver, best))
    return 100 * (ours.mean() / theirs.mean()).item()


@pytest.mark.parametrize("name", NAMES)
def test_the_header_tells_where_they_come_from_and_the_card_how_to_make_them_anew(name):
    header = load(name).header
    assert header["model"] == name and header["version"] and header["commit"] != "unknown"
    recipe = Recipe.find(name).tables()
    for section in ("model", "data"):
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in recipe[section].items()}
        assert {key: header["recipe"][section].get(key) for key in plain} == plain
    assert f"beamforge train {name}" in card(name).read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [SumRateInterference, MaxMinInterference])
def test_they_conform_with_another_round(kind):
    check_solver(kind(rounds=2))


@pytest.mark.parametrize(("cells", "snr_db", "percent"), [(3, 0.0, 99.8), (3, 25.0, 99.9), (6, 5.0, 99.5)])
def test_one_exchange_is_nearly_wmmse(cells, snr_db, percent):
    instance = Interference(cells, 8, snr_db).sample(60, seed=TEST_SEEDS[3])
    assert share("sum-rate", SumRateInterference(), MulticellWMMSE(starts=1), instance) >= percent


@pytest.mark.parametrize(("cells", "snr_db", "percent"), [(2, 0.0, 99.0), (3, 25.0, 98.5), (6, 5.0, 95.0)])
def test_one_exchange_is_near_the_largest_least_rate_and_more_are_nearer(cells, snr_db, percent):
    instance = Interference(cells, 8, snr_db).sample(60, seed=TEST_SEEDS[3])
    once, more = (
        share("max-min", MaxMinInterference(rounds=rounds), PowerLimitedMaxMin(), instance) for rounds in (1, 6)
    )
    assert once >= percent and more >= max(once, 98.2)


@pytest.mark.parametrize("problem", ["sum-rate", "max-min"])
def test_by_name(problem):
    H = torch.randn(5, 3, 3, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    found = beamforge.solve(
        H, noise=0.1, p_max=2.0, serving=torch.arange(3), problem=problem, method="multipliers", rounds=2
    )
    assert found.W.shape == (5, 4, 3) and found.solved.all()
