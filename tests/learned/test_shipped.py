"""The weights that come with the package: their header, and lower limits on the rates they reach."""

from __future__ import annotations

import pytest
import torch

import beamforge
from beamforge import Instance
from beamforge.cli import main
from beamforge.core.evaluate import evaluate
from beamforge.core.named_problems import build_problem
from beamforge.io.weights import card, load
from beamforge.learned.multipliers.sum_rate import SumRateMultipliers
from beamforge.reproduce.multipliers.methods import Learned, Wmmse
from beamforge.scenarios import Rayleigh, Recorded
from beamforge.scenarios.base import TEST_SEEDS
from beamforge.training.recipe import Recipe


def rates(method, instance: Instance, steps):
    problem = build_problem("sum-rate", instance.context).bind(instance.truth)
    with torch.no_grad():
        return evaluate(problem, instance, method.beams(problem, instance, steps)).utility.double()


def test_the_header_tells_where_they_come_from():
    header = load("multipliers").header
    assert header["model"] == "multipliers" and header["version"] and header["recipe"]["data"]
    assert len(header["commit"]) >= 7 and header["commit"] != "unknown"
    recipe = Recipe.find("multipliers").tables()
    told = {name: {key: header["recipe"][name].get(key) for key in recipe[name]} for name in ("model", "data")}
    as_json = {
        name: {key: list(value) if isinstance(value, tuple) else value for key, value in recipe[name].items()}
        for name in told
    }
    assert told == as_json, "the shipped recipe is not the one that the shipped weights were trained by"


def test_they_are_listed_and_come_with_a_card(capsys):
    assert main(["list", "models"]) == 0
    assert "the sum rate by learned multipliers" in capsys.readouterr().out
    told = card("multipliers").read_text(encoding="utf-8")
    assert "beamforge train multipliers" in told and "beamforge reproduce multipliers" in told


@pytest.mark.parametrize(
    ("source", "steps", "percent"),
    [
        (Rayleigh(16, 16, 20.0), 3, 100.0),
        (Rayleigh(20, 14, 20.0), 3, 98.5),
        (Rayleigh(12, 12, 0.0), 3, 99.0),
        (Rayleigh(48, 48, 20.0), 2, 100.0),
        (Rayleigh(2, 2, 20.0), 5, 98.5),
    ],
)
def test_a_few_steps_are_worth_hundreds_from_zero_forcing(source, steps, percent):
    instance = source.sample(40, seed=TEST_SEEDS[3])
    found = rates(Learned(SumRateMultipliers()), instance, steps).mean()
    assert found >= percent / 100 * rates(Wmmse("RZF"), instance, 300).mean()


def test_three_steps_in_munich_are_worth_ten_from_zero_forcing():
    instance = Recorded("munich.npz").sample(60, seed=TEST_SEEDS[3])
    assert rates(Learned(SumRateMultipliers()), instance, 3).mean() >= rates(Wmmse("RZF"), instance, 10).mean()


def test_by_name():
    H = torch.randn(20, 8, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    found = beamforge.solve(H, noise=0.01, p_max=1.0, method="multipliers", steps=1)
    assert found.trace.shape == (20, 2) and (found.iterations == 1).all()
