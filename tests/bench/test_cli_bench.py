"""``beamforge bench`` from the command line."""

import csv

import numpy as np
import pytest

import beamforge
from beamforge import registry
from beamforge.bench import comparison, suites
from beamforge.bench.suites import Suite, candidates
from beamforge.classical.linear import MRT
from beamforge.cli import main
from beamforge.scenarios import Rayleigh


class Raising(MRT):
    def solve_batch(self, *arguments):
        raise ValueError("no [bold]luck[/bold]")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    source = Rayleigh(users=2, antennas=3)
    monkeypatch.setattr(comparison, "ROUNDS", 1)
    monkeypatch.setitem(registry.METHODS, "raising", (Raising,))
    for name, methods in {"tiny": ("mrt", "rzf"), "partly": ("raising", "mrt"), "wholly": ("raising",)}.items():
        suite = Suite(name, "two [red]users", source, "sum-rate", candidates(*methods), methods[-1], 4)
        monkeypatch.setitem(suites.SUITES, name, suite)


def test_a_table_on_the_terminal_and_a_report_in_the_folder(tmp_path, capsys):
    assert main(["bench", "tiny", "--out", str(tmp_path / "a" / "b")]) == 0
    out, err = capsys.readouterr()
    for said in ("two [red]users", "mrt", "rzf", "4 converged", "Mean utility (bit/s/Hz)", "report.html"):
        assert said in out
    assert err == ""
    assert (tmp_path / "a" / "b" / "report.html").exists()


def test_without_out_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "tiny"]) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["partly", "wholly"])
def test_a_method_that_fails_gives_status_1_and_the_others_are_reported(name, tmp_path, capsys):
    assert main(["bench", name, "--out", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert err == "raising: ValueError: no [bold]luck[/bold]\n"
    assert ("4 converged" in out) == (name == "partly")
    assert "no [bold]luck[/bold]" in (tmp_path / "report.html").read_text()


def test_an_unknown_suite_gives_status_2(capsys):
    assert main(["bench", "overlaoded"]) == 2
    assert capsys.readouterr().err == "unknown suite 'overlaoded'; did you mean 'overloaded'?\n"


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("beamforge.cli.bench.compare", pytest.fail)
    (tmp_path / "file").write_text("")
    assert main(["bench", "tiny", "--out", str(tmp_path / "file")]) == 2
    assert "out must be a folder" in capsys.readouterr().err


# --- channel files ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    rng = np.random.default_rng(0)
    H = rng.standard_normal((5, 3, 4)) + 1j * rng.standard_normal((5, 3, 4))
    path = tmp_path_factory.mktemp("recorded") / "measured.npz"
    np.savez(path, channels=H)
    return path, H


def test_methods_on_a_channel_file(recorded, tmp_path, capsys):
    path, H = recorded
    named = ("--method", "rzf", "--method", "wmmse,starts=1", "--method", "wmmse,max_iterations=2,acceleration=none")
    stated = ("--key", "channels", "--noise", "0.1", "--p-max", "2", "--count", "4")
    assert main(["bench", str(path), "--problem", "sum-rate", *named, *stated, "--out", str(tmp_path)]) == 0
    assert "sum-rate on measured.npz" in capsys.readouterr().out
    with (tmp_path / "table.csv").open() as table:
        rows = {row["method"]: row for row in csv.DictReader(table)}
    assert list(rows) == ["rzf", "wmmse starts=1", "wmmse max_iterations=2 acceleration=none"]
    for label, settings in (("rzf", {}), ("wmmse starts=1", {"starts": 1})):
        known = beamforge.solve(H[:4], noise=0.1, p_max=2.0, method=label.split()[0], **settings).utility.mean()
        mean = next(float(value) for name, value in rows[label].items() if name.startswith("utility_mean"))
        assert mean == pytest.approx(known, rel=1e-6)
    assert (tmp_path / "report.html").read_text().count("measured.npz") >= 1


def test_the_recommended_method_and_the_closed_forms_are_the_default(recorded, capsys):
    arguments = ["--key", "channels", "--noise", "0.1", "--p-max", "2"]
    assert main(["bench", str(recorded[0]), "--problem", "max-min", *arguments]) == 0
    heading = capsys.readouterr().out.splitlines()[2].split()
    assert heading == ["Method", "duality", "rzf", "zf", "mrt"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--problem must be given with a channel file"),
        (["--problem", "sum-rte"], "did you mean 'sum-rate'"),
        (["--problem", "sum-rate"], "noise"),
        (["--problem", "sum-rate", "--noise", "1", "--p-max", "1", "--method", "wmse"], "did you mean 'wmmse'"),
        (["--problem", "sum-rate", "--noise", "1", "--p-max", "1", "--method", "rzf,starts"], "name=value"),
        (["--problem", "sum-rate", "--noise", "1", "--p-max", "1", "--count", "0"], "count"),
    ],
)
def test_errors_with_a_channel_file(recorded, arguments, words, capsys):
    key = ["--key", "channels"] if arguments else []
    assert main(["bench", str(recorded[0]), *arguments, *key]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_methods_of_a_suite_can_be_chosen(capsys):
    assert main(["bench", "tiny", "--method", "rzf", "--method", "zf"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split() == ["Method", "rzf", "zf"]
