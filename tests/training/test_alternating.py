"""Turns: each part moves on its own loss, at its own rate, and the next one sees it moved."""

from __future__ import annotations

import torch
from torch import nn

from beamforge.training.loop import train
from beamforge.training.processes import processes
from beamforge.training.recipe import Recipe
from beamforge.training.steps import Steps

RECIPE = """
[model]
name = "pair"
[data]
users = [2, 2]
[optimiser]
lr = 0.1
warm_up = 0
schedule = "constant"
weight_decay = 0.0
[run]
steps = 400
batch = 2
validate_every = 400
validation_batches = 1
precision = 64
device = "cpu"
"""


class Pair(nn.Module):
    """``max_x min_y x y + x^2 / 4 - ...``: a saddle point, which one common gradient would run away from."""

    def __init__(self, turns):
        super().__init__()
        self.first, self.second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        for part, value in ((self.first, 2.0), (self.second, -3.0)):
            nn.init.constant_(part.weight, value)
        self.turns, self.seen = turns, []

    def turn(self, part, instance, generator):
        x, y = self.first.weight.sum(), self.second.weight.sum()
        self.seen.append((part, x.item(), y.item()))
        saddle = x * y - 0.5 * (y - 1).square() + 0.5 * x.square()
        return (saddle if part == "first" else -saddle), {}

    def loss(self, instance, generator):
        return (self.first.weight - self.second.weight).square().sum(), {}


def steps_of(model):
    with processes("cpu") as team:
        return Steps(Recipe.parse(RECIPE), lambda: model, team)


def test_parts_move_in_turns_at_their_own_rates():
    model = Pair({"first": 1.0, "second": 3.0})
    line = steps_of(model).advance()
    assert model.seen[0] == ("first", 2.0, -3.0)
    part, x, y = model.seen[1]
    assert (part, y) == ("second", -3.0) and abs(x - 2.1) < 1e-6  # the slope is y + x = -1: up by the rate
    assert abs(model.second.weight.item() - (-3 + 0.3)) < 1e-6  # the slope of minus the saddle is y - 1 - x < 0
    assert line["loss"] == line["first_loss"] + line["second_loss"] and line["lr"] == 0.1


def test_another_parts_gradient_moves_nothing():
    model = Pair({"second": 1.0})
    steps_of(model).advance()
    assert model.first.weight.item() == 2.0 and model.second.weight.item() != -3.0


def test_a_saddle_point_is_found(tmp_path):
    model = Pair({"first": 0.2, "second": 0.5})
    train(Recipe.parse(RECIPE), lambda: model, tmp_path / "run")
    assert abs(model.first.weight.item() + 0.5) < 0.02 and abs(model.second.weight.item() - 0.5) < 0.02


def test_a_turn_that_is_not_finite_is_skipped():
    model = Pair({"first": 1.0, "second": 1.0})
    nn.init.constant_(model.second.weight, torch.inf)
    taken = steps_of(model)
    assert taken.advance()["skipped"] and taken.progress.skipped == 1
    assert model.first.weight.item() == 2.0


def test_without_turns_all_parts_move_on_the_loss():
    model = Pair({})
    steps_of(model).advance()
    assert model.seen == [] and abs(model.first.weight.item() - 1.9) < 1e-6 and model.second.weight.item() > -3
