"""What the training loop asks of a learned method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from beamforge.core.instance import Instance


@runtime_checkable
class Trainable(Protocol):
    """A solver (and so a `torch.nn.Module`) that can say how badly it does."""

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss, a scalar averaged over the batch, and further such averages to be shown by name.

        Whatever a method draws for its loss comes from `generator`, a new one at every step; layers that draw from
        torch's own (dropout) are seeded alike.
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
    """A trainable with state that is not learned by gradients but moved after every step, such as a price."""

    def adapt(self, figures: Mapping[str, float]) -> None:
        """Move it by the figures of the step just taken: the loss and the metrics, averaged over all processes.

        Called between a step's gradient and its update of the parameters, and not at all for a step that is skipped.
        """
        raise NotImplementedError


@runtime_checkable
class Scaffolded(Protocol):
    """A trainable with parts that training needs and the trained method does not."""

    scaffold: tuple[str, ...]
    """Beginnings of the names of what is kept in checkpoints and left out of weights."""
