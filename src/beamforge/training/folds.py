"""k-fold cross-validation over a finite set of batches."""

from __future__ import annotations

from dataclasses import dataclass, field

from beamforge.core import batching
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.training.stream import Stream

MEMORY = 2**30
"""Bytes of batches that a fold keeps; the others are drawn again in every epoch."""


@dataclass(frozen=True)
class Fold:
    """The batches of one side of a fold: those of batches 0..count-1 of a stream with ``i % folds == fold`` are held
    out.

    held_out  whether these are the batches held out, or all others.

    `batch_at` repeats them in order without end. Raises `ConfigError` unless 2 <= folds <= count and 0 <= fold < folds.

    >>> from beamforge.training.data.downlink import Downlink
    >>> stream = Stream.training(Downlink(users=(4, 4), load=(0.5, 0.5)), seed=0, batch=3)
    >>> Fold(stream, count=10, folds=5, fold=1).places[:5], Fold(stream, 10, 5, 1, held_out=True).places
    ([0, 2, 3, 4, 5], [1, 6])
    """

    stream: Stream
    count: int
    folds: int
    fold: int
    held_out: bool = False
    kept: dict[tuple[int, int | None, int | None], Instance] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (2 <= self.folds <= self.count and 0 <= self.fold < self.folds):
            came = f"fold {self.fold} of {self.folds} of {self.count} batches"
            raise ConfigError(f"a fold must be one of 0 to folds - 1, and folds between 2 and fold_batches, got {came}")

    @property
    def places(self) -> list[int]:
        """The indices of the batches of this side."""
        return [i for i in range(self.count) if (i % self.folds == self.fold) == self.held_out]

    @property
    def seed(self) -> int:
        """Seed of the stream."""
        return self.stream.seed

    def batch_at(self, step: int, rows: slice = slice(None)) -> Instance:
        """The batch of a step, as `Stream.batch_at`."""
        places = self.places
        place = places[step % len(places)]
        key = (place, rows.start, rows.stop)
        if key in self.kept:
            return self.kept[key]
        batch = self.stream.batch_at(place, rows)
        if len(self.kept) * size(batch) < MEMORY:
            self.kept[key] = batch
        return batch


def size(batch: Instance) -> int:
    """Bytes of the tensors of a batch."""
    return sum(leaf.numel() * leaf.element_size() for leaf in batching.leaves(batch))
