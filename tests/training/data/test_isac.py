"""Training data of joint sensing and communication: ranges, inactive targets, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from beamforge.core.errors import ConfigError
from beamforge.core.named_problems import build_problem
from beamforge.training.data.isac import MaskedIsac
from beamforge.training.recipe import Recipe
from beamforge.training.stream import Stream


def test_a_batch_has_every_number_of_targets_and_the_context_of_the_scenario():
    source = MaskedIsac(size=4, sizes=2, stage_steps=0, targets=(2, 4), sensing_snr_db=(0.0, 6.0), snr_db=(0.0, 20.0))
    instance = Stream.training(source, 0, 400).batch_at(0)
    context, network = instance.context, instance.truth
    count = (context["target_gain"] != 0).sum(-1)
    assert [int((count == number).sum()) > 100 for number in (2, 3, 4)] == [True] * 3 and count.min() == 2
    assert (context["target_gain"][:, :2] != 0).all(), "the first ones are active"
    assert context["target_angles"].min() >= 0 and context["target_angles"].max() <= math.pi / 2
    level = 10 * context["sensing_snr_target"].log10()
    assert level.min() >= 0 and level.max() <= 6 and level.std() > 1
    assert (context["p_max"] == 1).all() and torch.allclose(context["sensing_noise"], torch.tensor(0.01))
    assert network.streams.count == 8 and network.noise.amin() >= 0.0099 and network.noise.amax() <= 1.001
    build_problem("isac", context).bind(network)


def test_validation_has_no_stages_and_gains_have_unit_power():
    source = MaskedIsac(size=4, sizes=2, stage_steps=5)
    assert source.held_out == MaskedIsac(size=4, sizes=2, stage_steps=0)
    gain = Stream.training(source.held_out, 1, 2000).batch_at(0).context["target_gain"]
    assert float(gain.abs().square().mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"targets": (0, 2)}, "targets must be at least 1"),
        ({"targets": (3, 2)}, "targets must be at least 1"),
        ({"sensing_snr_db": (5.0, math.inf)}, "sensing_snr_db must be finite"),
        ({"sensing_noise": 0.0}, "sensing_noise must be positive"),
        ({"size": 0}, "size must be at least 1"),
    ],
)
def test_entries_out_of_range_are_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        MaskedIsac(**fields)


def test_recipes_name_it():
    recipe = Recipe.parse('[model]\nname = "sao-isac"\n[data]\nsource = "isac"\ntargets = 3\n')
    assert isinstance(recipe.data, MaskedIsac) and recipe.data.targets == (3, 3)
