"""Learning rate schedules by name, as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda part: (1 + math.cos(math.pi * part)) / 2,
    "linear": lambda part: 1 - part,
    "constant": lambda part: 1.0,
}
"""Share, from 1 to 0, of ``lr - lr_end`` that remains after a `part` (0 to 1) of the steps that follow warm-up."""


def learning_rate(schedule: str, step: int, steps: int, *, lr: float, lr_end: float, warm_up: int) -> float:
    """``lr (i + 1) / (u + 1)`` in the steps i = 0..u-1 of warm-up, then ``lr_end + (lr - lr_end) s((i-u) / (n-u))``.

    u is `warm_up`, n `steps`, and s the `schedule` of that name; u may exceed n.

    >>> [round(learning_rate("cosine", i, 8, lr=1.0, lr_end=0.0, warm_up=3), 3) for i in range(8)]
    [0.25, 0.5, 0.75, 1.0, 0.905, 0.655, 0.345, 0.095]
    """
    if step < warm_up:
        return lr * (step + 1) / (warm_up + 1)
    return lr_end + (lr - lr_end) * SCHEDULES[schedule]((step - warm_up) / (steps - warm_up))
