"""The training loop against an optimiser in NumPy; non-finite steps, resumption, checkpoints, log and curves."""

from __future__ import annotations

import json
import math
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from beamforge.core.errors import ConfigError
from beamforge.io import weights
from beamforge.training import checkpoints, curves, log, steps
from beamforge.training.loop import train
from beamforge.training.recipe import Recipe
from beamforge.training.schedules import SCHEDULES, learning_rate
from beamforge.training.stream import Stream

RECIPE = """
[model]
name = "line"
[data]
users = [2, 4]
[optimiser]
lr = 0.1
lr_end = 0.01
warm_up = 4
weight_decay = 0.3
clip = 0.7
[run]
steps = 30
batch = 6
seed = 5
validate_every = 10
validation_batches = 3
checkpoint_every = 10
precision = 64
device = "cpu"
"""


class Line(nn.Module):
    """A straight line ``a + b x`` fitted to ``y`` by least squares; the loss of `non_finite` steps is NaN."""

    def __init__(self, non_finite=()):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.5, -0.5]))
        self.non_finite, self.calls = non_finite, 0

    def loss(self, instance, generator):
        x, y = data(instance)
        error = (self.theta[0] + self.theta[1] * x - y).square().mean()
        if self.training:
            self.calls += 1
            if self.calls in self.non_finite:
                error = error * math.nan
        return error, {"error": error.detach().sqrt(), "users": float(instance.truth.users)}


def data(instance):
    """Log noise, and the log gain of the first user."""
    return instance.truth.noise[:, 0].log(), instance.truth.channel[:, 0].abs().square().sum(-1).log()


def run(out, text=RECIPE, non_finite=(), **overrides):
    recipe = Recipe.parse(text, {name.replace("__", "."): str(value) for name, value in overrides.items()})
    lines = []
    progress = train(recipe, lambda: Line(non_finite), out, origin={"version": "1"}, report=lines.append)
    return recipe, progress, lines


def adamw(recipe, skipped=()):
    """theta after every step, learning rates, gradient norms, losses: AdamW, clipping and cosine by their formulas."""
    settings, n = recipe.optimiser, recipe.run.steps
    stream = Stream.training(recipe.data, recipe.run.seed, recipe.run.batch, torch.complex128)
    theta, m, v, updates = np.array([0.5, -0.5]), np.zeros(2), np.zeros(2), 0
    found = []
    for step in range(n):
        u = settings.warm_up
        wave = settings.lr_end + (settings.lr - settings.lr_end) * (1 + np.cos(np.pi * (step - u) / (n - u))) / 2
        lr = settings.lr * (step + 1) / (u + 1) if step < u else wave
        x, y = (values.numpy() for values in data(stream.batch_at(step)))
        error = theta[0] + theta[1] * x - y
        gradient = np.array([2 * error.mean(), 2 * (error * x).mean()])
        norm = np.linalg.norm(gradient)
        if step + 1 not in skipped:
            gradient = gradient * min(1, settings.clip / (norm + 1e-6))
            updates += 1
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            theta = theta * (1 - lr * settings.weight_decay)
            theta = theta - lr * (m / (1 - 0.9**updates)) / (np.sqrt(v / (1 - 0.999**updates)) + 1e-8)
        found.append((theta, lr, norm, (error**2).mean()))
    return found


@pytest.mark.parametrize("non_finite", [(), (3, 4, 17)])
def test_every_step_follows_the_formulas(non_finite, tmp_path):
    recipe, progress, _ = run(tmp_path, non_finite=non_finite)
    expected = adamw(recipe, non_finite)
    theta = checkpoints.load(tmp_path / "last.pt")["model"]["theta"]
    np.testing.assert_allclose(theta, expected[-1][0], rtol=1e-10)
    lines = [line for line in log.read(tmp_path / "log.jsonl") if "validation" not in line]
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert [line["step"] for line in lines if line.get("skipped")] == list(non_finite)
    assert progress.skipped == len(non_finite) and progress.step == 30
    for line, (_, lr, norm, loss) in zip(lines, expected, strict=True):
        np.testing.assert_allclose(line["lr"], lr, rtol=1e-12)
        if line["step"] in non_finite:
            assert line["loss"] is None
        else:
            np.testing.assert_allclose([line["loss"], line["error"] ** 2, line["gradient_norm"]], [loss, loss, norm])


def test_the_weights_are_the_best_on_fixed_validation_batches(tmp_path):
    overrides = {
        "optimiser__weight_decay": 0.0,
        "optimiser__schedule": "constant",
        "optimiser__lr": 2.0,
        "run__steps": 40,
    }
    recipe, progress, lines = run(tmp_path, **overrides)
    seen = {line["step"]: line["validation"]["loss"] for line in lines if "validation" in line}
    assert list(seen) == [10, 20, 30, 40]
    best = min(seen, key=seen.get)
    assert best != 40, "this test needs a run whose last weights are not the best"
    assert (progress.best_step, progress.best) == (best, seen[best])
    found = weights.load("line", tmp_path / "weights.safetensors")
    assert found.header["step"] == best and found.header["recipe"] == json.loads(json.dumps(recipe.tables()))
    theta = found.tensors["theta"].numpy()
    stream = Stream.validation(recipe.data, recipe.run.batch, torch.complex128)
    losses = []
    for index in range(3):
        x, y = (values.numpy() for values in data(stream.batch_at(index)))
        losses.append(((theta[0] + theta[1] * x - y) ** 2).mean())
    np.testing.assert_allclose(found.header["validation_loss"], np.mean(losses), rtol=1e-12)


