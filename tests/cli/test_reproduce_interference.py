"""``beamforge reproduce interference`` on tiny instances."""

from __future__ import annotations

import csv
import importlib

from beamforge.cli import main

module = importlib.import_module("beamforge.reproduce.interference.tables")


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_and_what_is_wanted(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(module, "SIZES", ((2, 2), (4, 8)))
    monkeypatch.setattr(module, "SNRS_DB", (-5, 25))
    monkeypatch.setattr(module, "RACED", (3, 4))
    monkeypatch.setattr(module, "QUICK", 3)
    monkeypatch.setattr(module, "BATCH", 40)
    assert main(["reproduce", "interference", "--quick", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    for problem, most in (("sum-rate", 103), ("max-min", 100.001)):
        found = {(row["K"], row["SNR (dB)"]): row for row in rows(tmp_path / f"{problem}.csv")}
        assert set(found) == {(K, snr) for K in "24" for snr in ("-5", "25")}
        for row in found.values():
            assert 50 < float(row["itnet-dualnet"]) < most
            assert float(row["mrt"]) < most and float(row["zf"]) < most
        assert found["2", "25"]["dbl"] == "" and 0 < float(found["4", "25"]["dbl"]) < 100
        inner = rows(tmp_path / f"{problem}-duality.csv")
        assert all(0 <= float(row["Projected (%)"]) <= 100 for row in inner)
        assert all(abs(float(row["Gap (%)"])) <= float(row["Size of gap (%)"]) * (1 + 1e-6) for row in inner)
        assert {row["Method"] for row in rows(tmp_path / f"{problem}-time.csv")} == {
            "itnet-dualnet",
            module.BEST[problem],
        }
    goals = {row[""]: row for row in rows(tmp_path / "goals.csv")}
    assert goals["max-min, K = 4, 25 dB: percent"]["Wanted"] == "≥ 97.9"
    assert len(goals) == 2 * (2 + 3) + 1
