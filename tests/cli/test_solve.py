"""`beamforge solve`: the file's keys, independence of the pieces, hostile input, kill and resume, memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from channel_files import broadcast, hostile, normal, read_solution, write
from hypothesis import given, settings
from hypothesis import strategies as st

import beamforge
from beamforge import files, writing
from beamforge.cli import main
from beamforge.cli.solve import Job

SINGLE = {"dtype": np.complex64}
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(beamforge.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
STATUS_NAMES = ["converged", "max_iterations", "infeasible", "numerical_failure"]


def solve(channels, out, *more, problem="sum-rate"):
    return main(["solve", str(channels), "--problem", problem, "--out", str(out), *more])


def refused(capsys, folder, before, *arguments, status=2):
    """The one sentence of a command that fails, and that it left the folder as it was."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == status
    out, sentence = capsys.readouterr()
    assert out == "" and sentence.endswith("\n") and sentence.count("\n") == 1, sentence
    assert "Traceback" not in sentence
    assert sorted(path.name for path in Path(folder).iterdir()) == sorted(before)
    return sentence


# --- what is written -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_the_solution_has_its_keys_and_is_right(suffix, tmp_path):
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


def test_several_transmitters_each_keep_their_limit(tmp_path):
    arrays = {"H": normal(4, 2, 3, 5), "noise": 0.1, "p_max": np.array([1.0, 4.0]), "serving": np.array([1, 0, 1])}
    assert solve(write(tmp_path, arrays), tmp_path / "s.npz", "--method", "rzf") == 0
    power = (np.abs(read_solution(tmp_path / "s.npz")["W"]) ** 2).sum(1)
    np.testing.assert_allclose(power[:, 1], 1.0)
    np.testing.assert_allclose(power[:, [0, 2]].sum(1), 4.0)


def test_an_estimate_is_all_that_the_method_sees(tmp_path):
    arrays = broadcast(H_estimate=normal(6, 3, 4, seed=9))
    beams = []
    for name, case in [("both", arrays), ("alone", {k: v for k, v in arrays.items() if k != "H"})]:
        assert solve(write(tmp_path, case, name=name), tmp_path / f"{name}.s.npz", "--method", "rzf") == 0
        beams.append(read_solution(tmp_path / f"{name}.s.npz"))
    np.testing.assert_array_equal(beams[0]["W"], beams[1]["W"])
    power = np.abs(arrays["H"] @ beams[0]["W"]) ** 2
    np.testing.assert_allclose(beams[0]["sinr"][:, 0], power[:, 0, 0] / (power[:, 0, 1:].sum(-1) + 0.1), rtol=1e-9)
    assert (beams[1]["utility"] > beams[0]["utility"]).all()


def test_failed_instances_are_flagged_and_empty_and_spoil_no_neighbour(tmp_path, capsys):
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


def test_options_go_before_the_file(tmp_path):
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


# --- pieces ----------------------------------------------------------------------------------------------------------
@settings(max_examples=15, deadline=None)
@given(
    size=st.integers(1, 10_000),
    method=st.sampled_from(["mrt", "rzf"]),
    suffix=st.sampled_from([".npz", ".h5"]),
)
def test_pieces_do_not_matter(size, method, suffix, tmp_path_factory):
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


def test_what_a_method_draws_depends_on_the_seed_alone(tmp_path, monkeypatch):
    """A stand-in that puts its draws where the beams go: pieces draw the same, seeds differ."""
    from beamforge.classical.linear import MRT
    from beamforge.solver import Solution

    def drawn(self, problem, instance, start, generator):
        one = torch.randn(4, 3, dtype=torch.complex128, generator=generator)
        return Solution.closed_form(one.expand(*instance.seen.batch_shape, 4, 3))

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
from beamforge import files, writing
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
def test_a_killed_run_goes_on_where_it_stopped(moment, last, left, tmp_path, monkeypatch, capsys):
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
def test_a_different_request_does_not_go_on(change, tmp_path, monkeypatch, capsys):
    channels = write(tmp_path, broadcast())
    interrupt(monkeypatch, channels, tmp_path / "s.h5")
    before = ["channels.npz", "s.h5.partial"]
    capsys.readouterr()
    command = ["solve", channels, "--problem", "sum-rate", "--out", tmp_path / "s.h5", *change]
    assert "different request" in refused(capsys, tmp_path, before, *command)


def test_a_different_file_does_not_go_on(tmp_path, monkeypatch, capsys):
    channels = write(tmp_path, broadcast())
    interrupt(monkeypatch, channels, tmp_path / "s.h5")
    write(tmp_path, broadcast(seed=1))
    command = ["solve", channels, "--problem", "sum-rate", "--out", tmp_path / "s.h5"]
    assert "different request" in refused(capsys, tmp_path, ["channels.npz", "s.h5.partial"], *command)


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


def test_more_than_fits_an_npz_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(writing, "MEMORY_LIMIT", 1000)
    command = ["solve", write(tmp_path, broadcast()), "--problem", "sum-rate", "--out", tmp_path / "s.npz"]
    assert ".h5" in refused(capsys, tmp_path, ["channels.npz"], *command)


# --- refusals --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize(("content", "words"), [case[1:] for case in hostile()], ids=[case[0] for case in hostile()])
def test_hostile_channels_are_refused_in_one_sentence(content, words, suffix, tmp_path, capsys):
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
        (request(jain="0.9"), ["--jain"]),
        (request(out="s.txt"), ["s.txt", ".npz or .h5"]),
        (request(out="s"), ["no extension"]),
        (request(out="absent/s.npz"), ["absent/s.npz cannot be written"]),
        (request(out="absent/s.h5"), ["absent/s.h5 cannot be written"]),
        (request(out="channels.npz/s.npz"), ["cannot be written"]),
        (request(out="channels.npz"), ["must not be the channel file"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_hostile_requests_are_refused_in_one_sentence(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Job, "solve", lambda *_: pytest.fail("a refusal comes before the work"))
    channels = write(tmp_path, broadcast())
    content = channels.read_bytes()
    sentence = refused(capsys, tmp_path, ["channels.npz"], "solve", channels, *arguments)
    assert all(word in sentence for word in words), sentence
    assert channels.read_bytes() == content


def test_a_fault_of_ours_is_told_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Job, "solve", lambda *_: 1 / 0)
    command = ["solve", write(tmp_path, broadcast()), "--problem", "sum-rate", "--out", tmp_path / "s.h5"]
    sentence = refused(capsys, tmp_path, ["channels.npz"], *command, status=1)
    assert "ZeroDivisionError" in sentence and "BEAMFORGE_DEBUG" in sentence
    monkeypatch.setenv("BEAMFORGE_DEBUG", "1")
    assert main([str(word) for word in command]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path, monkeypatch, capsys):
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
