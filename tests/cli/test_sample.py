"""`beamforge sample` and `beamforge list`, and the command line itself."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import click
import pytest
import torch

import beamforge
from beamforge import __version__
from beamforge.cli import main
from beamforge.cli import sample as command
from beamforge.core.named_problems import PROBLEMS
from beamforge.io.channels import ChannelFile
from beamforge.registry import METHODS
from beamforge.scenarios import SCENARIOS, scenario


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("size", [1, 3000, 10**6])
def test_file_does_not_depend_on_pieces(suffix, size, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "CHUNK_BYTES", size)
    out = tmp_path / f"a{suffix}"
    arguments = ["sample", "upa", "--count", "7", "--seed", "5", "--set", "users=2", "--set", "rows=2", "--json"]
    assert main([*arguments, "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 7
    expected = scenario("upa", users=2, rows=2).sample(7, seed=5)
    with ChannelFile(out) as file:
        found, meta = file.read(), file.meta
    assert torch.equal(found.truth.H, expected.truth.H)
    assert found.context.keys() == expected.context.keys()
    assert all(torch.equal(found.context[name], value) for name, value in expected.context.items())
    assert meta["scenario"] == "UPA" and meta["users"] == 2 and meta["seed"] == 5 and meta["version"] == __version__
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_double_precision(tmp_path):
    arguments = ["sample", "weak", "--count", "2", "--seed", "0", "--precision", "64", "--out", str(tmp_path / "a.npz")]
    assert main(arguments) == 0
    with ChannelFile(tmp_path / "a.npz") as file:
        assert file.main == "G" and file.dtype == torch.complex128


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["raleigh"], ["unknown scenario", "did you mean 'rayleigh'"]),
        (["rayleigh", "--set", "user=3"], ["user", "did you mean 'users'"]),
        (["rayleigh", "--set", "users=0"], ["users must be positive"]),
        (["rayleigh", "--set", "users=three"], ["users", "three"]),
        (["rayleigh", "--count", "0"], ["--count", "0"]),
        (["rayleigh", "--seed", "-1"], ["--seed", "-1"]),
        (["rayleigh", "--out", "a.mat"], ["a.mat", ".npz or .h5"]),
        (["rayleigh", "--out", "absent/a.h5"], ["cannot be written"]),
    ],
)
def test_invalid_requests_are_rejected_in_one_sentence(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "--count", "2", "--seed", "0", "--out", "a.npz", *arguments]) == 2
    out, sentence = capsys.readouterr()
    assert out == "" and sentence.count("\n") == 1 and all(word in sentence for word in words), sentence
    assert list(tmp_path.iterdir()) == []


def test_failing_scenario_leaves_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "CHUNK_BYTES", 1)
    original = SCENARIOS["rayleigh"].sample

    def failing(self, count, seed=0, first=0, **more):
        if first == 2:
            raise RuntimeError("no more")
        return original(self, count, seed, first, **more)

    monkeypatch.setattr(SCENARIOS["rayleigh"], "sample", failing)
    for suffix in (".npz", ".h5"):
        assert main(["sample", "rayleigh", "--count", "4", "--seed", "0", "--out", str(tmp_path / f"a{suffix}")]) == 1
    assert "no more" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_list_is_complete(capsys):
    assert main(["list"]) == 0
    whole = capsys.readouterr().out
    for names in (PROBLEMS, METHODS, SCENARIOS):
        assert all(f"  {name} " in whole for name in names)
    assert main(["list", "methods"]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == list(METHODS)
    assert "sum-rate (broadcast" in lines["wmmse"] and "min-power" not in lines["mrt"]
    assert "at most" not in lines["global"], "it serves any number of links, and proves its answer for a few"
    assert "`" not in whole
    assert main(["list", "method"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_list_shows_the_settings_of_every_method_with_meaning_and_default(capsys):
    for method, kinds in METHODS.items():
        assert main(["list", "methods", method]) == 0
        said = capsys.readouterr().out
        for kind in kinds:
            own = " ".join(said.partition(f"\n{kind.__name__}: ")[2].partition("\n\n")[0].split())
            for name, parameter in inspect.signature(kind.__init__).parameters.items():
                if parameter.default is not parameter.empty:
                    told = own.partition(f"--set {name}= ")[2].partition(" --set ")[0]
                    assert told.endswith(f"(default {parameter.default})"), f"{kind.__name__}: {name}"
                    assert len(told.partition("(default")[0].split()) >= 1, f"{kind.__name__}: no meaning of {name}"
    assert main(["list", "methods", "wmse"]) == 2 and "did you mean 'wmmse'" in capsys.readouterr().err
    assert main(["list", "suites", "munich"]) == 2 and "must be left out" in capsys.readouterr().err
    assert main(["list", "papers"]) == 0 and "decentralised  " in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["sing"], ["--loud"], ["solve"], ["solve", "a", "b"]])
def test_unknown_command_is_one_sentence(arguments, capsys):
    assert main(arguments) == 2
    out, sentence = capsys.readouterr()
    assert out == "" and sentence.count("\n") == 1 and "--help`" in sentence


def test_exit_status_of_a_command(monkeypatch, capsys):
    def ended(*_, **__):
        raise click.exceptions.Exit(1)

    monkeypatch.setattr(command.command, "callback", ended)
    assert main(["sample", "rayleigh", "--count", "1", "--seed", "0", "--out", "a.npz"]) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["solve", "-h"], ["evaluate", "-h"], ["sample", "-h"]]
)
def test_help(arguments, capsys):
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert out and not err


def test_help_imports_few_modules():
    """Commands are imported when they are called, and the slow libraries when they are needed."""
    code = "import sys; from beamforge.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    assert "beamforge.cli.solve" not in modules
    assert not {"sionna", "matplotlib", "cvxpy", "scipy.io", "h5py", "rich"} & set(modules)
    assert beamforge.__name__ in modules
