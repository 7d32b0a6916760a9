"""``beamforge reproduce power-control`` on few links: its parts by definition, its files, its goals."""

from __future__ import annotations

import csv
import importlib

import numpy as np
import pytest
import torch
from oracles_links import PAPER_OPTIMUM, nats

from beamforge.cli import main
from beamforge.reproduce.power_control import figures as unrolling
from beamforge.scenarios import Strong, Weak

power_control = importlib.import_module("beamforge.reproduce.power_control.tables")


@pytest.fixture(scope="module")
def measured():
    """Two families with four links."""
    kinds = {"weak": Weak(4, random_weights=True), "strong": Strong(4)}
    names = ("quasi-inverse", "wmmse", "sca", "global")
    return {
        name: (instance := source.sample(8, dtype=torch.complex128), power_control.measure(instance, names))
        for name, source in kinds.items()
    }


def test_best_known_is_the_maximum_over_methods(measured):
    for instance, found in measured.values():
        utilities = np.stack([row.utility for name, row in found.items() if name != "quasi-inverse"])
        np.testing.assert_allclose(found["wmmse"].best, utilities.max(0), rtol=1e-12)
        G, weights = instance.truth.gains.numpy(), instance.context["weights"].numpy()
        equal = [nats(G[b], np.full(4, 0.05), weights[b], np.full(4, 0.5)) / np.log(2) for b in range(8)]
        assert (found["global"].utility >= np.array(equal) * (1 - 1e-9)).all()


def test_accuracy_is_relative_distance_and_utility_a_share(measured):
    _, weak = measured["weak"]
    assert power_control.accuracy(weak, "quasi-inverse") > 0.9999
    assert power_control.percent(weak, "wmmse").value == pytest.approx(100, abs=1e-4)
    _, strong = measured["strong"]
    trapped = strong["wmmse"].utility < strong["wmmse"].best * (1 - 1e-4)
    assert trapped.any() and (strong["wmmse"].accuracy[trapped] < 0.9).all()
    assert (strong["wmmse"].accuracy[~trapped] > 0.99).all()


def test_without_certificate_there_is_no_optimum(measured):
    _, strong = measured["strong"]
    assert len(strong["quasi-inverse"].utility) == 0
    assert power_control.accuracy(strong, "quasi-inverse") is None
    assert power_control.percent(strong, "quasi-inverse") is None
    assert power_control.accuracy(strong, "nobody") is None


def test_trajectories_end_at_the_optimum():
    problem, instance = unrolling.sampled_problem(unrolling.ThreeLinks(), 1, 0)
    for start in unrolling.STARTS:
        powers = unrolling.iteration_powers(problem, instance, start)
        np.testing.assert_allclose(powers[0], start)
        np.testing.assert_allclose(powers[-1], PAPER_OPTIMUM, atol=2e-3)


def test_tables_figures_and_goals(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(power_control, "LINKS", (4,))
    monkeypatch.setattr(power_control, "QUICK", 2)
    monkeypatch.setitem(power_control.METHODS, "mm-admm", ("mm-admm", {"max_iterations": 3}))
    monkeypatch.setattr(power_control, "UNSEEN", {3: 90.0})
    for name in ("NEAR", "NEAR_WEAK", "NEAR_SAMPLED"):
        monkeypatch.setattr(power_control, name, {4: 50.0})
    monkeypatch.setattr(power_control, "FAMILIES", power_control.FAMILIES[:3:2])
    monkeypatch.setattr(unrolling, "QUICK_EPOCHS", 2)
    monkeypatch.setattr(unrolling, "LABELS", 40)
    monkeypatch.setattr(unrolling, "HELD_OUT", 20)
    monkeypatch.setattr(unrolling, "BATCH", 20)
    assert main(["reproduce", "power-control", "--quick", "--out", str(tmp_path)]) == 0
    said, err = capsys.readouterr()
    assert err == "" and "Table 1" in said
    there = {path.name for path in tmp_path.iterdir()}
    assert {"figure-2.png", "training.csv", "figure-3a.png", "table-1.csv", "accuracy.csv", "utility.csv"} <= there
    with (tmp_path / "table-1.csv").open(newline="") as file:
        rows = {row["Method"]: row for row in csv.DictReader(file)}
    assert rows["neural-sum-rate"]["Accuracy: paper"] == "0.9836"
    assert float(rows["wmmse"]["alone, ms"]) > 0 and rows["quasi-inverse"]["strong"] == ""
    with (tmp_path / "training.csv").open(newline="") as file:
        assert [int(row["Epoch"]) for row in csv.DictReader(file)] == [0, 1, 2]
    with (tmp_path / "goals.csv").open(newline="") as file:
        goals = {row[""]: row for row in csv.DictReader(file)}
    assert goals["strong, L = 3: percent of the best known, neural-sum-rate-shared"]["Wanted"] == "≥ 90"
    assert "strong, L = 4: times faster than mm-admm, in a batch" in goals


def test_invalid_settings_are_rejected(capsys, tmp_path):
    assert main(["reproduce", "power-control", "--set", "steps=3", "--out", str(tmp_path)]) == 2
    assert "settings must be none" in capsys.readouterr().err
