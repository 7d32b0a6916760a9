"""``beamforge reproduce fairness`` on a few drops, and the comparison with the frontier that it rests on."""

from __future__ import annotations

import csv
import importlib

import numpy as np
import pytest

from beamforge.classical.fairness.pareto import Pareto
from beamforge.classical.linear import WeightedSLNR
from beamforge.cli import main
from beamforge.core import batching
from beamforge.reproduce.fairness import frontier
from beamforge.reproduce.fairness import networks as fairness_networks
from beamforge.scenarios import Fairness
from beamforge.scenarios.base import VALIDATION_SEEDS

fairness = importlib.import_module("beamforge.reproduce.fairness.tables")
DROPS = Fairness().sample(8, seed=VALIDATION_SEEDS[0])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_figures_and_goals(monkeypatch, tmp_path, capsys):
    for name, value in {
        "QUICK": 8,
        "FRONTIER_QUICK": 4,
        "EXTRA_PRICES": (0.0, 20.0, 200.0),
        "TARGETS": (0.75, 0.9),
        "TIMED": 8,
    }.items():
        monkeypatch.setattr(fairness, name, value)
    monkeypatch.setattr(fairness, "SIZES", ((4, 8),))
    monkeypatch.setattr(fairness, "OTHER_TARGETS", (0.8,))
    monkeypatch.setattr(fairness_networks, "targets", dict)  # with no transformer at all
    arguments = ["reproduce", "fairness", "--quick", "--set", "checkpoint=random", "--out", str(tmp_path)]
    assert main(arguments) == 0
    said, err = capsys.readouterr()
    assert err == "" and "Goals: " in said
    tables = {"table-2", "along", "frontier", "sizes", "time", "goals"}
    assert {path.stem for path in tmp_path.glob("*.csv")} == tables
    assert len(list(tmp_path.glob("figure-*.png"))) == 5
    two = rows(tmp_path / "table-2.csv")
    assert [row["SLNR, paper"] for row in two][:2] == ["30.48", "29.47"] and len(two) == 10
    goals = {row[""]: row for row in rows(tmp_path / "goals.csv")}
    assert goals["wit, J_LB 0.86: no weights"]["Met"] == "NO"
    assert goals["multipliers, target 0.9: percent over weighted SLNR"]["Met"] in ("yes", "NO")


def test_tangents_bound_all_beams():
    """Weighted SLNR is below the frontier at each alpha, and points of the frontier are on it."""
    best = frontier.frontier_rates(DROPS, [0.0, 15.0, 30.0, 50.0, 80.0])
    for alpha in (0.0, 1.0, 2.0):
        slnr = frontier.solve_drops(WeightedSLNR(alpha), DROPS, 0.9)
        share = frontier.percent_of_frontier(slnr, best).value
        assert 70 < share < 100.0
        by_hand = min(b.sum_rate.mean() + b.scalar * (b.jain.mean() - slnr.jain.mean()) for b in best)
        assert share == pytest.approx(100 * slnr.sum_rate.mean() / by_hand, rel=1e-9)
    between = frontier.solve_drops(Pareto(40.0), DROPS, 0.9)
    assert 98.5 < frontier.percent_of_frontier(between, best).value <= 100.01
    assert frontier.percent_of_frontier(best[2], best).value == pytest.approx(100, abs=0.02)


def test_gains_at_equal_means_do_not_depend_on_pieces(monkeypatch):
    one = frontier.solve_drops(WeightedSLNR(1.0), DROPS, 0.9)
    assert frontier.percent_of_slnr(one, DROPS).value == pytest.approx(100, abs=1e-3)
    monkeypatch.setattr(frontier, "CHUNK", 3)
    np.testing.assert_allclose(frontier.solve_drops(WeightedSLNR(1.0), DROPS, 0.9).rate, one.rate, rtol=1e-4)
    few = frontier.solve_drops(WeightedSLNR(1.0), batching.take(DROPS, slice(5)), 0.9)
    np.testing.assert_allclose(one.first(5).rate, few.rate, rtol=1e-4)
