"""Folds: every batch is held out once, and a run trains on the others alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from beamforge.core.errors import ConfigError
from beamforge.training.data.downlink import Downlink
from beamforge.training.folds import Fold
from beamforge.training.loop import train
from beamforge.training.recipe import Recipe
from beamforge.training.stream import Stream

SOURCE = Downlink(users=(2, 2), load=(0.5, 0.5))
RECIPE = """
[model]
name = "watcher"
[data]
users = [2, 2]
load = [0.5, 0.5]
[run]
steps = 9
batch = 2
seed = 3
validate_every = 9
validation_batches = 2
folds = 3
fold = 1
fold_batches = 7
device = "cpu"
"""


class Watcher(nn.Module):
    """Remembers the first channel of every batch; judged by its criterion."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(1))
        self.seen = {True: [], False: []}

    def loss(self, instance, generator):
        self.seen[self.training].append(instance.truth.H[0, 0, 0, 0].item())
        return self.x.square().sum(), {"mark": torch.tensor(float(len(self.seen[False])))}

    def criterion(self, figures):
        return 10 * figures["mark"]


def firsts(places, seed=3):
    stream = Stream.training(SOURCE, seed, 2)
    return [stream.batch_at(place).truth.H[0, 0, 0, 0].item() for place in places]


def test_every_batch_is_held_out_once():
    stream = Stream.training(SOURCE, 0, 2)
    out = [place for fold in range(4) for place in Fold(stream, 10, 4, fold, held_out=True).places]
    assert sorted(out) == list(range(10))
    for fold in range(4):
        sides = (Fold(stream, 10, 4, fold, held_out=side).places for side in (False, True))
        assert sorted(place for side in sides for place in side) == list(range(10))


def test_a_run_trains_on_the_other_folds_and_validates_on_its_own(tmp_path):
    model = Watcher()
    done = train(Recipe.parse(RECIPE), lambda: model, tmp_path)
    assert model.seen[True] == firsts([0, 2, 3, 5, 6, 0, 2, 3, 5])
    assert model.seen[False] == firsts([1, 4])
    assert done.best == 15.0, "the criterion of the mean of 1 and 2"


def test_a_batch_is_the_same_in_every_epoch():
    fold = Fold(Stream.training(SOURCE, 0, 4), 6, 3, 0)
    first, again = fold.batch_at(1), fold.batch_at(1 + len(fold.places))
    assert first is again and torch.equal(first.truth.H, Stream.training(SOURCE, 0, 4).batch_at(2).truth.H)
    assert len(fold.batch_at(1, slice(0, 2)).truth.H) == 2


@pytest.mark.parametrize(("count", "folds", "fold"), [(10, 1, 0), (3, 4, 0), (10, 5, 5), (10, 5, -1)])
def test_folds_out_of_range_are_refused(count, folds, fold):
    with pytest.raises(ConfigError):
        Fold(Stream.training(SOURCE, 0, 2), count, folds, fold)
