"""`beamforge evaluate`: evaluates beams from any source by their rates, power limits and the bound."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from channel_files import broadcast, normal, write, write_h5, write_mat5, write_mat73

from beamforge.cli import main
from beamforge.io import channels as files


def report(capsys, *arguments):
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments)]) == 2
    out, sentence = capsys.readouterr()
    assert out == "" and sentence.count("\n") == 1
    return sentence


def test_metrics_agree_with_definitions(tmp_path, capsys, monkeypatch):
    arrays = broadcast(p_max=2.0)
    W = normal(6, 4, 3, seed=3)
    power = np.abs(arrays["H"] @ W) ** 2
    own = np.einsum("bkk->bk", power)
    rate = np.log2(1 + own / (power.sum(-1) - own + 0.1))
    spent = (np.abs(W) ** 2).sum((1, 2))
    np.savez(tmp_path / "mine.npz", W=W)
    for size in (1, 10**6):
        monkeypatch.setattr(files, "CHUNK_BYTES", size)
        found = report(capsys, write(tmp_path, arrays), tmp_path / "mine.npz")
        assert found["problem"] == "sum-rate" and found["count"] == 6
        assert found["mean_utility"] == pytest.approx(rate.sum(1).mean())
        assert found["mean_least_rate"] == pytest.approx(rate.min(1).mean())
        assert found["mean_power"] == pytest.approx(spent.mean())
        assert found["feasible_share"] == pytest.approx((spent <= 2).mean())
        assert found["largest_violation"]["TotalPower"] == pytest.approx(spent.max() / 2 - 1)


def test_one_user_at_full_power_meets_the_bound(tmp_path, capsys):
    arrays = broadcast(K=1)
    h = arrays["H"][:, 0]
    W = (h.conj() * math.sqrt(2) / np.linalg.norm(h, axis=1, keepdims=True))[..., None]
    np.savez(tmp_path / "mine.npz", W=W)
    found = report(capsys, write(tmp_path, arrays), tmp_path / "mine.npz")
    assert found["feasible_share"] == 1 and found["utility_over_bound"] == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("precision", ["32", "64"])
def test_solution_is_evaluated_for_its_own_problem(suffix, precision, tmp_path, capsys):
    channels = write(tmp_path, broadcast(p_max=1.0))
    out = tmp_path / f"s{suffix}"
    options = ["--p-max", "4", "--noise", "0.3", "--precision", precision, "--json"]
    capsys.readouterr()
    assert main(["solve", str(channels), "--problem", "sum-rate", "--out", str(out), *options]) == 0
    solved = json.loads(capsys.readouterr().out)
    found = report(capsys, channels, out)
    assert found["mean_utility"] == pytest.approx(solved["mean_utility"], rel=1e-6)
    assert found["feasible_share"] == 1 and found["status"] == {"converged": 6}
    assert 0.5 < found["utility_over_bound"] < 1
    strict = report(capsys, channels, out, "--p-max", "2")
    assert strict["feasible_share"] == 0 and strict["largest_violation"]["TotalPower"] == pytest.approx(1, rel=1e-4)
    other = report(capsys, channels, out, "--problem", "max-min")
    assert other["mean_utility"] == pytest.approx(found["mean_least_rate"])


@pytest.mark.parametrize("writer", [write_mat5, write_mat73])
def test_matlab_beams(writer, tmp_path, capsys):
    W = normal(6, 4, 3, seed=3)
    writer(tmp_path / "mine.mat", {"W": W})
    np.savez(tmp_path / "mine.npz", W=W)
    channels = write(tmp_path, broadcast(), "mat-v7.3")
    assert report(capsys, channels, tmp_path / "mine.mat") == report(capsys, channels, tmp_path / "mine.npz")


def test_powers_of_gains(tmp_path, capsys):
    G = np.random.default_rng(0).random((5, 3, 3)) + 2 * np.eye(3)
    p = np.random.default_rng(1).random((5, 3))
    write_h5(tmp_path / "mine.h5", {"p": p})
    found = report(capsys, write(tmp_path, {"G": G, "noise": 0.5, "p_max": 9.0}), tmp_path / "mine.h5")
    received = G * p[:, None, :]
    own = np.einsum("bkk->bk", received)
    assert found["mean_sum_rate"] == pytest.approx(np.log2(1 + own / (received.sum(-1) - own + 0.5)).sum(1).mean())
    assert found["mean_power"] == pytest.approx(p.sum(1).mean())


def test_targets_in_decibels(tmp_path, capsys):
    """Two orthogonal users of gains 1 and 4 with noise 1: 3 dB more than 1 W and 1/4 W are needed."""
    H = np.tile(np.diag([1.0, 2.0]).astype(complex), (3, 1, 1))
    np.savez(tmp_path / "mine.npz", W=H * np.array([1, 0.5])[:, None] / np.array([1, 2])[:, None] * 10**0.15)
    channels = write(tmp_path, {"H": H, "noise": 1.0})
    found = report(capsys, channels, tmp_path / "mine.npz", "--problem", "min-power", "--sinr-target-db", "3")
    assert found["unit"] == "W" and found["mean_utility"] == pytest.approx(1.25 * 10**0.3)
    assert found["feasible_share"] == 1 and found["utility_over_bound"] == pytest.approx(1)
    found = report(capsys, channels, tmp_path / "mine.npz", "--problem", "min-power", "--sinr-target-db", "4")
    assert found["feasible_share"] == 0


NAN = normal(6, 4, 3)
NAN[3, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, ["W must be given"]),
        ({"V": normal(6, 4, 3)}, ["W must be given", "V"]),
        ({"W": normal(6, 3, 4)}, ["W must be", "(6, 4, 3)", "(6, 3, 4)"]),
        ({"W": normal(5, 4, 3)}, ["W must be", "(5, 4, 3)"]),
        ({"W": normal(6, 4, 3).real}, ["W must be complex", "float64"]),
        ({"W": NAN}, ["W must be finite", "instance 3"]),
        ({"p": np.ones((6, 3))}, ["W must be given", "p"]),
        ({"W": np.full((6, 4, 3), None)}, ["W must be numbers", "objects"]),
    ],
)
def test_invalid_beams_are_rejected(arrays, words, tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", **arrays)
    sentence = refused(capsys, write(tmp_path, broadcast()), tmp_path / "mine.npz")
    assert all(word in sentence for word in words), sentence


def test_negative_powers_and_missing_limits_are_rejected(tmp_path, capsys):
    np.savez(tmp_path / "p.npz", p=-np.ones((2, 3)))
    channels = write(tmp_path, {"G": np.ones((2, 3, 3)), "noise": 1.0})
    assert "non-negative" in refused(capsys, channels, tmp_path / "p.npz", "--p-max", "1")
    assert "p_max" in refused(capsys, channels, tmp_path / "p.npz")
    assert "absent.npz" in refused(capsys, channels, tmp_path / "absent.npz")


def test_invalid_meta_entries_are_ignored(tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", W=normal(6, 4, 3), meta=json.dumps({"p_max": "much", "noise": None}))
    assert report(capsys, write(tmp_path, broadcast()), tmp_path / "mine.npz")["count"] == 6
