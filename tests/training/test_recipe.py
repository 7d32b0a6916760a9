"""Recipes: types, errors, and writing and reading back."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest

from beamforge.core.errors import ConfigError
from beamforge.training.recipe import Optimiser, Recipe, Run, literal, shipped, toml

NAMED = '[model]\nname = "multipliers"\n'


def test_entries_and_replacements_have_the_types_of_their_fields():
    recipe = Recipe.parse(
        NAMED + "width = 16\n[data]\nsnr_db = 7\n[optimiser]\nlr = 1\n",
        {"data.load": "[1, 2]", "run.device": "cuda:1", "model.rounds": "2", "optimiser.clip": "inf"},
    )
    assert recipe.model.name == "multipliers" and recipe.model.settings == {"width": 16, "rounds": 2}
    assert recipe.data.snr_db == (7.0, 7.0) and isinstance(recipe.data.snr_db[0], float)
    assert recipe.data.load == (1.0, 2.0) and recipe.run.device == "cuda:1"
    assert type(recipe.optimiser.lr) is float and recipe.optimiser.clip == float("inf")
    assert recipe.run == dataclasses.replace(Run(), device="cuda:1")


def test_a_written_recipe_is_toml_and_reads_back():
    recipe = Recipe.parse(
        NAMED + 'note = "a \\"b\\"\\n\\u00e9"\nsizes = [1, 2]\nflag = true\n', {"optimiser.clip": "inf"}
    )
    assert Recipe.parse(recipe.text()) == recipe
    assert tomllib.loads(recipe.text())["model"] == {"name": "multipliers", **recipe.model.settings}


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_read_back(name):
    recipe = Recipe.find(name)
    assert Recipe.parse(recipe.text()) == recipe and recipe.model.name


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("", {}, ["model.name must be", "''"]),
        (NAMED + "[optimizer]\nlr = 1\n", {}, ["unknown section", "'optimizer'", "did you mean 'optimiser'"]),
        (NAMED + "[run]\nstep = 1\n", {}, ["[run]", "'step'", "did you mean 'steps'"]),
        (NAMED, {"data.user": "4"}, ["[data]", "did you mean 'users'"]),
        (NAMED, {"data.source": "downlinc"}, ["unknown source of data", "did you mean 'downlink'"]),
        (NAMED, {"dta.users": "4"}, ["dta.users", "did you mean 'data.users'"]),
        (NAMED, {"steps": "4"}, ["steps", "did you mean 'run.steps'"]),
        (NAMED, {"run.steps": "4.5"}, ["run.steps must be an integer", "4.5"]),
        (NAMED, {"run.steps": "true"}, ["run.steps must be an integer", "True"]),
        (NAMED, {"run.steps": "0"}, ["run.steps must be positive", "0"]),
        (NAMED, {"run.device": "3"}, ["run.device must be a string"]),
        (NAMED, {"run.precision": "8"}, ["run.precision must be 16, 32 or 64", "8"]),
        (NAMED, {"optimiser.lr": "fast"}, ["optimiser.lr must be a number", "'fast'"]),
        (NAMED, {"optimiser.lr": "nan"}, ["optimiser.lr must be positive", "nan"]),
        (NAMED, {"optimiser.lr_end": "1"}, ["optimiser.lr_end", "between 0 and lr"]),
        (NAMED, {"optimiser.schedule": "cosin"}, ["unknown schedule", "did you mean 'cosine'"]),
        (NAMED, {"data.users": "[4, 2]"}, ["data.users", "[least, largest]", "(4, 2)"]),
        (NAMED, {"data.users": "[1, 2, 3]"}, ["data.users", "[least, largest]"]),
        (NAMED, {"data.users": "[2.5, 3]"}, ["data.users must be an integer"]),
        (NAMED, {"data.users": "0"}, ["data.users must be at least 1"]),
        (NAMED, {"data.load": "0"}, ["data.load must be positive"]),
        (NAMED, {"data.snr_db": "[0, inf]"}, ["data.snr_db must be finite"]),
        (NAMED, {"data.correlation": "1"}, ["data.correlation must be in [0, 1)"]),
        (NAMED, {"data.spread_share": "1.5"}, ["data.spread_share must be in [0, 1]"]),
        (NAMED + "[model.net]\nwidth = 3\n", {}, ["model.net must be a string", "width"]),
        ("model = 3", {}, ["model must be a section", "3"]),
        ("[model", {}, ["recipe must be TOML"]),
    ],
)
def test_errors_are_reported_in_one_sentence(text, overrides, words):
    with pytest.raises(ConfigError) as caught:
        Recipe.parse(text, overrides)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="unknown recipe 'multiplier'; did you mean 'multipliers'"):
        Recipe.find("multiplier")
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        Recipe.find(str(tmp_path / "absent.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.toml"):
        Recipe.find(str(tmp_path / "binary.toml"))


def test_values_keep_value_and_type_through_toml():
    for value in (1e-4, -5.0, 3, True, "a", [1.0, 2.5], 1e22, float("inf")):
        assert literal(toml(value)) == value and type(literal(toml(value))) is type(value)
    assert Optimiser().schedule == "cosine"
