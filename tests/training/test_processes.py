"""Runs in separate processes: killed, interrupted, resumed, and distributed over two processes."""

from __future__ import annotations

import re
import signal

import pytest
import torch
from safetensors.torch import load_file
from training import toy
from training.runs import TWO_PROCESSES, end, run_here, start

from beamforge.io import weights
from beamforge.training import log
from beamforge.training.processes import Processes


def test_a_killed_and_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    run_here(toy, tmp_path, "--out", "whole")
    end(start(toy, tmp_path, "--out", "parts", TOY_SIGNAL=f"{signal.SIGKILL:d}@25"), -signal.SIGKILL)
    assert not (tmp_path / "parts" / "weights.safetensors").exists()
    assert log.read(tmp_path / "parts" / "log.jsonl")[-1]["step"] == 24  # four steps after the last checkpoint

    for number, step in ((signal.SIGINT, 23), (signal.SIGTERM, 26)):
        _, err = end(start(toy, tmp_path, "--out", "parts", "--resume", TOY_SIGNAL=f"{number:d}@3"), 1)
        told = rf"interrupted after {step} steps; resume with: beamforge train toy\.toml --resume --out parts\n"
        assert re.fullmatch(told, err), err

    out, err = end(start(toy, tmp_path, "--out", "parts", "--resume"))
    assert "validation loss" in out and re.match(r"step 40/40  .* steps/s  loss .*  validation .* min left", err)
    one, other = (weights.load("toy", tmp_path / run / "weights.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())
    told = [{name: value for name, value in file.header.items() if name != "seconds"} for file in (one, other)]
    assert told[0] == told[1]
    states = [torch.load(tmp_path / run / "last.pt", weights_only=True) for run in ("whole", "parts")]
    assert str(states[0]["model"]) == str(states[1]["model"])
    moments = [[each["exp_avg_sq"] for each in state["optimiser"]["state"].values()] for state in states]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))
    lines = [[line | {"seconds": 0} for line in log.read(tmp_path / run / "log.jsonl")] for run in ("whole", "parts")]
    assert lines[0] == lines[1] and len(lines[0]) == 41


def test_two_processes_give_the_results_of_one_on_the_same_batches(tmp_path):
    settings = [
        part
        for setting in ("run.steps=12", "run.validate_every=6", "run.precision=64", "model.dropout=0.0")
        for part in ("--set", setting)
    ]
    shared = start(toy, tmp_path, "--out", "shared", *settings, launcher=TWO_PROCESSES)
    run_here(toy, tmp_path, "--out", "alone", *settings)
    shared, _ = end(shared)
    assert shared.count("validation loss") == 1
    one, two = (load_file(tmp_path / run / "weights.safetensors") for run in ("alone", "shared"))
    assert one["net.0.weight"].dtype == torch.float64
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-11, atol=1e-13)
    for a, b in zip(*(log.read(tmp_path / run / "log.jsonl") for run in ("alone", "shared")), strict=True):
        a, b = a.get("validation", a), b.get("validation", b)
        assert a.keys() == b.keys()
        assert all(a[name] == pytest.approx(b[name], rel=1e-10) for name in a if name != "seconds")


def test_a_batch_that_does_not_split_evenly_is_refused():
    from beamforge.core.errors import ConfigError

    rows = [Processes(rank, 4, torch.device("cpu")).rows(12) for rank in range(4)]
    assert [row for part in rows for row in range(12)[part]] == list(range(12))
    with pytest.raises(ConfigError, match="batch must be a multiple of the 5 processes, got 12"):
        Processes(0, 5, torch.device("cpu")).rows(12)
