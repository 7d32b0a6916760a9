"""``beamforge bench`` from the command line."""

import pytest

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
