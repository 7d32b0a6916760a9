"""``beamforge reproduce isac-networks`` on few instances."""

from __future__ import annotations

import csv
import importlib

from beamforge.cli import main

module = importlib.import_module("beamforge.reproduce.isac.networks")


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_and_goals(monkeypatch, tmp_path, capsys):
    for name, value in {"QUICK_TARGETS": (2,), "QUICK_SNRS": (10.0,)}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "BASELINES", ("isac-dnn", "rzf-null-space"))
    methods = {
        name: create for name, create in module.METHODS.items() if "iteration" not in name and name != "isac-sdr"
    }
    monkeypatch.setattr(module, "METHODS", methods)
    assert main(["reproduce", "isac-networks", "--quick", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    assert (tmp_path / "figure-11-snr.png").read_bytes().startswith(b"\x89PNG")
    by_snr = {row[""]: row for row in rows(tmp_path / "figure-11-snr.csv")}
    assert set(by_snr) == set(methods)
    assert float(by_snr["sao-isac"]["Percent of isac-wmmse, both met"]) > 80
    (by_targets,) = rows(tmp_path / "figure-10-targets.csv")
    assert by_targets["Targets"] == "2" and float(by_targets["Percent of isac-wmmse, both met"]) > 80
    goals = {row[""]: row for row in rows(tmp_path / "goals.csv")}
    violated = next(goal for name, goal in goals.items() if "violated" in name)
    assert float(violated["Measured"]) == 0 and violated["Met"] == "yes"
    assert any("of the feasible instances" in name for name in goals) and any(
        "above isac-dnn" in name for name in goals
    )
