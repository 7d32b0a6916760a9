"""`beamforge solve`: the file's keys, independence of the pieces, hostile input, kill and resume, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from channel_files import broadcast, hostile, normal, read_solution, write
from solving import refused, solve

import beamforge
from beamforge.cli import main
from beamforge.cli.solve import Job

STATUS_NAMES = ["converged", "max_iterations", "infeasible", "numerical_failure"]


# --- what is written -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_solution_file_has_correct_entries(suffix, tmp_path):
    arrays = broadcast(weights=np.array([1.0, 0.5, 2.0]))
    assert solve(write(tmp_path, arrays), tmp_path / f"s{suffix}", "--seed", "3") == 0
    found = read_solution(tmp_path / f"s{suffix}")
    W, H = found["W"], arrays["H"]
    assert W.shape == (6, 4, 3) and W.dtype == np.complex128
    power = np.abs(H @ W) ** 2
    signal_power = np.einsum("bkk->bk", power)
    sinr = signal_power / (power.sum(-1) - signal_power + 0.1)
    np.testing.assert_allclose(found["sinr"], sinr, rtol=1e-9)
    np.testing.assert_allclose(found["rate"], np.log1p(sinr) / np.log(2), rtol=1e-9)
    np.testing.assert_allclose(found["utility"], np.log1p(sinr) / np.log(2) @ [1.0, 0.5, 2.0], rtol=1e-9)
    np.testing.assert_allclose((np.abs(W) ** 2).sum((1, 2)), 2.0, rtol=1e-6)
    assert list(found["status_names"]) == STATUS_NAMES
    assert found["status"].shape == found["iterations"].shape == (6,)
    assert found["status"].dtype.kind == "i" and found["iterations"].min() > 0
    assert found["seconds"].shape == () and found["seconds"] > 0
    assert [str(found[name]) for name in ("problem", "method", "version")] == [
        "sum-rate",
        "wmmse",
        beamforge.__version__,
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["channels.npz", f"s{suffix}"]


def test_gains_give_powers(tmp_path):
    G = np.random.default_rng(0).random((5, 3, 3)) + 2 * np.eye(3)
    channels = write(tmp_path, {"G": G, "noise": 0.5, "p_max": 3.0})
    assert solve(channels, tmp_path / "s.npz", "--method", "mrt") == 0
    found = read_solution(tmp_path / "s.npz")
    assert "W" not in found and found["p"].dtype == np.float64
    np.testing.assert_allclose(found["p"], 1.0)
    own = np.einsum("bkk->bk", G)
    np.testing.assert_allclose(found["sinr"], own / (G.sum(-1) - own + 0.5))


def test_power_limits_of_several_transmitters(tmp_path):
    arrays = {"H": normal(4, 2, 3, 5), "noise": 0.1, "p_max": np.array([1.0, 4.0]), "serving": np.array([1, 0, 1])}
    assert solve(write(tmp_path, arrays), tmp_path / "s.npz", "--method", "rzf") == 0
    power = (np.abs(read_solution(tmp_path / "s.npz")["W"]) ** 2).sum(1)
    np.testing.assert_allclose(power[:, 1], 1.0)
    np.testing.assert_allclose(power[:, [0, 2]].sum(1), 4.0)


def test_method_uses_only_the_channel_estimate(tmp_path):
    arrays = broadcast(H_estimate=normal(6, 3, 4, seed=9))
    beams = []
    for name, case in [("both", arrays), ("alone", {k: v for k, v in arrays.items() if k != "H"})]:
        assert solve(write(tmp_path, case, name=name), tmp_path / f"{name}.s.npz", "--method", "rzf") == 0
        beams.append(read_solution(tmp_path / f"{name}.s.npz"))
    np.testing.assert_array_equal(beams[0]["W"], beams[1]["W"])
    power = np.abs(arrays["H"] @ beams[0]["W"]) ** 2
    np.testing.assert_allclose(beams[0]["sinr"][:, 0], power[:, 0, 0] / (power[:, 0, 1:].sum(-1) + 0.1), rtol=1e-9)
    assert (beams[1]["utility"] > beams[0]["utility"]).all()


def test_failed_instances_do_not_affect_others(tmp_path, capsys):
    arrays = broadcast(dtype=np.complex64)
    assert solve(write(tmp_path, arrays), tmp_path / "good.npz", "--method", "mrt") == 0
    arrays["H"] = arrays["H"].copy()
    arrays["H"][2] *= 1e25  # its square is beyond float32
    capsys.readouterr()
    assert solve(write(tmp_path, arrays, name="bad"), tmp_path / "s.npz", "--method", "mrt", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["status"] == {"converged": 5, "numerical_failure": 1} and np.isfinite(summary["mean_utility"])
    found, good = read_solution(tmp_path / "s.npz"), read_solution(tmp_path / "good.npz")
    assert found["status"].tolist() == [0, 0, 3, 0, 0, 0]
    assert np.isnan(found["utility"][2])
    assert not any(found[name][2].any() for name in ("W", "rate", "sinr"))
    for name in ("W", "rate", "sinr", "utility"):
        np.testing.assert_array_equal(np.delete(found[name], 2, 0), np.delete(good[name], 2, 0))


def test_options_override_the_file(tmp_path):
    channels = write(tmp_path, broadcast(p_max=5.0))
    stated = write(tmp_path, broadcast(p_max=1.0) | {"noise": 0.2}, name="stated")
    assert solve(channels, tmp_path / "a.npz", "--p-max", "1", "--noise", "0.2") == 0
    assert solve(stated, tmp_path / "b.npz") == 0
    a, b = read_solution(tmp_path / "a.npz"), read_solution(tmp_path / "b.npz")
    np.testing.assert_array_equal(a["W"], b["W"])


def test_precision_and_settings(tmp_path, capsys):
    channels = write(tmp_path, broadcast())
    assert (
        solve(channels, tmp_path / "a.npz", "--precision", "32", "--set", "max_iterations=2", "--set", "tolerance=0")
        == 0
    )
    found = read_solution(tmp_path / "a.npz")
    assert found["W"].dtype == np.complex64 and found["rate"].dtype == np.float32
    assert "max_iterations 6" in capsys.readouterr().out


def test_the_summary_is_one_json_object_or_a_few_lines(tmp_path, capsys):
    channels = write(tmp_path, broadcast())
    assert solve(channels, tmp_path / "a.npz", "--json") == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert err == ""
    assert summary["count"] == 6 and summary["unit"] == "bit/s/Hz" and summary["status"] == {"converged": 6}
    assert summary["mean_utility"] == pytest.approx(read_solution(tmp_path / "a.npz")["utility"].mean())
    assert solve(channels, tmp_path / "a.npz") == 0
    out, err = capsys.readouterr()
    assert f"{summary['mean_utility']:.6g} bit/s/Hz" in out and "converged 6" in out and err == ""


# --- refusals --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize(("content", "words"), [case[1:] for case in hostile()], ids=[case[0] for case in hostile()])
def test_invalid_channels_are_rejected_in_one_sentence(content, words, suffix, tmp_path, capsys):
    path = tmp_path / "channels.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    command = ["solve", path, "--problem", "sum-rate", "--out", tmp_path / f"s{suffix}"]
    sentence = refused(capsys, tmp_path, ["channels.npz"], *command)
    assert all(word in sentence for word in words), sentence


def request(**changes):
    """Arguments of a good command with some changed; a value of None leaves one out."""
    options = {"problem": "sum-rate", "out": "s.npz"} | changes
    return [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (request(problem=None), ["--problem"]),
        (request(out=None), ["--out"]),
        (request(problem="sumrate"), ["'sumrate'", "did you mean 'sum-rate'"]),
        (request(method="wmse"), ["'wmse'", "did you mean 'wmmse'"]),
        (request(method="mrt", problem="min-power", **{"sinr-target-db": "3"}), ["mrt does not serve"]),
        (request(problem="min-power"), ["sinr_target must be given"]),
        (request(set="tolerence=1"), ["'tolerence'", "did you mean 'tolerance'"]),
        (request(set="tolerance"), ["name=value", "'tolerance'"]),
        (request(set="tolerance=often"), ["tolerance must be float", "'often'"]),
        (request(set="tolerance=-1"), ["tolerance must not be negative"]),
        (request(noise="0"), ["noise must be positive", "0"]),
        (request(**{"p-max": "-2"}), ["p_max must be positive", "-2"]),
        (request(**{"p-max": "nan"}), ["p_max must be finite", "nan"]),
        (request(**{"p-max": "much"}), ["--p-max", "much"]),
        (request(**{"sinr-target-db": "3"}), ["sinr-target-db", "sum-rate"]),
        (request(**{"sinr-target-db": "nan"}, problem="max-min"), ["sinr-target-db must be within"]),
        (request(**{"sinr-target-db": "1e9"}, problem="max-min"), ["sinr-target-db must be within", "1e+09"]),
        (request(precision="16"), ["--precision", "'16'", "'32'"]),
        (request(device="gpu"), ["device", "'gpu'"]),
        (request(device="meta"), ["device", "'meta'"]),
        (request(seed="-1"), ["--seed", "-1"]),
        (request(jain="0.9"), ["jain must be left out with sum-rate", "0.9"]),
        (request(problem="fair-sum-rate"), ["jain", "must be given"]),
        (request(problem="fair-sum-rate", jain="1.01"), ["jain must be above 1/K", "at most 1", "1.01"]),
        (request(problem="fair-sum-rate", jain="0.3", method="wslnr"), ["above 1/K = 0.3333", "0.3"]),
        (request(problem="fair-sum-rate", jain="nan"), ["jain must be above 1/K", "nan"]),
        (request(problem="fair-sum-rate", jain="1", method="wslnr"), ["jain must be at most 0.", "largest mean"]),
        (request(out="s.txt"), ["s.txt", ".npz or .h5"]),
        (request(out="s"), ["no extension"]),
        (request(out="absent/s.npz"), ["absent/s.npz cannot be written"]),
        (request(out="absent/s.h5"), ["absent/s.h5 cannot be written"]),
        (request(out="channels.npz/s.npz"), ["cannot be written"]),
        (request(out="channels.npz"), ["must not be the channel file"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_invalid_requests_are_rejected_in_one_sentence(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Job, "solve", lambda *_: pytest.fail("a refusal comes before the work"))
    channels = write(tmp_path, broadcast())
    content = channels.read_bytes()
    sentence = refused(capsys, tmp_path, ["channels.npz"], "solve", channels, *arguments)
    assert all(word in sentence for word in words), sentence
    assert channels.read_bytes() == content


def test_internal_errors_are_distinguished(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Job, "solve", lambda *_: 1 / 0)
    command = ["solve", write(tmp_path, broadcast()), "--problem", "sum-rate", "--out", tmp_path / "s.h5"]
    sentence = refused(capsys, tmp_path, ["channels.npz"], *command, status=1)
    assert "ZeroDivisionError" in sentence and "BEAMFORGE_DEBUG" in sentence
    monkeypatch.setenv("BEAMFORGE_DEBUG", "1")
    assert main([str(word) for word in command]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_full_disk_leaves_no_file(tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    command = ["solve", write(tmp_path, {"H": normal(2, 2, 2)}, "h5"), "--problem", "sum-rate", "--noise", "1"]
    command += ["--p-max", "1", "--out", tmp_path / "s.npz"]
    assert "No space left" in refused(capsys, tmp_path, ["channels.h5"], *command, status=1)


def test_the_environment_of_a_process(tmp_path):
    """Once for real: exit status, streams and a pipe that nobody reads to its end."""
    channels = write(tmp_path, broadcast())
    command = [sys.executable, "-m", "beamforge"]
    out = tmp_path / "s.npz"
    run = subprocess.run([*command, "solve", channels, "--problem", "max-mim", "--out", out], capture_output=True)
    assert run.returncode == 2 and run.stdout == b"" and run.stderr.count(b"\n") == 1
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run([*command, "list"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert run.stderr == b""


@pytest.mark.parametrize(
    ("problem", "stated", "option"),
    [
        ("sum-rate", (), "--noise WATT"),
        ("sum-rate", ("--noise", "1"), "--p-max WATT"),
        ("min-power", ("--noise", "1"), "--sinr-target-db DB"),
        ("fair-sum-rate", ("--noise", "1", "--p-max", "1"), "--jain J"),
    ],
)
def test_an_error_about_a_missing_number_names_the_option(problem, stated, option, tmp_path, capsys):
    np.savez(tmp_path / "bare.npz", H=np.ones((2, 2, 3), complex))
    arguments = ["solve", str(tmp_path / "bare.npz"), "--problem", problem, *stated, "--out", str(tmp_path / "out.npz")]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert f"use {option}, or " in said and said.count("\n") == 1
