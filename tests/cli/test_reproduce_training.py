"""Reproductions that train: begun, gone on with, and used."""

from __future__ import annotations

import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from training import toy

from beamforge.cli import main
from beamforge.cli import reproduce as cli
from beamforge.core.errors import ConfigError
from beamforge.io import weights
from beamforge.learned.fairness.wit import targets
from beamforge.registry import MODELS
from beamforge.reproduce.exhibits import Options, Table
from beamforge.reproduce.fairness import networks as fairness_networks
from beamforge.reproduce.fairness.networks import TRAININGS, Training, networks
from beamforge.reproduce.training import trained
from beamforge.training.log import read


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "toy", toy.Toy)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.toml").write_text(toy.RECIPE)
    return "toy.toml"


def interrupting(step):
    """Told of progress, it interrupts the process after a step."""
    return lambda doing: signal.raise_signal(signal.SIGINT) if f"step {step} of" in doing else None


def test_continued_training_gives_the_weights_of_an_uninterrupted_one(recipe, tmp_path):
    changes = {"run.steps": "6"}
    with pytest.raises(KeyboardInterrupt):
        trained(Options(tmp_path / "parts", report=interrupting(2)), "toy", recipe, changes)
    assert not (tmp_path / "parts" / "toy" / "weights.safetensors").exists()
    parts = trained(Options(tmp_path / "parts"), "toy", recipe, changes)
    whole = trained(Options(tmp_path / "whole"), "toy", recipe, changes)
    found, expected = (weights.load("toy", tmp_path / file) for file in (parts, whole))
    assert all(torch.equal(found.tensors[name], value) for name, value in expected.tensors.items())
    steps = [line["step"] for line in read(tmp_path / "parts" / "toy" / "log.jsonl")]
    assert trained(Options(tmp_path / "parts"), "toy", recipe, changes) == parts
    assert [line["step"] for line in read(tmp_path / "parts" / "toy" / "log.jsonl")] == steps, "not trained once more"
    with pytest.raises(ConfigError, match="run of the same recipe"):
        trained(Options(tmp_path / "parts"), "toy", recipe, {"run.steps": "7"})


def test_interruption_states_how_to_continue(recipe, tmp_path, monkeypatch, capsys):
    def paper(options):
        trained(replace(options, report=interrupting(2)), "toy", recipe, {"run.steps": "4"})
        yield Table("done", "done", [""], [])

    monkeypatch.setattr(cli, "PAPERS", {"toy": paper})
    assert main(["reproduce", "toy", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.err == "interrupted; the same command resumes where a training stopped\n"
    assert main(["reproduce", "toy", "--out", str(tmp_path / "out")]) == 0  # from behind step 2
    assert "done" in capsys.readouterr().out


def test_full_run_trains_all_networks_from_nearby_targets(tmp_path, monkeypatch):
    runs = {}

    def train(options, name, recipe, changes=None):
        runs[name] = recipe, dict(changes or {})
        return str(options.out / name)

    monkeypatch.setattr(fairness_networks, "trained", train)
    monkeypatch.setattr(fairness_networks, "configure", lambda kind, settings: settings)
    monkeypatch.setattr(fairness_networks, "WiT", lambda checkpoint: SimpleNamespace(file=checkpoint))
    found = networks(Options(tmp_path, settings={"rounds": 3}))
    assert found.multipliers == {"rounds": 3, "checkpoint": str(tmp_path / "fair-multipliers")}
    assert list(found.wit) == sorted(one.limit for one in TRAININGS) and len(runs) == 1 + len(TRAININGS)
    assert found.wit[0.86].file == str(tmp_path / "wit-86")
    for limit in (0.75, 0.86, 0.97):
        assert "model.checkpoint" not in runs[f"wit-{100 * limit:.0f}"][1], "these are from nothing"
    assert runs["wit-973"] == (
        "wit",
        {
            "model.jain": "0.973",
            "model.price": "6.5",
            "model.checkpoint": str(tmp_path / "wit-97"),
            **fairness_networks.SHORT_RUN,
        },
    )


def test_trained_networks_are_used(tmp_path, monkeypatch):
    few = {"run.steps": "2", "run.batch": "4", "run.validation_batches": "1"}
    monkeypatch.setattr(
        fairness_networks, "trained", lambda *asked: trained(*asked[:3], {**(asked[3] if asked[3:] else {}), **few})
    )
    monkeypatch.setattr(fairness_networks, "TRAININGS", (Training(0.86, 2.2), Training(0.8, 2.0, after=0.86)))
    found = networks(Options(tmp_path))
    assert [network.dual.target for network in found.wit.values()] == [0.8, 0.86]
    solvers = {"fair-multipliers": found.multipliers, "wit-80": found.wit[0.8], "wit-86": found.wit[0.86]}
    for folder, solver in solvers.items():
        file = load_file(tmp_path / folder / "weights.safetensors")
        assert all(torch.equal(value.to(file[name]), file[name]) for name, value in solver.state_dict().items())
    before, after = (network.network.embed.weight for network in (found.wit[0.86], found.wit[0.8]))
    assert 0 < (after - before).abs().max() < 0.02  # two steps from there


@pytest.mark.parametrize("options", [{"quick": True}, {"settings": {"checkpoint": "shipped"}}])
def test_no_training_with_quick_or_given_weights(options, tmp_path):
    found = networks(Options(tmp_path, **options))
    assert set(found.wit) == set(targets()) and not list(tmp_path.iterdir())
    assert all(network.dual.target == limit for limit, network in found.wit.items())
