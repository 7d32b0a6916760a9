"""The shipped weights of the learned hybrid methods: their headers, and power and outage on held-out instances."""

from __future__ import annotations

import pytest
import torch

from beamforge.cli import main
from beamforge.core.errors import ConfigError
from beamforge.io.weights import card, load
from beamforge.registry import MODELS
from beamforge.reproduce.hybrid.baseline import Baseline
from beamforge.reproduce.hybrid.cells import FEEDBACK, PILOTS, Cell, learned, problem_of, run
from beamforge.scenarios.base import cast
from beamforge.training.recipe import Recipe

PILOT_MODELS = ("hybrid-gcn", "hybrid-fcn", "fulldigital-gcn")
NAMES = (*PILOT_MODELS, "hybrid-2gcn")
COUNT = 300
OFF = 0.035
"""Largest distance from the nominal outage in a cell of this many instances: several standard deviations."""


@pytest.mark.parametrize("name", NAMES)
def test_the_header_tells_where_they_come_from(name):
    header = load(name).header
    assert len(header["commit"]) >= 7 and "dirty" not in header["commit"] and header["commit"] != "unknown"
    shipped = Recipe.find(name).tables()
    for section in ("model", "data", "optimiser", "run"):
        for entry, value in header["recipe"][section].items():
            now = shipped[section][entry]
            assert (list(now) if isinstance(now, tuple) else now) == value, f"{section}.{entry}"


def test_they_are_listed_and_come_with_a_card(capsys):
    assert main(["list", "models"]) == 0
    said = capsys.readouterr().out
    for name in NAMES:
        assert name in said
        told = card(name).read_text(encoding="utf-8")
        assert f"beamforge train {name}" in told and "benchmarks/hybrid_learned.py" in told


@pytest.mark.parametrize("name", PILOT_MODELS)
@pytest.mark.parametrize("users", [2, 4])
@pytest.mark.parametrize("kind", [0, 2])
def test_outage_is_near_the_nominal_one(name, users, kind):
    result = run(learned(MODELS[name](), 0.1), Cell(users, *PILOTS[kind]).test(COUNT))
    most = 0.1 if (name, users, kind) == ("hybrid-fcn", 4, 0) else OFF  # which a graph is needed for
    assert abs(result.outage.value - 0.1) < most and result.unsolved < 0.04


def test_outage_with_feedback_is_near_the_nominal_one():
    result = run(learned(MODELS["hybrid-2gcn"](), 0.1), Cell(2, *FEEDBACK[1]).test(COUNT))
    assert abs(result.outage.value - 0.1) < OFF and result.unsolved < 0.01


def test_power_is_below_that_of_a_margin_with_the_same_outage():
    cell = Cell(4, *PILOTS[0])
    ours = run(learned(MODELS["hybrid-gcn"](), 0.1), cell.test(COUNT))
    percent = Baseline.of(cell, 0.1, COUNT, COUNT).percent(ours)
    assert percent.value + percent.half < 100


@pytest.mark.parametrize("name", NAMES)
def test_a_smaller_outage_is_refused(name):
    instance = Cell(2, *PILOTS[1]).test(1)
    with pytest.raises(ConfigError, match=f"beamforge train {name}"):
        MODELS[name]().solve(problem_of(instance, 0.05), instance)


def test_single_precision_serves_as_well():
    instance = Cell(3, *PILOTS[3]).sample(50, 7)

    wide = run(learned(MODELS["hybrid-gcn"](), 0.1), instance)
    narrow = run(learned(MODELS["hybrid-gcn"](), 0.1), cast(instance, torch.complex64))
    assert narrow.mean_power == pytest.approx(wide.mean_power, rel=0.02)
