"""Deep networks trained a few layers at a time, by a window of layers that learn and slides from first to last."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Windowed(Protocol):
    """A trainable made of layers, some of which can be told to learn."""

    def depth(self) -> int:
        """The number of layers."""
        raise NotImplementedError

    def focus(self, window: range) -> None:
        """From now on train the layers of a window: go through those before it without a gradient, and stop behind it.

        Validation goes through all layers in any case, so that the best weights are those of the whole network.
        """
        raise NotImplementedError


def window_at(step: int, layers: int, width: int, every: int) -> range:
    """The layers that learn in a step: `width` of them, one further every `every` steps, until the last one learns.

    A width of 0, or of as many as there are, is all layers.

    >>> [window_at(step, layers=4, width=2, every=10) for step in (0, 9, 10, 25, 999)]
    [range(0, 2), range(0, 2), range(1, 3), range(2, 4), range(2, 4)]
    >>> window_at(5, layers=4, width=0, every=10)
    range(0, 4)

    Source: Eq. 25 of the transformer-based learning-to-optimise paper.
    """
    if not 0 < width < layers:
        return range(layers)
    first = min(step // every, layers - width)
    return range(first, first + width)
