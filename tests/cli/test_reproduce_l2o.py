"""``beamforge reproduce l2o-transformer`` on tiny instances."""

from __future__ import annotations

import csv
import importlib

import pytest

from beamforge.cli import main

l2o = importlib.import_module("beamforge.reproduce.l2o.tables")
FILES = {
    "sizes.csv",
    "unseen.csv",
    "dedicated.csv",
    "lengths.csv",
    "ascent-steps.csv",
    "snr.csv",
    "time.csv",
    "goals.csv",
}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def tiny(monkeypatch):
    for name, value in {
        "QUICK": 4,
        "TRAINED": (4, 8),
        "UNSEEN": (5,),
        "SEVERAL": ((4, 4),),
        "STEPS": (0, 2),
        "LEVELS_DB": (20.0,),
        "LENGTHS": (1e-2, 1e-4),
        "CONVERGED": 60,
    }.items():
        monkeypatch.setattr(l2o, name, value)


def test_every_size_has_results_and_goals(tiny, tmp_path, capsys):
    assert main(["reproduce", "l2o-transformer", "--quick", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == FILES and all(name in said for name in FILES)
    sizes = rows(tmp_path / "sizes.csv")
    assert [(row["K"], row["N"]) for row in sizes] == [(f"{K} users", f"{N} antennas") for K in (4, 8) for N in (4, 8)]
    assert all(float(row["mt-sao-lift"]) > 98 and float(row["wmmse"]) > 99 for row in sizes)
    goals = {row[""]: row for row in rows(tmp_path / "goals.csv")}
    assert goals["8×4: percent"]["Wanted"] == "≥ 97" and goals["4×8: percent"]["Wanted"] == "≥ 99"
    assert "5×5: points over the sizes around it" in goals and "the least of all sizes" in goals


def test_printed_euclidean_step_length_is_too_large(tiny, tmp_path):
    (row,) = l2o.by_length(8).rows
    long, short = (cell.value for cell in row[1:])
    rzf = l2o.percents(l2o.sampled((4, 4), 20.0, 8), {"rzf": l2o.partial(l2o.solved, l2o.RZF())})["rzf"].value
    assert long < rzf - 5 and short > rzf
