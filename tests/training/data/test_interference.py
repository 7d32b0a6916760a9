"""Interference channels to learn from: those of the scenario in the named batches, and any others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.core.errors import ConfigError
from beamforge.scenarios.base import TEST_SEEDS, VALIDATION_SEEDS, seeded
from beamforge.training.data.interference import Interference
from beamforge.training.recipe import Recipe
from beamforge.training.stream import Stream


def batch(count=400, step=0, **fields):
    return Stream.training(Interference(**fields), seed=1, batch=count, dtype=torch.complex128).batch_at(step)


def gains(instance):
    power = instance.truth.H.abs().square().mean(-1)
    own = torch.eye(power.shape[-1], dtype=torch.bool)
    return power[:, own], power[:, ~own]


def test_named_batches_are_the_scenario():
    instance = batch(cells=(3, 3), named_share=1.0, weighted_share=0.0)
    own, cross = gains(instance)
    assert instance.truth.H.shape == (400, 3, 3, 8)
    assert own.mean() == pytest.approx(1, abs=0.05) and cross.mean() == pytest.approx(0.2, abs=0.01)
    assert (instance.context["weights"] == 1).all() and (instance.truth.noise == 1).all()


def test_the_others_are_of_any_size_and_gain():
    source = Interference(cells=(2, 5), antennas=(2, 16), named_share=0.0)
    sizes = np.array([tuple(source.draw(seeded(1, step), 1)["fading"].shape[1:]) for step in range(300)])
    assert (sizes[:, 0] == sizes[:, 1]).all()
    assert set(sizes[:, 0]) == {2, 3, 4, 5} and sizes[:, 2].min() == 2 and sizes[:, 2].max() == 16
    assert np.median(sizes[:, 2]) < 8, "antennas must be log-uniform"
    _, cross = gains(batch(cells=(2, 2), antennas=(32, 32), named_share=0.0, cross_gain_db=(-20.0, 0.0)))
    level = 10 * cross.log10()
    assert level.min() < -17 and level.max() > -3


def test_powers_and_weights_are_those_asked_for():
    instance = batch(2000, cells=(4, 4), snr_db=(0.0, 10.0), weighted_share=0.25)
    power = instance.context["p_max_transmitter"]
    assert power.min() >= 1 and power.max() <= 10 and (power == power[:, :1]).all()
    weighted = (instance.context["weights"] < 1).any(-1).double().mean().item()
    assert weighted == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(
    "fields",
    [
        {"cells": (3, 2)},
        {"cells": (0, 2)},
        {"antennas": (4, 2)},
        {"snr_db": (3.0, 2.0)},
        {"cross_gain_db": (0.0, float("inf"))},
        {"named_share": 1.5},
        {"weighted_share": -0.1},
        {"named_antennas": 0},
    ],
)
def test_ranges_are_checked(fields):
    with pytest.raises(ConfigError):
        Interference(**fields)


@pytest.mark.parametrize("name", ["interference-sum-rate", "interference-max-min"])
def test_recipes_draw_from_it_and_from_no_seed_that_is_held_out(name):
    recipe = Recipe.find(name)
    assert isinstance(recipe.data, Interference)
    assert recipe.run.seed not in TEST_SEEDS and recipe.run.seed not in VALIDATION_SEEDS
