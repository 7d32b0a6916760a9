"""Protocols of a learned method for the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from beamforge.core.instance import Instance


@runtime_checkable
class Trainable(Protocol):
    """A solver (a `torch.nn.Module`) with a training loss."""

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss, averaged over the batch, and further averages to be logged, by name.

        Random numbers are drawn from `generator`, which is new at every step; PyTorch's global generators, used by
        layers such as dropout, are seeded alike.
        """
        raise NotImplementedError


@runtime_checkable
class Alternating(Protocol):
    """A trainable whose parts have losses of their own, and are moved in turns: once each in every step.

    `loss` is then what validation goes by, and not trained on while there are `turns`.
    """

    turns: Mapping[str, float]
    """The parts, submodules by name in the order of their turns, and their learning rates over the recipe's."""

    def turn(
        self, part: str, instance: Instance, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """What `loss` returns, of one part: its parameters alone are moved, all others stand still meanwhile."""
        raise NotImplementedError


@runtime_checkable
class Adaptive(Protocol):
    """A trainable with state that is updated after every step without gradients, such as a price."""

    def adapt(self, figures: Mapping[str, float]) -> None:
        """Update that state from the loss and the metrics of the step, averaged over all processes.

        Called after the gradient of a step and before its update of the parameters; not called for a skipped step.
        """
        raise NotImplementedError


@runtime_checkable
class Judged(Protocol):
    """A trainable whose validation loss is a function of means over all validation batches, not itself a mean."""

    def criterion(self, figures: Mapping[str, float]) -> float:
        """The validation loss, from the loss and the metrics, averaged over all validation batches."""
        raise NotImplementedError


@runtime_checkable
class TrainingOnly(Protocol):
    """A trainable with parts that only training needs."""

    training_only: tuple[str, ...]
    """Prefixes of the names of tensors that checkpoints contain and trained weights do not."""
