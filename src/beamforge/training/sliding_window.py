"""Training of deep networks by a sliding window of trained layers, from first to last."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Windowed(Protocol):
    """A trainable model of layers, of which a window can be trained."""

    def depth(self) -> int:
        """The number of layers."""
        raise NotImplementedError

    def focus(self, window: range) -> None:
        """Train the layers of a window; evaluate earlier layers without gradients and skip later ones.

        Validation always evaluates all layers, so that the best weights are those of the whole network.
        """
        raise NotImplementedError


def window_at(step: int, layers: int, width: int, every: int) -> range:
    """Trained layers in a step: a window of `width` layers that advances by one every `every` steps up to the last.

    With a width of 0, or of at least `layers`, all layers are trained.

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
