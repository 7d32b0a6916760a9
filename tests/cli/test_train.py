"""`beamforge train` on the command line."""

from __future__ import annotations

import json

import pytest
import torch
from training import toy

from beamforge.cli import main
from beamforge.io import weights
from beamforge.registry import MODELS
from beamforge.scenarios.base import TEST_SEEDS


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "toy", toy.Toy)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.toml").write_text(toy.RECIPE)
    return tmp_path / "toy.toml"


def test_training_by_recipe(recipe, capsys):
    arguments = ["train", "toy.toml", "--set", "run.steps=3", "--set", "model.width=5", "--json"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert summary["steps"] == 3 and summary["out"] == "runs/toy"
    assert err.startswith("step 3/3")
    names = {"recipe.toml", "log.jsonl", "last.pt", "best.pt", "curves.png", "weights.safetensors"}
    assert {path.name for path in (recipe.parent / "runs" / "toy").iterdir()} == names
    found = weights.load("toy", recipe.parent / "runs" / "toy" / "weights.safetensors")
    assert found.settings == {"width": 5} and found.header["version"] and found.header["commit"]
    assert found.tensors["net.0.weight"].shape == (5, 2)
    assert found.header["validation_loss"] == summary["validation_loss"]
    assert main(["train", "runs/toy/recipe.toml", "--resume", "--out", "runs/toy"]) == 0


def test_a_finished_run_can_be_extended_but_not_shortened(recipe, capsys):
    constant = ["train", "toy.toml", "--set", "optimiser.schedule=constant", "--set", "run.validate_every=2"]
    assert main([*constant, "--set", "run.steps=4"]) == 0
    assert main([*constant, "--set", "run.steps=6", "--resume"]) == 0
    assert main([*constant, "--set", "run.steps=6", "--out", "whole"]) == 0
    extended, whole = (
        weights.load("toy", recipe.parent / run / "weights.safetensors") for run in ("runs/toy", "whole")
    )
    assert extended.header["recipe"] == whole.header["recipe"] and extended.header["recipe"]["run"]["steps"] == 6
    assert all(torch.equal(extended.tensors[name], value) for name, value in whole.tensors.items())
    capsys.readouterr()
    assert main([*constant, "--set", "run.steps=5", "--resume"]) == 2
    assert "run.steps must be at least the 6 steps" in capsys.readouterr().err
    assert main([*constant, "--set", "run.steps=8", "--set", "run.batch=4", "--resume"]) == 2
    assert "run.batch = 8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["toyy"], ["unknown recipe 'toyy'"]),
        (["absent.toml"], ["recipe must be a TOML file", "absent.toml"]),
        (["toy.toml", "--set", "run.step=3"], ["'step'", "did you mean 'steps'"]),
        (["toy.toml", "--set", "run.steps"], ["--set must be name=value"]),
        (["toy.toml", "--set", "model.name=toi"], ["unknown model 'toi'", "did you mean 'toy'"]),
        (["toy.toml", "--set", "model.name=wmmse"], ["unknown model 'wmmse'"]),
        (["toy.toml", "--set", "model.widht=3"], ["'widht'", "did you mean 'width'"]),
        (["toy.toml", "--set", "model.width=3.5"], ["width must be int", "3.5"]),
        (["toy.toml", "--set", f"run.seed={TEST_SEEDS[5]}"], ["seed must not be a test seed", "1000000005"]),
        (["toy.toml", "--set", "run.device=abacus"], ["device must be one that torch can use here", "'abacus'"]),
        (["toy.toml", "--out", "toy.toml/runs"], ["out must be a folder that can be written"]),
    ],
)
def test_invalid_requests_are_rejected_in_one_sentence(arguments, words, recipe, capsys):
    assert main(["train", *arguments]) == 2
    out, sentence = capsys.readouterr()
    assert out == "" and sentence.count("\n") == 1 and all(word in sentence for word in words), sentence
    assert list(recipe.parent.iterdir()) == [recipe]


def test_list_of_recipes(capsys):
    assert main(["list", "recipes"]) == 0
    assert any(line.split()[:3] == ["multipliers", "Sum", "rate"] for line in capsys.readouterr().out.splitlines())
