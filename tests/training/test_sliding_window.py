"""The window over layers, and that training by one is exact where it goes on."""

from __future__ import annotations

import json

import pytest
import torch

from beamforge.core.errors import ConfigError
from beamforge.registry import trainable
from beamforge.training import checkpoints
from beamforge.training.loop import train
from beamforge.training.recipe import Recipe
from beamforge.training.sliding_window import Windowed, window_at

RECIPE = """
[model]
name = "mt-sao-lift"
checkpoint = "random"
size = 4
layers = 4
width = 8
heads = 2
depth = 4
[data]
source = "masked"
size = 4
sizes = 2
stage_steps = 1
[optimiser]
warm_up = 0
schedule = "constant"
[run]
steps = 9
batch = 4
window = 2
window_steps = 4
validate_every = 9
validation_batches = 1
checkpoint_every = 3
device = "cpu"
"""


def run(folder, resume=False, **changes):
    recipe = Recipe.parse(RECIPE, changes)
    return train(recipe, lambda: trainable(recipe.model.name, recipe.model.settings), folder, resume=resume)


def test_the_window_goes_through_all_layers_and_stays_at_the_last():
    layers, width, every = 7, 3, 5
    seen = [window_at(step, layers, width, every) for step in range(60)]
    assert all(len(window) == width for window in seen)
    assert [window.start for window in seen[: 4 * every : every]] == [0, 1, 2, 3]
    assert seen[-1] == range(4, 7) and set().union(*seen) == set(range(layers))
    assert window_at(3, layers, 0, every) == window_at(3, layers, 9, every) == range(layers)


def test_only_the_layers_in_the_window_are_changed(tmp_path):
    recipe = Recipe.parse(RECIPE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert isinstance(trainable(recipe.model.name, recipe.model.settings), Windowed)
    run(tmp_path, **{"run.steps": "4"})
    one = checkpoints.load(tmp_path / "last.pt")["model"]
    run(tmp_path / "other", **{"run.steps": "8"})
    other = checkpoints.load(tmp_path / "other" / "last.pt")["model"]
    moved = {name.split(".")[1] for name in one if not torch.equal(one[name], other[name])}
    assert moved == {"1", "2"}, "layers are numbered from 0: 0 and 1 learn in four steps, and then 1 and 2"


def test_a_run_that_is_gone_on_with_ends_as_if_it_had_never_stopped(tmp_path):
    """Stage, window and batch follow from the step: the weights are the same, bit for bit."""
    run(tmp_path / "whole")
    whole = checkpoints.load(tmp_path / "whole" / "last.pt")

    class Stop(Exception):
        pass

    def stop(line):
        if line["step"] == 7:
            raise Stop

    recipe = Recipe.parse(RECIPE)
    with pytest.raises(Stop):
        train(recipe, lambda: trainable(recipe.model.name, recipe.model.settings), tmp_path / "parts", report=stop)
    assert checkpoints.load(tmp_path / "parts" / "last.pt")["progress"]["step"] == 6
    run(tmp_path / "parts", resume=True)
    parts = checkpoints.load(tmp_path / "parts" / "last.pt")
    assert parts["progress"]["step"] == 9
    assert all(torch.equal(value, parts["model"][name]) for name, value in whole["model"].items())
    steps = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == list(range(1, 10))


def test_a_negative_window_is_refused():
    with pytest.raises(ConfigError, match=r"run.window must be at least 0, got -1"):
        Recipe.parse(RECIPE, {"run.window": "-1"})
