"""Weights that are a distribution of their own: the index is true, and what is amiss is told in a sentence."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

import beamforge
from beamforge.cli import main
from beamforge.core.errors import ConfigError
from beamforge.io import weights
from beamforge.learned.fairness.wit import shipped
from beamforge.registry import MODELS
from beamforge.scenarios import Fairness
from beamforge.training.recipe import Recipe

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "weights" / "src" / "beamforge_weights"
LARGEST = 1e6
"""Bytes of weights that may travel in the package."""


def forget(monkeypatch):
    """Let the distribution be looked up anew, here and when the test is over."""
    shipped.cache_clear()
    monkeypatch.delitem(sys.modules, weights.DISTRIBUTION, raising=False)


@pytest.fixture
def absent(monkeypatch):
    """An environment without the extra."""
    forget(monkeypatch)
    monkeypatch.setitem(sys.modules, weights.DISTRIBUTION, None)


@pytest.fixture
def copied(monkeypatch, tmp_path) -> Path:
    """One with a distribution of its own, of two files, which may be changed."""
    folder = tmp_path / weights.DISTRIBUTION
    folder.mkdir()
    for name in ("__init__.py", "index.json", "wit-86.safetensors", "neural-sum-rate-16.safetensors"):
        shutil.copy(FOLDER / name, folder)
    forget(monkeypatch)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_index_agrees_with_files():
    index = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
    files = {path.stem: path.read_bytes() for path in FOLDER.glob("*.safetensors")}
    assert index["weights"] == {
        name: {"bytes": len(data), "sha256": sha256(data).hexdigest()} for name, data in files.items()
    }
    assert set(files) == set(weights.extra().train)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert index["version"] == weights.extra().version
    assert project["optional-dependencies"]["weights"] == [f"beamforge-weights=={index['version']}"]


def test_only_large_files_are_in_the_extra():
    own = (REPOSITORY / "src" / "beamforge" / "weights").glob("*.safetensors")
    assert all(path.stat().st_size <= LARGEST for path in own)
    assert all(path.stat().st_size > LARGEST for path in FOLDER.glob("*.safetensors"))


@pytest.mark.parametrize("name", weights.names())
def test_every_file_loads_by_its_name_and_has_a_card(name):
    model = max((model for model in MODELS if name == model or name.startswith(f"{model}-")), key=len)
    found = weights.load(model, name=name)
    assert found.tensors and all(value.isfinite().all() for value in found.tensors.values())
    assert name in weights.card(name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", weights.extra().train)
def test_training_command_is_that_of_the_recipe(name):
    recipe, *options = weights.extra().train[name].split()
    settings = dict(option.split("=") for option in options if option != "--set")
    told = Recipe.find(recipe, settings).tables()["model"]
    trained = weights.load(told["name"], name=name).header["recipe"]["model"]
    assert told["name"] == trained["name"]
    assert {key: told.get(key) for key in ("jain", "links")} == {key: trained.get(key) for key in ("jain", "links")}


def test_without_it_the_error_names_the_extra_and_both_commands(absent):
    for name, command in (("wit-75", "wit --set model.jain=0.75"), ("neural-sum-rate-64", "neural-sum-rate-64")):
        with pytest.raises(ConfigError) as refusal:
            weights.load(name.rpartition("-")[0], name=name)
        told = str(refusal.value)
        assert name in told and "beamforge[weights]" in told and "\n" not in told
        assert "`pip install ./weights`" in told and f"`beamforge train {command}`" in told


def test_without_it_names_are_the_same_and_other_methods_work(absent, tmp_path, capsys):
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert re.search(r"wit-86 .*\(in the extra weights\)", listed) and "neural-sum-rate-4 " in listed
    assert not re.search(r"(multipliers|-4) .*in the extra", listed)
    instance = Fairness().sample(4)
    H = instance.truth.channel.numpy()
    np.savez(tmp_path / "drops.npz", H=H, noise=instance.truth.noise.numpy(), p_max=np.float64(10))
    asked = [str(tmp_path / "drops.npz"), "--problem", "fair-sum-rate", "--jain", "0.8"]
    out = tmp_path / "beams.npz"
    assert main(["solve", *asked, "--method", "wit", "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "beamforge[weights]" in told and told.count("\n") == 1 and not out.exists()
    for method in ("multipliers", "pareto"):
        assert main(["solve", *asked, "--method", method, "--out", str(out)]) == 0
    gains = torch.eye(4) + 0.05
    for links in (gains, torch.eye(16) + 0.01):
        for method in ("neural-sum-rate-shared", "gnn", "td3"):
            assert beamforge.solve(links, noise=0.05, p_max=2.0, method=method).solved.all()
    assert beamforge.solve(gains, noise=0.05, p_max=2.0, method="neural-sum-rate").solved.all()
    with pytest.raises(ConfigError, match=r"beamforge train neural-sum-rate-16"):
        beamforge.solve(torch.eye(16) + 0.01, noise=0.05, p_max=2.0, method="neural-sum-rate")


@pytest.mark.parametrize("paper", ["power-control", "fairness"])
def test_without_it_a_reproduction_is_an_error(absent, tmp_path, capsys, paper):
    assert main(["reproduce", paper, "--quick", "--out", str(tmp_path)]) == 2
    said, err = capsys.readouterr()
    assert "beamforge[weights]" in err and "Table" not in said and not list(tmp_path.rglob("*.csv"))


def test_damaged_file_is_reported(copied):
    intact = weights.load("wit", name="wit-86")
    assert intact.header["recipe"]["model"]["jain"] == 0.86
    path = copied / "wit-86.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"weights wit-86 of beamforge-weights are damaged.* `pip install ./weights`"):
        weights.load("wit", name="wit-86")
    assert weights.load("neural-sum-rate", name="neural-sum-rate-16").tensors
    path.unlink()
    with pytest.raises(ConfigError, match="weights wit-86 of beamforge-weights are damaged"):
        weights.load("wit", name="wit-86")
    for index in (b"", b"[]", b"{}"):
        (copied / "index.json").write_bytes(index)
        with pytest.raises(ConfigError, match="damaged"):
            weights.load("neural-sum-rate", name="neural-sum-rate-16")


def test_other_version_is_reported(copied):
    for found in ({}, json.loads((copied / "index.json").read_text())["weights"]):
        (copied / "index.json").write_text(json.dumps({"version": "9.9.0", "weights": found}))
        with pytest.raises(ConfigError, match=r"beamforge-weights must be version .* got 9\.9\.0: run `pip install"):
            weights.load("wit", name="wit-86")
