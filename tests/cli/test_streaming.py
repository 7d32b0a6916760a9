"""`beamforge solve` in pieces: chunks, resumption after a kill, memory."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from channel_files import broadcast, normal, read_solution, write
from hypothesis import given, settings
from hypothesis import strategies as st
from solving import ENVIRONMENT, refused, solve

from beamforge.cli import main
from beamforge.cli.solve import Job
from beamforge.io import channels as files
from beamforge.io import writers as writing


# --- pieces ----------------------------------------------------------------------------------------------------------
@settings(max_examples=15, deadline=None)
@given(
    size=st.integers(1, 10_000),
    method=st.sampled_from(["mrt", "rzf"]),
    suffix=st.sampled_from([".npz", ".h5"]),
)
def test_result_does_not_depend_on_pieces(size, method, suffix, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    channels = write(folder, broadcast(B=20))
    whole, cut = folder / f"whole{suffix}", folder / f"cut{suffix}"
    assert solve(channels, whole, "--method", method) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK_BYTES", size)
        assert solve(channels, cut, "--method", method) == 0
    whole, cut = read_solution(whole), read_solution(cut)
    assert whole.keys() == cut.keys()
    for name in ("W", "rate", "sinr", "utility"):
        np.testing.assert_allclose(cut[name], whole[name], rtol=1e-6, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(cut["status"], whole["status"])


def test_random_numbers_depend_only_on_the_seed(tmp_path, monkeypatch):
    """A stand-in that puts its draws where the beams go: pieces draw the same, seeds differ."""
    from beamforge.classical.linear import MRT
    from beamforge.core.solution import Solution

    def drawn(self, problem, observation, start, generator):
        one = torch.randn(4, 3, dtype=torch.complex128, generator=generator)
        return Solution.closed_form(one.expand(*observation.network.batch_shape, 4, 3))

    monkeypatch.setattr(MRT, "solve_batch", drawn)
    channels = write(tmp_path, broadcast())
    found = []
    for size, seed in [(1, "7"), (10**6, "7"), (10**6, "8")]:
        monkeypatch.setattr(files, "CHUNK_BYTES", size)
        assert solve(channels, tmp_path / "s.npz", "--method", "mrt", "--seed", seed) == 0
        found.append(read_solution(tmp_path / "s.npz")["W"])
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).all()


KILLED = """
import os, signal, sys
from beamforge.io import channels as files
from beamforge.io import writers as writing
from beamforge.cli import main
files.CHUNK_BYTES, moment, last = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store, finish = writing.Hdf5Writer.store, os.replace

def stored(self, rows, place):
    store(self, rows, place)
    if moment == "rows" and place.start >= last:
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

def replaced(*paths):
    os.kill(os.getpid(), signal.SIGKILL)

writing.Hdf5Writer.store = stored
if moment == "renaming":
    os.replace = replaced
