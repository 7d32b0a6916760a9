"""What utilities and constraints share: numbers per instance, per user or per transmitter, bound to a network."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from beamforge.core.errors import ShapeError
from beamforge.core.network import Network, per_instance

Number = Tensor | float
"""A real number as callers give it."""

Entry = Any
"""The type of a term's field: a `Number` as given, a tensor once bound."""

Bound = TypeVar("Bound", bound="Term")


def number(*axes: str, positive: bool = True, **options: Any) -> Any:
    """A dataclass field with one real number per instance and per entry of `axes` (properties of `Network`).

    Numbers must be positive; with ``positive=False`` zero is allowed too.
    """
    return field(metadata={"axes": axes, "positive": positive}, **options)


@dataclass(frozen=True)
class Term:
    """A utility or a constraint: a frozen dataclass of real numbers declared by `number`."""

    def bind(self: Bound, network: Network) -> Bound:
        """Every number as a tensor [*batch, *axes] in the network's real precision; `ShapeError` if it cannot be."""
        bound: dict[str, Tensor] = {}
        for item in dataclasses.fields(self):
            shape = tuple(getattr(network, axis) for axis in item.metadata["axes"])
            name = f"{item.name} of {type(self).__name__}"
            value = per_instance(name, getattr(self, item.name), network.H, shape)
            wrong = (~(value > 0) if item.metadata["positive"] else ~(value >= 0)) | value.isinf()
            if wrong.any():
                domain = "positive" if item.metadata["positive"] else "non-negative"
                raise ShapeError(f"{name} must be {domain} and finite, got {value[wrong][0].item():g}")
            bound[item.name] = value
        return dataclasses.replace(self, **bound)