def test_a_loss_that_stays_non_finite_ends_the_run(tmp_path):
    non_finite = range(5, 5 + steps.PATIENCE)
    with pytest.raises(ConfigError, match=r"loss and gradient must be finite, got 20 steps in a row up to step 24"):
        run(tmp_path, non_finite=non_finite)
    last = log.read(tmp_path / "log.jsonl")[-1]
    assert last["step"] == 23 and last["skipped"]
    assert not (tmp_path / "weights.safetensors").exists()


def test_schedules_meet_their_ends():
    for name in SCHEDULES:
        options = {"lr": 2.0, "lr_end": 0.5, "warm_up": 3}
        rates = [learning_rate(name, step, 1003, **options) for step in range(1003)]
        assert rates[:4] == [0.5, 1.0, 1.5, 2.0] and max(rates) == 2.0
        assert np.diff(rates[3:]).max() <= 0
        assert rates[-1] == pytest.approx(2.0 if name == "constant" else 0.5, abs=2e-3)
    assert learning_rate("cosine", 9, 10, lr=1.0, lr_end=0.0, warm_up=50) == 10 / 51


def test_the_global_random_state_is_restored(tmp_path):
    torch.manual_seed(4)
    before = torch.get_rng_state()
    run(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folder_with_a_run_is_not_overwritten_nor_resumed_by_another_recipe(tmp_path):
    run(tmp_path)
    kept = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(ConfigError, match="out must be a folder without a run"):
        run(tmp_path)
    recipe = Recipe.parse(RECIPE, {"optimiser.lr": "0.2"})
    with pytest.raises(ConfigError, match=r"run of the same recipe.*optimiser\.lr = 0\.1"):
        train(recipe, Line, tmp_path, resume=True)
    with pytest.raises(ConfigError, match="must fit the model line"):
        train(Recipe.parse(RECIPE), lambda: LineWithExtraParameter(), tmp_path, resume=True)
    assert (tmp_path / "last.pt").read_bytes() == kept


class LineWithExtraParameter(Line):
    """A model with one more parameter."""

    def __init__(self):
        super().__init__()
        self.more = nn.Parameter(torch.zeros(1))


def test_files_that_are_not_checkpoints_are_refused_and_not_executed(tmp_path):
    for content in (b"", b"PK", b"\x80\x02K\x01."):
        (tmp_path / "last.pt").write_bytes(content)
        with pytest.raises(ConfigError, match="must be a checkpoint of a training run"):
            train(Recipe.parse(RECIPE), Line, tmp_path, resume=True)
    torch.save({"recipe": Line()}, tmp_path / "last.pt")
    with pytest.raises(ConfigError, match="must be a checkpoint of a training run"):
        train(Recipe.parse(RECIPE), Line, tmp_path, resume=True)


def test_a_failed_write_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoints.save(path, {"recipe": "old"})

    def half(state, file):
        file.write(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="no space"):
        checkpoints.save(path, {"recipe": "new"})
    assert checkpoints.load(path)["recipe"] == "old"


def test_an_incomplete_log_is_continued(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo')
    continued = log.Log(path, 1)
    continued.write({"step": 2, "loss": math.inf})
    continued.close()
    assert log.read(path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": None}]


def test_tensorboard_gets_the_log_where_it_is_installed(tmp_path, monkeypatch):
    calls = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            calls.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            calls.append((name, value, step))

        def close(self):
            calls.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    _, progress, _ = run(tmp_path)
    assert calls[0] == (str(tmp_path / "tensorboard"), 1) and calls[-1] == "closed"
    assert [step for name, _, step in calls[1:-1] if name == "training/loss"] == list(range(1, 31))
    assert ("validation/loss", progress.best, progress.best_step) in calls


def test_curves_show_the_log_and_are_labelled(tmp_path):
    _, _, lines = run(tmp_path, non_finite=(3,))
    figure = curves.curves(log.read(tmp_path / "log.jsonl"))
    top, error, _, middle, bottom = figure.axes
    labels = ["Loss", "Error", "Users", "Gradient norm\n(before clipping)", "Learning rate"]
    assert [axis.get_ylabel() for axis in figure.axes] == labels
    each, _, watched = (line.get_ydata() for line in error.get_lines())
    np.testing.assert_allclose(
        each, [x["error"] if math.isfinite(x["error"]) else math.nan for x in lines if "lr" in x]
    )
    np.testing.assert_allclose(watched, [x["validation"]["error"] for x in lines if "validation" in x])
    assert bottom.get_xlabel() == "Step"
    shown = {line.get_label(): line.get_xydata() for line in top.get_lines()}
    np.testing.assert_allclose(shown["validation"][:, 1], [x["validation"]["loss"] for x in lines if "validation" in x])
    assert np.isnan(shown["training"][2, 1]) and "its running mean" in shown
    assert middle.get_yscale() == "log"
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_validation_loss_of_another_scale_has_its_own_axis(tmp_path):
    _, _, lines = run(tmp_path)
    moved = [x if "lr" in x else {**x, "validation": x["validation"] | {"loss": 1e3}} for x in lines]
    figure = curves.curves(moved)
    assert "Loss in validation" in [axis.get_ylabel() for axis in figure.axes]
    assert max(figure.axes[0].get_ylim()) < 900


def test_running_means_leave_out_nan():
    values = np.array([1.0, np.nan, 3.0, *[5.0] * 147])
    found = curves.running_mean(values)  # over three
    np.testing.assert_allclose(found[:5], [1, 1, 2, 4, 13 / 3])
