"""``beamforge reproduce neural-sum-rate-shared`` on tiny instances."""

from __future__ import annotations

import csv
import importlib

import pytest
import torch

from beamforge.cli import main
from beamforge.core.named_problems import build_problem
from beamforge.scenarios.power_control import Strong, Weak

module = importlib.import_module("beamforge.reproduce.power_control.shared")


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_and_goals(monkeypatch, tmp_path, capsys):
    cases = (
        module.Case("few", Strong(4), {module.ONE_SAMPLE: 10.0, module.SEVERAL_SAMPLES: 100.1}, slow=True),
        module.Case("weak", Weak(3), {module.ONE_SAMPLE: 99.0}),
    )
    monkeypatch.setattr(module, "CASES", cases)
    monkeypatch.setattr(module, "TIMED_LINKS", (3,))
    monkeypatch.setattr(module, "QUICK", 2)
    monkeypatch.setattr(module, "BATCH", 2)
    assert main(["reproduce", "neural-sum-rate-shared", "--quick", "--out", str(tmp_path)]) == 0
    said, err = capsys.readouterr()
    assert err == "" and all(str(tmp_path / f"{name}.csv") in said for name in ("rates", "time", "goals"))
    rates = {(row["Links"], row["Method"]): float(row["Percent"]) for row in rows(tmp_path / "rates.csv")}
    assert ("few", module.SLOW) in rates and ("weak", module.SLOW) not in rates
    assert all(0 < value <= 100 + 1e-9 for value in rates.values()), "nothing is better than the best known"
    assert rates["few", module.ONE_SAMPLE] >= rates["few", f"{module.OURS}, 0 steps"] > rates["few", "equal power"]
    assert rates["few", "wmmse, 16 starts"] >= rates["few", "wmmse from equal power"] - 1e-6
    assert all(float(row["Time (ms)"]) > 0 for row in rows(tmp_path / "time.csv"))
    met = {row[""]: row["Met"] for row in rows(tmp_path / "goals.csv")}
    assert met[f"few: {module.ONE_SAMPLE}"] == "yes" and met[f"few: {module.SEVERAL_SAMPLES}"] == "NO"
    assert len(met) == 5


@pytest.mark.parametrize("links", [1, 5])
def test_best_single_link(links):
    instance = Strong(links, random_weights=True).sample(6, seed=2, dtype=torch.complex128)
    problem = build_problem("sum-rate", instance.context).bind(instance.truth)
    found = problem.value(instance.truth, module.best_link_alone(problem, instance))
    each = (2**0.5 * torch.eye(links, dtype=torch.complex128)).unsqueeze(1)
    values = [problem.value(instance.truth, W.expand(6, 1, links)) for W in each]
    torch.testing.assert_close(found, torch.stack(values).amax(0))
