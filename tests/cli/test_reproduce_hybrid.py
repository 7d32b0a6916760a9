"""``beamforge reproduce hybrid-outage`` on few instances, and the parts that its tables are made of."""

from __future__ import annotations

import csv
from importlib import import_module

import numpy as np
import pytest
import torch

from beamforge.bench.statistics import Estimate
from beamforge.cli import main
from beamforge.core import batching
from beamforge.core.evaluate import evaluate
from beamforge.reproduce.hybrid import training_curves
from beamforge.reproduce.hybrid.baseline import Baseline
from beamforge.reproduce.hybrid.cells import (
    FEEDBACK,
    PILOTS,
    Cell,
    Result,
    margin_for,
    perfect,
    problem_of,
    run,
    statistical,
    with_margin,
)

tables = import_module("beamforge.reproduce.hybrid.tables")
CELL = Cell(2, *PILOTS[0])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_perfect_knowledge_has_no_outage_and_the_power_of_the_report():
    instance = CELL.test(6)
    result, W = run(perfect, instance), perfect(instance)
    report = evaluate(problem_of(instance, 0.1), instance, W)
    assert result.outage.value == 0 and result.unsolved == 0
    np.testing.assert_allclose(result.power, report.utility.numpy())


def test_outage_of_a_margin_is_that_of_the_report():
    instance = CELL.test(40)
    result = run(with_margin(1.0), instance)
    share = evaluate(problem_of(instance, 0.1), instance, with_margin(1.0)(instance)).figures["outage"]
    np.testing.assert_allclose(result.missed, share.numpy())
    assert 0 < result.outage.value < 1


def test_the_margin_is_the_least_that_reaches_the_outage():
    instance = CELL.validation(60)
    margin = margin_for(0.1, instance, with_margin)
    assert run(with_margin(margin), instance).outage.value <= 0.1
    assert run(with_margin(margin - 0.1), instance).outage.value > 0.1


def test_users_without_beams_are_in_outage():
    instance = CELL.test(3)

    def none(instance):
        W = perfect(instance)
        return torch.cat([W[:1], torch.zeros_like(W[1:])])

    result = run(none, instance)
    assert result.missed.tolist() == [0, 1, 1] and np.isnan(result.power).tolist() == [False, True, True]
    assert result.unsolved == pytest.approx(2 / 3)


def test_codewords_by_statistics_meet_the_targets_on_the_estimates():
    instance = Cell(2, *FEEDBACK[2]).test(4)
    estimated = batching.tree_map(lambda leaf: leaf, instance)
    W = statistical(0.0)(instance)
    sinr = estimated.observation.network.sinr(W)
    torch.testing.assert_close(sinr, instance.context["sinr_target"], rtol=1e-6, atol=0)


def test_the_baseline_is_interpolated_between_margins():
    def result(outage, power):
        return Result(np.full(4, power), np.full(4, outage))

    rival = Baseline(1.0, result(0.1, 2.0), (result(0.2, 1.0), result(0.05, 4.0)))
    assert rival.at(0.15).mean_power == pytest.approx(1.5) and rival.at(0.15).outage.value == pytest.approx(0.15)
    assert rival.at(0.075).mean_power == pytest.approx(3.0)
    assert rival.at(0.5).mean_power == 1.0 and rival.at(0.01).mean_power == 4.0
    assert rival.percent(result(0.15, 0.75)).value == pytest.approx(50.0)


def test_folds_have_a_mean_and_a_standard_deviation():
    single = Estimate(1.0, 0.1)
    assert tables.over_folds([1.0], single) is single
    both = tables.over_folds([1.0, 3.0], single)
    assert (both.value, both.half) == (2.0, pytest.approx(2**0.5))


@pytest.fixture
def tiny(monkeypatch):
    """Few instances, few cells, short trainings."""
    monkeypatch.setattr(tables, "QUICK", 6)
    monkeypatch.setattr(tables, "PILOTS", PILOTS[:3])
    monkeypatch.setattr(tables, "FEEDBACK", FEEDBACK[:1])
    changes = {"run.steps": "4", "run.validate_every": "2", "run.validation_batches": "1", "run.batch": "8"}
    monkeypatch.setattr(training_curves, "QUICK", changes)


def test_tables_figures_and_goals(tiny, tmp_path, capsys):
    assert main(["reproduce", "hybrid-outage", "--quick", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    files = {"table-2.csv", "table-3.csv", "table-4.csv", "figure-2.png", "figure-3.png", "goals.csv"}
    assert files <= {path.name for path in tmp_path.iterdir()}
    second = rows(tmp_path / "table-2.csv")
    names = [row["Method"] for row in second[:5]]
    assert names[0].startswith("hybrid-margin") and set(names[1:]) == {
        "hybrid-gcn",
        "hybrid-fcn",
        "fulldigital-gcn",
        "greedy-hybrid, perfect CSI",
    }
    assert all(float(row["Outage (%)"]) == 0 for row in second if "perfect" in row["Method"])
    assert any("hybrid-2gcn: power" in row[""] for row in rows(tmp_path / "goals.csv"))
