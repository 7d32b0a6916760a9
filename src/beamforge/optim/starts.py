"""Iterations that are begun from several starts."""

from __future__ import annotations

from beamforge.core.errors import ConfigError
from beamforge.optim.iterate import IterativeSolver


class SeveralStarts(IterativeSolver):
    """Base of the iterations that choose how many starts their `init` has.

    starts  how many, at least one. The other settings are those of `IterativeSolver`.
    """

    def __init__(
        self,
        tolerance: float = 1e-8,
        max_iterations: int = 1000,
        acceleration: str = "squarem",
        starts: int = 2,
        gradient: str = "implicit",
    ) -> None:
        super().__init__(tolerance, max_iterations, acceleration, gradient)
        self.starts = at_least_one(starts)


def at_least_one(starts: int) -> int:
    """A number of starts; `ConfigError` if there is none."""
    if starts < 1:
        raise ConfigError(f"starts must be at least 1, got {starts}")
    return starts