main(sys.argv[4:])
"""


@pytest.mark.parametrize(("moment", "last", "left"), [("rows", 20, 40), ("renaming", 0, 0)])
def test_killed_run_is_continued(moment, last, left, tmp_path, monkeypatch, capsys):
    channels = write(tmp_path, broadcast(B=60))
    size = 10 * 16 * (3 * 4 + 4 * 3 + 3 * 3)  # ten instances
    monkeypatch.setattr(files, "CHUNK_BYTES", size)
    assert solve(channels, tmp_path / "whole.h5", "--method", "rzf") == 0
    out = str(tmp_path / "s.h5")
    arguments = ["solve", str(channels), "--problem", "sum-rate", "--method", "rzf", "--out", out]
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(size), moment, str(last), *arguments], capture_output=True, env=ENVIRONMENT
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert not (tmp_path / "s.h5").exists() and (tmp_path / "s.h5.partial").exists()

    before = sorted(path.name for path in tmp_path.iterdir())
    sentence = refused(capsys, tmp_path, before, *arguments, "--noise", "0.3")
    assert "different request" in sentence and "s.h5.partial" in sentence

    solved = []
    original = Job.solve
    monkeypatch.setattr(
        Job, "solve", lambda self, writer, first, n: (solved.append(n), original(self, writer, first, n))
    )
    assert main(arguments) == 0
    assert sum(solved) == left
    assert not (tmp_path / "s.h5.partial").exists()
    whole, found = read_solution(tmp_path / "whole.h5"), read_solution(tmp_path / "s.h5")
    assert whole.keys() == found.keys()
    for name in whole.keys() - {"seconds"}:
        np.testing.assert_array_equal(found[name], whole[name], err_msg=name)
    assert found["seconds"] > 0


@pytest.mark.parametrize(
    "change",
    [["--p-max", "3"], ["--method", "zf"], ["--seed", "1"], ["--set", "tolerance=1e-3"], ["--precision", "32"]],
    ids=lambda change: change[0],
)
def test_different_request_does_not_continue(change, tmp_path, monkeypatch, capsys):
    channels = write(tmp_path, broadcast())
    interrupt(monkeypatch, channels, tmp_path / "s.h5")
    before = ["channels.npz", "s.h5.partial"]
    capsys.readouterr()
    command = ["solve", channels, "--problem", "sum-rate", "--out", tmp_path / "s.h5", *change]
    assert "different request" in refused(capsys, tmp_path, before, *command)


def test_different_file_does_not_continue(tmp_path, monkeypatch, capsys):
    channels = write(tmp_path, broadcast())
    interrupt(monkeypatch, channels, tmp_path / "s.h5")
    write(tmp_path, broadcast(seed=1))
    command = ["solve", channels, "--problem", "sum-rate", "--out", tmp_path / "s.h5"]
    assert "different request" in refused(capsys, tmp_path, ["channels.npz", "s.h5.partial"], *command)


@pytest.mark.parametrize(
    ("name", "words"),
    [("s.h5", "the same command goes on from there"), ("s.npz", "nothing was written: with --out s.h5")],
)
def test_an_interrupted_run_says_how_far_it_got_and_how_to_go_on(name, words, tmp_path, monkeypatch, capsys):
    interrupt(monkeypatch, write(tmp_path, broadcast()), tmp_path / name)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("interrupted after 2 of 6 instances; ") and words in said
    assert (tmp_path / "s.h5.partial").exists() == (name == "s.h5") and not (tmp_path / "s.npz").exists()


def interrupt(monkeypatch, channels, out):
    """Stop a run, as by Ctrl-C, after its first instances."""
    monkeypatch.setattr(files, "CHUNK_BYTES", 1)
    original = Job.solve

    def once(self, writer, first, count):
        if first == 2:
            raise KeyboardInterrupt
        original(self, writer, first, count)

    with monkeypatch.context() as patch:
        patch.setattr(Job, "solve", once)
        assert solve(channels, out) == 1
    assert not out.exists()


# --- memory ----------------------------------------------------------------------------------------------------------
MEASURED = """
import resource, sys
from beamforge.cli import main
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in ("small", "large"):
    arguments = ["--problem", "sum-rate", "--method", "rzf", "--out", f"{name}.s.h5", "--json"]
    assert main(["solve", f"{name}.h5", *arguments]) == 0
    print(peak(), file=sys.stderr)
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    block = normal(10_000, 4, 8, dtype=np.complex64)
    for name, blocks in [("small", 2), ("large", 12)]:  # 5 and 31 MB in, as much and more out
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("H", (blocks * len(block), 4, 8), "c8")
            for i in range(blocks):
                file["H"][i * len(block) : (i + 1) * len(block)] = block
            file["noise"], file["p_max"] = 0.1, 1.0
    run = subprocess.run(
        [sys.executable, "-c", MEASURED], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    small, large = (int(line) for line in run.stderr.split())
    assert large - small < 15_000, "kilobytes"
    assert all(json.loads(line)["count"] in (20_000, 120_000) for line in run.stdout.splitlines())
    with h5py.File(tmp_path / "large.s.h5") as file:
        np.testing.assert_allclose(file["utility"][:10_000], file["utility"][110_000:], rtol=1e-5)


def test_npz_size_limit(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(writing, "MEMORY_LIMIT", 1000)
    command = ["solve", write(tmp_path, broadcast()), "--problem", "sum-rate", "--out", tmp_path / "s.npz"]
    assert ".h5" in refused(capsys, tmp_path, ["channels.npz"], *command)
