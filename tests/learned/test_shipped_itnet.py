"""Weights for interference channels that come with the package: where they come from, and what they reach at least."""

from __future__ import annotations

import pytest
import torch

from beamforge.classical.duality.power_limited import PowerLimitedMaxMin
from beamforge.classical.linear import RZF, ZF
from beamforge.classical.sum_rate.wmmse import MulticellWMMSE
from beamforge.cli import main
from beamforge.core.named_problems import build_problem
from beamforge.io.weights import card, load
from beamforge.registry import create
from beamforge.scenarios.base import TEST_SEEDS
from beamforge.scenarios.interference import Interference
from beamforge.training.recipe import Recipe

NAMES = {
    "itnet-dualnet-sum-rate": "itnet-dualnet-sum-rate",
    "itnet-dualnet-max-min": "itnet-dualnet-max-min",
    "nfl-sum-rate": "nfl",
    "nfl-max-min": "nfl",
    "dbl-sum-rate": "dbl",
    "dbl-max-min": "dbl",
}


@pytest.mark.parametrize(("name", "model"), NAMES.items())
def test_headers_tell_where_they_come_from(name, model):
    trained = load(model, name=name)
    assert len(trained.header["commit"]) >= 7 and "dirty" not in trained.header["commit"]
    shipped = Recipe.find(name).tables()
    for section in ("model", "data", "optimiser", "run"):
        for entry, value in trained.header["recipe"][section].items():
            now = shipped[section][entry]
            assert (list(now) if isinstance(now, tuple) else now) == value, f"{section}.{entry}"


def test_they_are_listed_and_come_with_cards(capsys):
    assert main(["list", "models"]) == 0
    listed = capsys.readouterr().out
    for name in NAMES:
        told = card(name).read_text(encoding="utf-8")
        assert name in listed and f"beamforge train {name}" in told and "beamforge reproduce interference" in told


def compare(problem, method, cells, snr_db, antennas=8, count=100, **more):
    """Mean utility over that of the best for all channels known, and of SLNR's over that."""
    scenario = Interference(cells=cells, antennas=antennas, snr_db=snr_db, **more)
    instance = scenario.sample(count, seed=TEST_SEEDS[7], dtype=torch.complex128)
    question = build_problem(problem, instance.context).bind(instance.truth)

    def utility(W):
        return question.value(instance.truth, W).mean()

    if problem == "sum-rate":
        start = ZF().solve(question, instance).W
        best = utility(MulticellWMMSE(tolerance=1e-6).solve(question, instance, start=start).W)
    else:
        best = utility(PowerLimitedMaxMin().solve(question, instance).W)
    ours = create(question, instance.truth, method).solve(question, instance).W
    return utility(ours) / best, utility(RZF().solve(question, instance).W) / best


@pytest.mark.parametrize(("cells", "least"), [(2, 0.995), (4, 0.993), (6, 0.985)])
@pytest.mark.parametrize("snr_db", [-5.0, 10.0, 25.0])
def test_the_sum_rate_is_near_that_of_wmmse(cells, least, snr_db):
    assert compare("sum-rate", "itnet-dualnet", cells, snr_db)[0] >= least


@pytest.mark.parametrize(("cells", "snr_db", "least"), [(2, 0.0, 0.99), (4, 10.0, 0.98), (6, 10.0, 0.95)])
def test_the_least_rate_is_near_the_largest(cells, snr_db, least):
    ours, without = compare("max-min", "itnet-dualnet", cells, snr_db)
    assert ours >= least and ours > without + 0.005


@pytest.mark.parametrize("problem", ["sum-rate", "max-min"])
def test_weights_of_the_rates_are_heeded(problem):
    ours, without = compare(problem, "itnet-dualnet", 3, 10.0, random_weights=True)
    assert ours > without


@pytest.mark.parametrize(("problem", "least"), [("sum-rate", 0.98), ("max-min", 0.96)])
def test_two_antennas_are_enough(problem, least):
    assert compare(problem, "itnet-dualnet", 2, 10.0, antennas=2)[0] >= least


@pytest.mark.parametrize("method", ["nfl", "dbl"])
@pytest.mark.parametrize("problem", ["sum-rate", "max-min"])
def test_baselines_have_learned(method, problem):
    assert 0.4 < compare(problem, method, 4, 0.0)[0] < 1.0001
