"""Joint sensing and communication on files: sample, solve, evaluate, beam patterns, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from channel_files import normal, read_solution, write
from solving import refused, solve

from beamforge.cli import main

ANGLES, GAIN = np.array([[0.2, 0.9], [0.3, 1.2], [0.1, 0.5]]), np.ones((3, 2), complex)


def channels(folder, **changed):
    stated = {"H": normal(3, 3, 6), "noise": np.float64(0.1), "p_max": np.float64(1.0), "target_angles": ANGLES}
    arrays = stated | {"target_gain": GAIN, "sensing_noise": np.float64(0.01)} | changed
    return write(folder, {name: value for name, value in arrays.items() if value is not None})


def report(capsys, *arguments):
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def sensing_snr(W):
    n = np.arange(W.shape[1])[:, None]
    a = np.exp(1j * np.pi * n * np.sin(ANGLES)[:, None, :]) / np.sqrt(W.shape[1])
    return (np.abs(a.conj().swapaxes(1, 2) @ W) ** 2).sum(-1) / 0.01


@pytest.mark.parametrize("method", ["isac-wmmse", "sao-isac", "isac-sdr", "rzf-null-space"])
def test_file_without_stream_user_gets_n_sensing_streams(tmp_path, capsys, method):
    source, out = channels(tmp_path), tmp_path / "s.npz"
    assert solve(source, out, "--method", method, "--sensing-snr-db", "5", problem="isac") == 0
    found = read_solution(out)
    assert found["W"].shape == (3, 6, 9)
    assert found["stream_user"].tolist() == [0, 1, 2, *[-1] * 6]
    np.testing.assert_allclose(found["sensing_snr"], sensing_snr(found["W"]), rtol=1e-9)
    assert (found["sensing_snr"] >= 10**0.5 * (1 - 1e-6)).all()
    scored = report(capsys, source, out)
    assert scored["problem"] == "isac" and scored["feasible_share"] == 1
    assert scored["mean_utility"] == pytest.approx(found["utility"].mean(), rel=1e-9)


def test_sample_solve_and_beam_pattern(tmp_path, capsys):
    sampled, out, figure = (tmp_path / name for name in ("c.npz", "s.npz", "f.png"))
    size = ("--set", "users=3", "--set", "antennas=6", "--set", "targets=2")
    assert main(["sample", "isac", "--count", "2", "--seed", "0", *size, "--out", str(sampled)]) == 0
    assert solve(sampled, out, problem="isac") == 0
    report(capsys, sampled, out, "--figure", figure)
    assert figure.read_bytes().startswith(b"\x89PNG")
    sentence = refused(capsys, tmp_path, ["c.npz", "f.png", "s.npz"], "evaluate", sampled, out, "--figure", "f.pdf")
    assert "must end in .png" in sentence


def test_sensing_rates_added_to_the_sum_rate(tmp_path, capsys):
    source, out = channels(tmp_path), tmp_path / "s.npz"
    assert solve(source, out, "--sensing-weight", "0.5", problem="isac") == 0
    found = read_solution(out)
    expected = found["rate"].sum(-1) + 0.5 * np.log2(1 + sensing_snr(found["W"])).sum(-1)
    np.testing.assert_allclose(found["utility"], expected, rtol=1e-9)
    assert report(capsys, source, out)["mean_utility"] == pytest.approx(expected.mean(), rel=1e-9)


def test_infeasible_instances_are_reported_individually(tmp_path, capsys):
    gain = GAIN.copy()
    gain[1] = 0
    source, out = channels(tmp_path, target_gain=gain), tmp_path / "s.npz"
    assert solve(source, out, "--sensing-snr-db", "5", problem="isac") == 0
    found = read_solution(out)
    names = [found["status_names"][code] for code in found["status"]]
    assert names[1] == "infeasible" and names[0] == names[2] == "converged"
    assert (found["W"][1] == 0).all() and np.isnan(found["utility"][1])
    assert report(capsys, source, out)["feasible_share"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"target_angles": ANGLES[:, :0], "target_gain": GAIN[:, :0]}, "target"),
        ({"target_angles": ANGLES + 1j}, "target_angles"),
        ({"target_angles": ANGLES * 60}, "radians in"),
        ({"target_angles": None}, "target_angles"),
        ({"target_gain": np.ones((3, 3), complex)}, "target_gain must have as many numbers as target_angles"),
        ({"target_gain": GAIN[:, :1]}, "target_gain must have as many numbers as target_angles"),
        ({"sensing_noise": np.float64(0)}, "sensing_noise"),
    ],
)
def test_invalid_files_are_rejected(tmp_path, capsys, changed, words):
    source = channels(tmp_path, **changed)
    stated = ("--problem", "isac", "--sensing-snr-db", "5", "--out", tmp_path / "s.npz")
    assert words in refused(capsys, tmp_path, [source.name], "solve", source, *stated)


def test_options_of_other_problems_are_rejected(tmp_path, capsys):
    source, out = channels(tmp_path), tmp_path / "s.npz"
    for more, words in (
        (("--problem", "sum-rate", "--sensing-snr-db", "5"), "sensing-snr-db must be left out"),
        (("--problem", "isac"), "either sensing_snr_target or sensing_weight"),
        (("--problem", "isac", "--sensing-weight", "-1"), "non-negative"),
    ):
        assert words in refused(capsys, tmp_path, [source.name], "solve", source, *more, "--out", out)
