"""A prescribed mean fairness on files: one scalar for the whole file, found before it is solved in pieces."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from channel_files import normal, read_solution, write
from solving import refused, solve

from beamforge.classical.linear import WeightedSLNR
from beamforge.cli import main
from beamforge.cli import solve as command
from beamforge.cli.solve import Job
from beamforge.io import channels as files

SPREAD = np.sqrt([[0.1], [1.0], [10.0]])
FAIR = ("--method", "wslnr", "--jain", "0.8")


@pytest.fixture
def channels(tmp_path):
    return write(tmp_path, {"H": normal(60, 3, 4) * SPREAD, "noise": np.float64(0.1), "p_max": np.float64(1.0)})


def mean_jain(solution):
    rate = solution["rate"].astype(float)
    return (rate.sum(-1) ** 2 / (3 * (rate**2).sum(-1))).mean()


def pieces_of_ten(monkeypatch):
    monkeypatch.setattr(files, "CHUNK_BYTES", 10 * 16 * (3 * 4 + 4 * 3 + 3 * 3))


def test_mean_index_meets_the_target_and_the_scalar_is_stored(channels, tmp_path, monkeypatch, capsys):
    found = {}
    for suffix in (".npz", ".h5"):
        assert solve(channels, tmp_path / f"s{suffix}", *FAIR, "--json", problem="fair-sum-rate") == 0
        summary = json.loads(capsys.readouterr().out)
        found[suffix] = read_solution(tmp_path / f"s{suffix}")
        assert 0.8 <= mean_jain(found[suffix]) < 0.8 + 1e-6
        assert summary["mean_jain"] == pytest.approx(mean_jain(found[suffix]), rel=1e-9)
        assert summary["alpha"] == found[suffix]["alpha"] > 0 and "found_on" not in summary
    pieces_of_ten(monkeypatch)
    assert solve(channels, tmp_path / "cut.npz", *FAIR, problem="fair-sum-rate") == 0
    cut = read_solution(tmp_path / "cut.npz")
    assert cut["alpha"] == found[".npz"]["alpha"]
    np.testing.assert_allclose(cut["W"], found[".npz"]["W"], rtol=1e-9, atol=1e-12)


def test_target_in_the_file_is_reported_like_a_given_one(channels, tmp_path, capsys):
    given = dict(np.load(channels))
    for stated in (np.full(60, 0.8), np.float64(0.8)):
        write(tmp_path, given | {"jain": stated}, name="stated")
        asked = ("--method", "wslnr", "--json")
        assert solve(tmp_path / "stated.npz", tmp_path / "s.npz", *asked, problem="fair-sum-rate") == 0
        assert json.loads(capsys.readouterr().out)["mean_jain"] == pytest.approx(0.8, abs=1e-6)
    write(tmp_path, given | {"jain": np.linspace(0.7, 0.9, 60)}, name="unlike")
    arguments = ["--problem", "fair-sum-rate", "--method", "wslnr", "--out", tmp_path / "u.npz"]
    before = sorted(path.name for path in tmp_path.iterdir())
    sentence = refused(capsys, tmp_path, before, "solve", tmp_path / "unlike.npz", *arguments)
    assert sentence.strip() == "jain must be one number for the mean over a batch, got numbers from 0.7 to 0.9"


def test_given_scalar_is_used(channels, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(WeightedSLNR, "for_the_mean", lambda *_: pytest.fail("nothing is to be found"))
    arguments = ("--method", "wslnr", "--jain", "0.99", "--set", "alpha=0.5", "--json")
    assert solve(channels, tmp_path / "s.npz", *arguments, problem="fair-sum-rate") == 0
    assert json.loads(capsys.readouterr().out)["alpha"] == 0.5
    assert read_solution(tmp_path / "s.npz")["alpha"] == 0.5


def test_scalar_of_a_large_file_is_found_on_its_first_instances(channels, tmp_path, monkeypatch, capsys):
    pieces_of_ten(monkeypatch)
    monkeypatch.setattr(command, "SAMPLE_BYTES", 2 * files.CHUNK_BYTES)
    assert solve(channels, tmp_path / "whole.h5", *FAIR, "--json", problem="fair-sum-rate") == 0
    assert json.loads(capsys.readouterr().out)["found_on"] == 20
    whole = read_solution(tmp_path / "whole.h5")
    assert whole["found_on"] == 20
    assert mean_jain({"rate": whole["rate"][:20]}) == pytest.approx(0.8, abs=1e-6)
    original = Job.solve

    def once(self, writer, first, count):
        if first == 30:
            raise KeyboardInterrupt
        original(self, writer, first, count)

    with monkeypatch.context() as patch:
        patch.setattr(Job, "solve", once)
        assert solve(channels, tmp_path / "s.h5", *FAIR, problem="fair-sum-rate") == 1
    with h5py.File(tmp_path / "s.h5.partial") as file:
        assert file.attrs["progress"][0] == 30
    assert solve(channels, tmp_path / "s.h5", *FAIR, problem="fair-sum-rate") == 0
    found = read_solution(tmp_path / "s.h5")
    assert found["alpha"] == whole["alpha"]
    np.testing.assert_array_equal(found["W"], whole["W"])


def test_infeasible_target_leaves_no_file(channels, tmp_path, capsys):
    for out in ("s.npz", "s.h5"):
        arguments = ["--problem", "fair-sum-rate", "--method", "wslnr", "--jain", "0.99", "--out", tmp_path / out]
        sentence = refused(capsys, tmp_path, ["channels.npz"], "solve", channels, *arguments)
        assert "jain must be at most 0." in sentence and "got 0.99" in sentence


def test_evaluate_reports_target_and_mean_index(channels, tmp_path, monkeypatch, capsys):
    assert solve(channels, tmp_path / "s.npz", *FAIR, problem="fair-sum-rate") == 0
    pieces_of_ten(monkeypatch)
    for more, limit in (((), 0.8), (("--jain", "0.9"), 0.9)):
        capsys.readouterr()
        assert main(["evaluate", str(channels), str(tmp_path / "s.npz"), "--json", *more]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["problem"] == "fair-sum-rate" and report["feasible_share"] == 1
        assert report["mean_jain"] == pytest.approx(0.8, abs=1e-6)
        assert report["largest_violation"]["MeanJainAtLeast"] == pytest.approx(1 - 0.8 / limit, abs=1e-6)
        assert report["largest_violation"]["EqualPower"] < 1e-9
        assert 0 < report["utility_over_bound"] < 1
    assert main(["evaluate", str(channels), str(tmp_path / "s.npz"), "--json", "--problem", "sum-rate"]) == 0


def test_beams_of_unequal_power_are_reported(channels, tmp_path, capsys):
    assert solve(channels, tmp_path / "s.npz", "--method", "wmmse") == 0
    capsys.readouterr()
    arguments = ["evaluate", str(channels), str(tmp_path / "s.npz"), "--problem", "fair-sum-rate", "--jain", "0.5"]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["feasible_share"] == 0
