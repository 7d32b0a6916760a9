"""Training data from files of labels: batches as functions of the step, and refusal of held-out seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.cli import main
from beamforge.core import batching
from beamforge.core.errors import ChannelFileError, ConfigError
from beamforge.scenarios.base import TEST_SEEDS, VALIDATION_SEEDS
from beamforge.training.data.labelled import Labelled
from beamforge.training.recipe import Recipe
from beamforge.training.stream import Stream


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    for name, seed in (("training", 3), ("validation", VALIDATION_SEEDS[0]), ("test", TEST_SEEDS[0])):
        options = ["--count", "6", "--seed", str(seed), "--set", "links=3", "--jobs", "1"]
        assert main(["label", "weak", *options, "--out", str(folder / f"{name}.npz")]) == 0
    return {name: str(folder / f"{name}.npz") for name in ("training", "validation", "test")}


def test_batches_are_rows_of_the_file_with_their_labels(files):
    stream = Stream.training(Labelled(files["training"], files["validation"]), seed=1, batch=4, dtype=torch.complex128)
    with np.load(files["training"]) as data:
        G, p = data["G"], data["p"]
    places = set()
    for step in range(20):
        batch = stream.batch_at(step)
        gains, label = batch.truth.gains.numpy(), batch.labels["p"].numpy()
        (first,) = np.flatnonzero(np.isclose(G, gains[0]).all((1, 2)))
        rows = (first + np.arange(4)) % 6
        np.testing.assert_allclose(gains, G[rows], rtol=1e-12)
        np.testing.assert_array_equal(label, p[rows])
        assert (batch.truth.noise == 0.05).all() and (batch.context["p_max"] == 2).all()
        places.add(int(first))
        again = batching.leaves(stream.batch_at(step))
        assert all(torch.equal(a, b) for a, b in zip(batching.leaves(batch), again, strict=True))
    assert len(places) >= 5


def test_validation_uses_the_other_file(files):
    validation = Stream.validation(Labelled(files["training"], files["validation"]), batch=6, dtype=torch.complex128)
    with np.load(files["validation"]) as data:
        expected = np.sort(data["utility"])
    np.testing.assert_allclose(np.sort(validation.batch_at(0).labels["utility"].numpy()), expected)


def test_files_of_the_wrong_seeds_are_refused(files):
    for name in ("validation", "test"):
        with pytest.raises(ConfigError, match=r"file must have a seed that is not held out, got 100\d+"):
            Labelled(files[name], files["validation"])
    for name in ("training", "test"):
        with pytest.raises(ConfigError, match="validation must have a validation seed"):
            Labelled(files["training"], files[name])


def test_files_without_labels_or_seeds_are_refused(files, tmp_path):
    with np.load(files["training"]) as data:
        arrays = dict(data)
    for left_out, words in (("p", "labels p"), ("meta", "state its seed")):
        path = tmp_path / f"{left_out}.npz"
        np.savez(path, **{name: value for name, value in arrays.items() if name != left_out})
        with pytest.raises(ConfigError, match=words):
            Labelled(str(path), files["validation"])
    with pytest.raises(ChannelFileError, match="nothing there"):
        Labelled(str(tmp_path / "none.npz"), files["validation"])


def test_a_recipe_can_name_them(files):
    text = f'[model]\nname = "x"\n[data]\nsource = "labelled"\nfile = "{files["training"]}"\n'
    recipe = Recipe.parse(text + f'validation = "{files["validation"]}"\n')
    assert Recipe.parse(recipe.text()) == recipe


@pytest.mark.parametrize("noise", [0.05, np.full(3, 0.05), np.full((6, 3), 0.05)])
def test_noise_may_be_stated_once_for_a_user_or_for_each(files, tmp_path, noise):
    path = tmp_path / "other.npz"
    with np.load(files["training"]) as data:
        np.savez(path, **{**data, "noise": noise})
    stream = Stream.training(Labelled(str(path), files["validation"]), seed=1, batch=2, dtype=torch.complex128)
    assert torch.equal(stream.batch_at(0).truth.noise, torch.full((2, 3), 0.05, dtype=torch.float64))
