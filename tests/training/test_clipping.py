"""Adaptive clipping: the limit by the history, in a run, and in one that is resumed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from beamforge.core.errors import ConfigError
from beamforge.training import checkpoints, log
from beamforge.training.clipping import adaptive_limit
from beamforge.training.loop import train
from beamforge.training.recipe import Recipe

RECIPE = """
[model]
name = "slope"
[data]
users = [2, 2]
load = [0.5, 0.5]
[optimiser]
lr = 0.1
clip = 100.0
clip_quantile = 0.5
[run]
steps = 12
batch = 2
validate_every = 6
validation_batches = 1
checkpoint_every = 6
precision = 64
device = "cpu"
"""


class Slope(nn.Module):
    """A loss whose gradient has the norm ``step + 1`` in that step, counted from 0."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(1))
        self.register_buffer("calls", torch.tensor(0.0))

    def loss(self, instance, generator):
        if self.training:
            self.calls += 1
        return self.calls * self.x.sum(), {}


def run(out, **changes):
    recipe = Recipe.parse(RECIPE, {name.replace("_at_", "."): str(value) for name, value in changes.items()})
    return train(recipe, Slope, out, resume=True)


def test_the_limit_is_a_quantile_of_the_finite_norms():
    norms = np.random.default_rng(0).exponential(size=99).tolist()
    assert adaptive_limit(norms, 0.9) == np.quantile(norms, 0.9)
    assert adaptive_limit([*norms, math.nan, math.inf], 0.9) == np.quantile(norms, 0.9)
    assert adaptive_limit([], 0.9) == math.inf


def test_a_run_keeps_the_norms_before_clipping(tmp_path):
    run(tmp_path)
    kept = checkpoints.load(tmp_path / "last.pt")["norms"]
    assert kept == [float(step + 1) for step in range(12)]
    logged = [line["gradient_norm"] for line in log.read(tmp_path / "log.jsonl") if "validation" not in line]
    assert logged == kept


def test_no_quantile_keeps_no_history(tmp_path):
    run(tmp_path, optimiser_at_clip_quantile=0)
    assert checkpoints.load(tmp_path / "last.pt")["norms"] == []


def test_a_quantile_out_of_range_is_refused():
    with pytest.raises(ConfigError, match="clip_quantile"):
        Recipe.parse(RECIPE, {"optimiser.clip_quantile": "1.5"})
