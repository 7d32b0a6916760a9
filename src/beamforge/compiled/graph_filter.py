"""The graph filter over users for one channel, as `learned.graph_filter` computes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from beamforge.compiled.lapack import Array

EPS = 1e-5
"""Term that PyTorch's layer normalisation adds to the variance."""


class Linear(NamedTuple):
    """``x A + b``."""

    A: Array
    b: Array

    def __call__(self, x: Array) -> Array:
        found: Array = x @ self.A
        found += self.b
        return found


class Round(NamedTuple):
    """A residual block: ``x + out(silu(mix([y, S_1 V y, ..., S_s V y])))`` with ``y = LayerNorm(x)``."""

    scale: Array
    offset: Array
    send: Array
    mix: Linear
    out: Linear

    def __call__(self, x: Array, shifts: Array) -> Array:
        """x [K, width], shifts [s K, K]."""
        K, width = x.shape
        y = x - np.add.reduce(x, -1, keepdims=True) / width
        y *= 1 / np.sqrt(np.add.reduce(y * y, -1, keepdims=True) / width + EPS)
        y *= self.scale
        y += self.offset
        heard = (shifts @ (y @ self.send)).reshape(-1, K, self.send.shape[1])
        mixed = self.mix(np.concatenate([y, *heard], -1))
        mixed *= expit(mixed)
        found = self.out(mixed)
        found += x
        return found


class GraphFilter(NamedTuple):
    """The filter: `enter`, some rounds, `leave`."""

    enter: Linear
    rounds: tuple[Round, ...]
    leave: Linear

    def __call__(self, nodes: Array, shifts: Array) -> Array:
        """Outputs [K, outputs] for nodes [K, inputs] and shifts [s, K, K]."""
        stacked = shifts.reshape(-1, shifts.shape[-1])
        x = self.enter(nodes)
        for each in self.rounds:
            x = each(x, stacked)
        return self.leave(x)


def graph_filter(tensors: Mapping[str, Array], prefix: str) -> GraphFilter:
    """The filter with the weights whose names begin with `prefix`; its rounds are `round` or `rounds.0`, ...."""
    names = [f"{prefix}round."] if f"{prefix}round.send.weight" in tensors else []
    while f"{prefix}rounds.{len(names)}.send.weight" in tensors:
        names.append(f"{prefix}rounds.{len(names)}.")
    rounds = tuple(
        Round(
            tensors[f"{name}norm.weight"],
            tensors[f"{name}norm.bias"],
            np.ascontiguousarray(tensors[f"{name}send.weight"].T),
            linear(tensors, f"{name}mix"),
            linear(tensors, f"{name}out"),
        )
        for name in names
    )
    return GraphFilter(linear(tensors, f"{prefix}enter"), rounds, linear(tensors, f"{prefix}leave"))


def linear(tensors: Mapping[str, Array], name: str) -> Linear:
    """A layer by its name."""
    return Linear(np.ascontiguousarray(tensors[f"{name}.weight"].T), tensors[f"{name}.bias"])
