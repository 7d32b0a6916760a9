"""Hybrid beamforming on files: sample, solve, evaluate, and errors in one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
from channel_files import normal, read_solution, write
from solving import refused, solve

from beamforge.cli import main

B, K, N = 3, 2, 6


def channels(folder, **changed):
    stated = {"H": normal(B, K, N), "noise": np.float64(0.5), "sinr_target": np.array([2.0, 4.0])} | changed
    return write(folder, {name: value for name, value in stated.items() if value is not None})


def report(capsys, *arguments):
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def sinr(H, W, noise):
    power = np.abs(H @ W) ** 2
    own = np.einsum("bkk->bk", power)
    return own / (power.sum(-1) - own + noise)


def test_sample_solve_and_evaluate(tmp_path, capsys):
    sampled, out = tmp_path / "c.npz", tmp_path / "s.npz"
    assert main(["sample", "hybrid-outage", "--count", "4", "--seed", "0", "--out", str(sampled)]) == 0
    file = np.load(sampled)
    assert file["codebook"].shape == (32, 64) and file["H_estimate"].shape == file["H"].shape == (4, 4, 32)
    assert file["covariance"].shape == (4, 4, 32, 32) and file["csi_quality"].shape == (4, 4)
    assert solve(sampled, out, "--outage", "0.1", problem="hybrid-min-power") == 0
    said = capsys.readouterr().out
    assert "hybrid-margin" in said and "mean outage" in said
    found = read_solution(out)
    assert found["A"].shape == (4, 32, 5) and found["B"].shape == (4, 5, 4) and found["p"].shape == (4, 4)
    beams = found["A"] @ (found["B"] * np.sqrt(found["p"])[:, None])
    np.testing.assert_allclose(found["W"], beams, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["A"][1], file["codebook"][:, found["beam_index"][1]])
    missed = sinr(file["H"], found["W"], 1.0) < file["sinr_target"] * (1 - 1e-4)
    np.testing.assert_allclose(found["outage"], missed.mean(-1))
    scored = report(capsys, sampled, out)
    assert scored["mean_outage"] == pytest.approx(missed.mean())
    assert scored["mean_power"] == pytest.approx((np.abs(found["W"]) ** 2).sum((1, 2)).mean(), rel=1e-5)


def test_perfect_channels_and_the_default_codebook(tmp_path, capsys):
    source, out = channels(tmp_path), tmp_path / "s.npz"
    assert solve(source, out, "--set", "rf_chains=3", problem="hybrid-min-power") == 0
    found = read_solution(out)
    assert (sinr(normal(B, K, N), found["W"], 0.5) >= np.array([2, 4]) - 1e-6).all()
    c = np.arange(N)
    dft = np.exp(2j * np.pi * c[:, None] * c / N) / np.sqrt(N)
    np.testing.assert_allclose(found["A"][0], dft[:, found["beam_index"][0]], atol=1e-12)
    np.testing.assert_allclose(found["utility"], (np.abs(found["W"]) ** 2).sum((1, 2)), rtol=1e-9)
    scored = report(capsys, source, out)
    assert scored["feasible_share"] == 1 and scored["mean_bound"] <= scored["mean_utility"] * (1 + 1e-9)


def test_baseband_power_is_the_utility_when_asked_for(tmp_path, capsys):
    book = normal(N, 8, seed=3)
    source, out = channels(tmp_path, codebook=book), tmp_path / "s.npz"
    more = ("--set", "rf_chains=2", "--power", "baseband", "--method", "greedy-hybrid")
    assert solve(source, out, *more, problem="hybrid-min-power") == 0
    found = read_solution(out)
    np.testing.assert_allclose(found["utility"], found["p"].sum(-1), rtol=1e-9)
    scored = report(capsys, source, out)
    assert scored["mean_utility"] == pytest.approx(found["utility"].mean(), rel=1e-9)
    assert scored["feasible_share"] == 1


def test_targets_that_cannot_be_met_are_flagged(tmp_path, capsys):
    H = normal(B, K, N)
    H[1, 1] = 0
    source, out = channels(tmp_path, H=H), tmp_path / "s.npz"
    assert solve(source, out, "--set", "rf_chains=2", problem="hybrid-min-power") == 0
    assert read_solution(out)["status"].tolist() == [0, 2, 0]
    assert solve(source, out, "--set", "rf_chains=1", problem="hybrid-min-power") == 0
    found = read_solution(out)
    assert (found["status"] == 2).all() and (found["W"] == 0).all() and np.isnan(found["utility"]).all()


BOOK = normal(N, 8, seed=3)


@pytest.mark.parametrize(
    ("changed", "more", "sentence"),
    [
        ({"codebook": BOOK * (np.arange(8) != 2)}, (), "codebook must have no zero columns, got one in column 2"),
        ({"codebook": BOOK[:, [0, 1, 2, 1, 3]]}, (), "got the same in columns 1 and 3: leave one out"),
        ({"codebook": BOOK[:4]}, (), "codebook must be [N, C]"),
        ({"sinr_target": np.ones(3)}, (), "sinr_target must be"),
        ({"sinr_target": None}, (), "sinr_target must be given for hybrid-min-power"),
        ({"covariance": -np.ones((B, K, N, N))}, (), "covariance must be E[h h^H] of each user"),
        ({}, ("--outage", "1.5"), "outage must be a probability between 0 and 1"),
        ({}, ("--power", "total"), "power must be radiated or baseband"),
        ({}, ("--set", "rf_chains=7"), "rf_chains must be at most the number of the 6 antennas"),
        ({}, ("--set", "rf_chain=2"), "did you mean 'rf_chains'?"),
        ({}, ("--method", "duality"), "greedy-hybrid"),
    ],
)
def test_faults_in_one_sentence(tmp_path, capsys, changed, more, sentence):
    source = channels(tmp_path, **changed)
    before = [path.name for path in tmp_path.iterdir()]
    arguments = ("solve", source, "--problem", "hybrid-min-power", *more, "--out", tmp_path / "s.npz")
    assert sentence in refused(capsys, tmp_path, sorted(before), *arguments)


def test_hybrid_options_are_refused_with_other_problems(tmp_path, capsys):
    source = channels(tmp_path)
    for more in (("--outage", "0.1"), ("--power", "baseband")):
        arguments = ("solve", source, "--problem", "min-power", *more, "--out", tmp_path / "s.npz")
        assert "must be left out with min-power" in refused(capsys, tmp_path, [source.name], *arguments)


def test_factors_of_a_solution_must_fit(tmp_path, capsys):
    source, out = channels(tmp_path), tmp_path / "s.npz"
    assert solve(source, out, "--set", "rf_chains=2", problem="hybrid-min-power") == 0
    good = read_solution(out)
    for name, value, words in (
        ("B", good["B"][:, :1], "B must be complex (3, 2, 2)"),
        ("p", -good["p"], "p must be finite and powers not negative"),
    ):
        np.savez(out, **{**good, name: value})
        sentence = refused(capsys, tmp_path, [source.name, "s.npz"], "evaluate", source, out)
        assert words in sentence
    np.savez(out, **{**good, "A": good["A"] * 1j})
    scored = report(capsys, source, out)
    assert scored["feasible_share"] == 0 and scored["largest_violation"]["AnalogCodebook"] > 0.1
    np.savez(out, **{name: good[name] for name in ("W", "problem", "meta")})
    assert report(capsys, source, out)["feasible_share"] == 1  # W alone: the DFT spans all beams
