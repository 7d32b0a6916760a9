"""Quasi-Newton ascent: every instance of a batch climbs a smooth function by itself.

L-BFGS with backtracking, one evaluation a step: where a step does not rise enough it is cut, and tried at the next.

Source: D. Liu, J. Nocedal, "On the limited memory BFGS method for large scale optimization", Math. Program. 45 (1989).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core import batching

MEMORY = 8
"""Steps that are remembered."""

RISE = 1e-4
"""Share of the first-order rise that a step must bring."""

CUT = 0.3
"""Factor on a step that did not."""

FIRST = 0.1
"""Length of the first step."""

Function = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From points [B, n] to values [B] and gradients [B, n]."""


class Climb(NamedTuple):
    """Where an instance stands, and the step that it tries next.

    point, gradient, direction  [B, n].      value, length  [B].
    moves, turns                [B, MEMORY, n], changes of the point and, negated, of the gradient, the newest last.
    weight                      [B, MEMORY], ``1 / (move . turn)``, 0 where there is none.
    """

    point: Tensor
    value: Tensor
    gradient: Tensor
    direction: Tensor
    length: Tensor
    moves: Tensor
    turns: Tensor
    weight: Tensor

    @property
    def promise(self) -> Tensor:
        """First-order rise [B] of a whole step, about twice what is left to gain near the top."""
        return inner(self.gradient, self.direction)


def begin(function: Function, point: Tensor) -> Climb:
    """At a point [B, n], about to go uphill."""
    value, gradient = function(point)
    none = point.new_zeros(len(point), MEMORY, point.shape[-1])
    return Climb(point, value, gradient, first(gradient), torch.ones_like(value), none, none, none[..., 0])


def advance(function: Function, climb: Climb) -> Climb:
    """Try the step; where it rises go there and learn from it, else cut it. Values never fall, up to rounding."""
    point = climb.point + climb.length.unsqueeze(-1) * climb.direction
    value, gradient = function(point)
    rounding = 4 * torch.finfo(value.dtype).eps * climb.value.abs()
    risen = value >= climb.value + RISE * climb.length * climb.promise - rounding  # NaN is refused
    move, turn = point - climb.point, climb.gradient - gradient
    bend = inner(move, turn)
    curved = bend > torch.finfo(bend.dtype).eps * inner(turn, turn).sqrt() * inner(move, move).sqrt()
    learnt = Climb(
        point,
        value,
        gradient,
        gradient,
        torch.ones_like(value),
        newest(climb.moves, move),
        newest(climb.turns, turn),
        newest(climb.weight, torch.where(curved, bend, torch.inf).reciprocal()),
    )
    cut = climb._replace(length=climb.length * CUT)
    return batching.where(risen, learnt._replace(direction=uphill(learnt)), cut)


def uphill(climb: Climb) -> Tensor:
    """The inverse Hessian that the memory tells of, times the gradient; the gradient itself where it tells nothing."""
    shares: list[Tensor] = []
    direction = climb.gradient
    for move, turn, weight in reversed(list(zip(*map(recent, climb[-3:]), strict=True))):
        shares.append(weight * inner(move, direction))
        direction = direction - shares[-1].unsqueeze(-1) * turn
    scale = torch.where(climb.weight[:, -1] > 0, climb.weight[:, -1] * inner(climb.turns[:, -1], climb.turns[:, -1]), 1)
    direction = direction / scale.unsqueeze(-1)
    for move, turn, weight in zip(*map(recent, climb[-3:]), strict=True):
        share = shares.pop() - weight * inner(turn, direction)
        direction = direction + share.unsqueeze(-1) * move
    rises = (climb.weight[:, -1] > 0) & (inner(direction, climb.gradient) > 0)
    return torch.where(rises.unsqueeze(-1), direction, first(climb.gradient))


def first(gradient: Tensor) -> Tensor:
    """A short step along the gradient."""
    size = inner(gradient, gradient).sqrt().unsqueeze(-1)
    return FIRST * gradient / torch.where(size > 0, size, 1)


def recent(memory: Tensor) -> tuple[Tensor, ...]:
    """The entries of a memory, the newest last."""
    return memory.unbind(1)


def newest(memory: Tensor, entry: Tensor) -> Tensor:
    """A memory with one more entry and the oldest gone."""
    return torch.cat([memory[:, 1:], entry.unsqueeze(1)], 1)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner products [B] of rows [B, n]."""
    return (a * b).sum(-1)
