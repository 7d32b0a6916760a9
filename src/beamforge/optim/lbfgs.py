"""Quasi-Newton ascent on a smooth function, for each instance of a batch separately.

L-BFGS with backtracking, one evaluation per call: a trial step that does not increase the value enough is shortened
and tried again at the next call.

Source: D. Liu, J. Nocedal, "On the limited memory BFGS method for large scale optimization", Math. Program. 45 (1989).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core import batching

MEMORY = 8
"""Number of stored steps."""

SUFFICIENT_INCREASE = 1e-4
"""Share of the first-order increase that an accepted step must reach (Armijo condition)."""

BACKTRACK = 0.3
"""Factor that shortens a rejected step."""

FIRST_LENGTH = 0.1
"""Length of the first step."""

Function = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From points [B, n] to values [B] and gradients [B, n]."""


class Climb(NamedTuple):
    """The current point of each instance, and its next trial step ``length * direction``.

    point, gradient, direction  [B, n].      value, length  [B].
    steps, changes              [B, MEMORY, n], of the point and (negated) of the gradient, the newest last.
    weight                      [B, MEMORY], ``1 / (step . change)``, 0 for an empty entry.
    """

    point: Tensor
    value: Tensor
    gradient: Tensor
    direction: Tensor
    length: Tensor
    steps: Tensor
    changes: Tensor
    weight: Tensor

    @property
    def expected_increase(self) -> Tensor:
        """First-order increase [B] for length 1; near the maximum about twice the increase that is left."""
        return inner(self.gradient, self.direction)


def begin(function: Function, point: Tensor) -> Climb:
    """The initial `Climb` at a point [B, n]: its first direction is along the gradient."""
    value, gradient = function(point)
    none = point.new_zeros(len(point), MEMORY, point.shape[-1])
    return Climb(point, value, gradient, first_step(gradient), torch.ones_like(value), none, none, none[..., 0])


def advance(function: Function, climb: Climb) -> Climb:
    """Evaluate the trial step; accept and store it if the value increases enough, else shorten it.

    Values never decrease, up to rounding.
    """
    point = climb.point + climb.length.unsqueeze(-1) * climb.direction
    value, gradient = function(point)
    rounding = 4 * torch.finfo(value.dtype).eps * climb.value.abs()
    enough = SUFFICIENT_INCREASE * climb.length * climb.expected_increase
    accepted = value >= climb.value + enough - rounding  # false for NaN
    step, change = point - climb.point, climb.gradient - gradient
    curvature = inner(step, change)
    curved = curvature > torch.finfo(curvature.dtype).eps * inner(change, change).sqrt() * inner(step, step).sqrt()
    moved = Climb(
        point,
        value,
        gradient,
        gradient,
        torch.ones_like(value),
        appended(climb.steps, step),
        appended(climb.changes, change),
        appended(climb.weight, torch.where(curved, curvature, torch.inf).reciprocal()),
    )
    shortened = climb._replace(length=climb.length * BACKTRACK)
    return batching.where(accepted, moved._replace(direction=ascent_direction(moved)), shortened)


def ascent_direction(climb: Climb) -> Tensor:
    """L-BFGS direction: the inverse-Hessian estimate times the gradient (two-loop recursion).

    Where the newest entry is empty or the direction does not ascend, it is `first_step` instead.
    """
    shares: list[Tensor] = []
    direction = climb.gradient
    for step, change, weight in reversed(list(zip(*map(recent, climb[-3:]), strict=True))):
        shares.append(weight * inner(step, direction))
        direction = direction - shares[-1].unsqueeze(-1) * change
    scale = torch.where(
        climb.weight[:, -1] > 0, climb.weight[:, -1] * inner(climb.changes[:, -1], climb.changes[:, -1]), 1
    )
    direction = direction / scale.unsqueeze(-1)
    for step, change, weight in zip(*map(recent, climb[-3:]), strict=True):
        share = shares.pop() - weight * inner(change, direction)
        direction = direction + share.unsqueeze(-1) * step
    rises = (climb.weight[:, -1] > 0) & (inner(direction, climb.gradient) > 0)
    return torch.where(rises.unsqueeze(-1), direction, first_step(climb.gradient))


def first_step(gradient: Tensor) -> Tensor:
    """A short step along the gradient."""
    size = inner(gradient, gradient).sqrt().unsqueeze(-1)
    return FIRST_LENGTH * gradient / torch.where(size > 0, size, 1)


def recent(memory: Tensor) -> tuple[Tensor, ...]:
    """The entries of a memory, the newest last."""
    return memory.unbind(1)


def appended(memory: Tensor, entry: Tensor) -> Tensor:
    """A memory with `entry` appended and the oldest entry removed."""
    return torch.cat([memory[:, 1:], entry.unsqueeze(1)], 1)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner products [B] of rows [B, n]."""
    return (a * b).sum(-1)
