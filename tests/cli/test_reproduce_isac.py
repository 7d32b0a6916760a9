"""``beamforge reproduce isac`` on small instances, and its independent evaluation."""

from __future__ import annotations

import csv
import importlib

import numpy as np
import torch

from beamforge import evaluate
from beamforge.cli import main
from beamforge.core.named_problems import build_problem
from beamforge.reproduce.isac.score import score
from beamforge.scenarios import Isac

module = importlib.import_module("beamforge.reproduce.isac.tables")


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_figures_and_goals(monkeypatch, tmp_path, capsys):
    for name, value in {
        "SIZE": 4,
        "QUICK": 3,
        "QUICK_TARGETS": (1, 2),
        "LEVELS": (0.0,),
        "QUICK_SNRS": (10.0,),
    }.items():
        monkeypatch.setattr(module, name, value)
    assert main(["reproduce", "isac", "--quick", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    for name in ("figure-10-targets", "figure-11-snr", "beam-pattern"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    share = [float(row["Met (%)"]) for row in rows(tmp_path / "figure-10-targets.csv")]
    assert share[0] >= share[1] > 0
    methods = {row[""]: row for row in rows(tmp_path / "figure-11-snr.csv")}
    assert set(methods) == set(module.METHODS)
    assert float(methods["isac-sdr"]["Percent of isac-wmmse, both met"]) <= 100 + 1e-6
    violated = next(row for row in rows(tmp_path / "goals.csv") if row[""].startswith("constraints violated"))
    assert float(violated["Measured"]) == 0 and violated["Met"] == "yes"


def test_score_agrees_with_evaluate_and_reports_violations():
    instance = Isac(users=3, antennas=4, targets=2).sample(3, seed=1, dtype=torch.complex128)
    problem = build_problem("isac", instance.context).bind(instance.truth)
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(3, 4, 7, dtype=torch.complex128, generator=generator)
    rate, excess = score(instance, W.numpy())
    report = evaluate(problem, instance, W)
    np.testing.assert_allclose(rate, report.utility, rtol=1e-10)
    np.testing.assert_allclose(excess, torch.stack(list(report.violation.values())).amax(0), rtol=1e-9)
    assert (score(instance, 1e-3 * W.numpy())[1] > 0).all()  # sensing SNRs below their targets
