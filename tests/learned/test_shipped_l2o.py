"""The weights of the transformers that learn to optimise: where they come from, and what they reach at least."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from beamforge.classical.linear import RZF
from beamforge.cli import main
from beamforge.core.named_problems import build_problem
from beamforge.io.weights import card, load
from beamforge.registry import MODELS
from beamforge.reproduce.multipliers.methods import Wmmse
from beamforge.scenarios import Rayleigh
from beamforge.scenarios.base import TEST_SEEDS
from beamforge.training.recipe import Recipe

NAMES = ("mt-sao-lift", "mt-sao", "dt-sao-lift", "hpe-transformer", "graph-transformer", "rnn-optimizer", "bicnn")


def percent(method, users, antennas, count=40):
    """Mean rate in percent of that of WMMSE after 300 plain steps from regularised zero forcing, at 20 dB."""
    instance = Rayleigh(users, antennas, 20.0).sample(count, seed=TEST_SEEDS[6])
    problem = build_problem("sum-rate", instance.context).bind(instance.truth)
    with torch.no_grad():
        ours = instance.truth.rate(method.solve(problem, instance).W).sum(-1).mean()
        converged = instance.truth.rate(Wmmse("RZF").beams(problem, instance, 300)).sum(-1).mean()
    return 100 * float(ours / converged)


@pytest.mark.parametrize("name", NAMES)
def test_headers_tell_where_they_come_from(name):
    header = load(name).header
    assert len(header["commit"]) >= 7 and "dirty" not in header["commit"]
    shipped = Recipe.find(name).tables()
    for section in ("model", "data", "optimiser", "run"):
        for entry, value in header["recipe"][section].items():
            now = shipped[section][entry]
            assert (list(now) if isinstance(now, tuple) else now) == value, f"{section}.{entry}"


def test_they_are_listed_and_come_with_cards(capsys):
    assert main(["list", "models"]) == 0
    listed = capsys.readouterr().out
    for name in NAMES:
        told = card(name).read_text(encoding="utf-8")
        assert name in listed and f"beamforge train {name}" in told and "beamforge reproduce l2o-transformer" in told


@pytest.mark.parametrize(("users", "antennas"), [*product((4, 8, 16), (4, 8, 16)), (5, 13), (11, 7), (13, 5)])
def test_one_set_of_weights_reaches_converged_wmmse_at_every_size(users, antennas):
    assert percent(MODELS["mt-sao-lift"](), users, antennas) > (99.5 if users <= antennas else 99.0)


def test_the_dedicated_weights_come_near_it_at_their_own_size():
    assert percent(MODELS["dt-sao-lift"](), 8, 8) > 97.5


def test_training_is_worth_more_than_the_ascent_alone():
    for users, antennas in ((16, 4), (16, 8)):
        alone = percent(MODELS["mt-sao-lift"](checkpoint="random"), users, antennas)
        assert percent(MODELS["mt-sao-lift"](), users, antennas) > alone + 5


def test_networks_that_choose_steps_are_better_than_their_first_beams():
    for name in ("rnn-optimizer", "bicnn"):
        assert percent(MODELS[name](), 12, 12) > percent(RZF(), 12, 12) + 0.5, name
