"""The recipe of the paper's size: how large it is, and that it trains, in its precision and by its window."""

from __future__ import annotations

import json

import torch

from beamforge.learned.l2o.masked_transformer import MTSAOLift
from beamforge.registry import trainable
from beamforge.training import checkpoints
from beamforge.training.loop import train
from beamforge.training.recipe import Recipe

SMALL = {
    "model.width": "8",
    "model.heads": "2",
    "model.depth": "4",
    "run.batch": "2",
    "run.window_steps": "1",
    "run.checkpoint_every": "2",
    "run.validate_every": "4",
    "run.validation_batches": "1",
    "run.device": "cpu",
}


def test_it_is_of_the_paper_s_size():
    recipe = Recipe.find("mt-sao-lift-40")
    with torch.device("meta"):
        model = MTSAOLift(**recipe.model.settings)
    assert (model.size, model.depth(), recipe.run.window) == (40, 10, 5)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.layers[0].named_children()}
    assert count["attention"] == 2 * 128 * 768 * 12 and count["out"] == 2 * (38400 + 160)
    assert f"{sum(p.numel() for p in model.parameters()):.3g}" == "2.96e+07"


def test_it_trains_and_goes_on_with_layers_as_narrow_as_a_test_can_wait_for(tmp_path):
    def run(steps, resume=False):
        recipe = Recipe.find("mt-sao-lift-40", {**SMALL, "run.steps": steps})
        train(recipe, lambda: trainable(recipe.model.name, recipe.model.settings), tmp_path, resume=resume)

    run("4")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(line["gradient_norm"] > 0 and not line.get("skipped") for line in lines if "gradient_norm" in line)
    moved = checkpoints.load(tmp_path / "last.pt")["model"]
    assert all(value.isfinite().all() for value in moved.values())
    assert any(value.any() for name, value in moved.items() if name.startswith("layers.7.out") and value.ndim > 1)
    assert not any(value.any() for name, value in moved.items() if name.startswith("layers.8.out.0.3"))
    run("4", resume=True)
