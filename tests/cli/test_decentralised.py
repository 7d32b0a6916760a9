"""`beamforge solve --decentralised`: the same file from a process for each base station, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from channel_files import normal, read_solution, write
from solving import ENVIRONMENT, refused, solve

METHOD = ("--method", "slnr")


def channels(folder, K=3, **more):
    return write(folder, {"H": normal(5, K, K, 4), "noise": 0.1, "p_max": 2.0, **more})


def told(capsys):
    return json.loads(capsys.readouterr().out)


def test_processes_give_the_results_of_one_process(tmp_path, capsys):
    file = channels(tmp_path)
    assert solve(file, tmp_path / "one.npz", *METHOD) == 0
    capsys.readouterr()
    assert solve(file, tmp_path / "many.npz", *METHOD, "--decentralised", "--json") == 0
    summary = told(capsys)
    assert summary["exchanged"] == {"messages": 0, "scalars": 0, "bytes": 0, "scalars_per_instance": 0}
    assert summary["missed_base_stations"] == []
    one, many = read_solution(tmp_path / "one.npz"), read_solution(tmp_path / "many.npz")
    assert one.keys() == many.keys()
    for name in ("W", "rate", "sinr", "utility", "status"):
        np.testing.assert_allclose(many[name], one[name], rtol=1e-9, atol=1e-12)


def test_torchrun(tmp_path):
    file = channels(tmp_path)
    assert solve(file, tmp_path / "one.npz", *METHOD) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3", "--master-port", "0"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "beamforge", "solve", str(file)]
    command += ["--problem", "sum-rate", *METHOD, "--decentralised", "--json", "--out", str(tmp_path / "many.npz")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["missed_base_stations"] == []
    one, many = read_solution(tmp_path / "one.npz"), read_solution(tmp_path / "many.npz")
    np.testing.assert_allclose(many["W"], one["W"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--method", "wmmse", "--decentralised"], "with base stations that decide alone; methods that do: .*slnr, zf"),
        (["--method", "wmse", "--decentralised"], "unknown method 'wmse'; did you mean 'wmmse'"),
        (["--time-limit", "3"], "time-limit must be left out without --decentralised, got 3"),
        ([*METHOD, "--decentralised", "--time-limit", "0"], "time-limit must be positive, finite seconds, got 0"),
        ([*METHOD, "--message-bits", "5"], "'5' is not one of '4', '8', '16'"),
    ],
)
def test_invalid_requests(more, sentence, tmp_path, capsys):
    file = channels(tmp_path)
    out = refused(capsys, tmp_path, ["channels.npz"], "solve", file, "--problem", "sum-rate", "--out", "s.npz", *more)
    assert re.search(sentence, out), out


def test_unsupported_networks_and_process_counts(tmp_path, capsys, monkeypatch):
    file = write(tmp_path, {"H": normal(5, 2, 3, 4), "noise": 0.1, "p_max": 2.0, "serving": np.array([0, 1, 1])})
    command = ("--problem", "sum-rate", "--out", tmp_path / "s.npz", *METHOD, "--decentralised")
    sentence = refused(capsys, tmp_path, ["channels.npz"], "solve", file, *command)
    assert "one for each user in order, got 2 transmitters and 3 users" in sentence
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    sentence = refused(capsys, tmp_path, ["channels.npz"], "solve", channels(tmp_path), *command)
    assert sentence == "torchrun must start one process per base station (3), got 4\n"


def test_only_zero_weights_are_rejected(tmp_path, capsys):
    file = channels(tmp_path, weights=np.zeros(3))
    command = ("--problem", "sum-rate", "--out", tmp_path / "s.npz", *METHOD, "--decentralised")
    sentence = refused(capsys, tmp_path, ["channels.npz"], "solve", file, *command)
    assert "weights must be positive for some user, got only zeros in instance 0" in sentence
