"""Term: the base of utilities and constraints, whose numbers (per instance, user, ...) are bound to a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from beamforge.core.beams import Beams
from beamforge.core.errors import ShapeError
from beamforge.core.instance import Instance
from beamforge.core.network import Network, per_instance

Number = Tensor | float
"""A number as callers give it."""

Entry = Any
"""The type of a term's field: a `Number` as given, a tensor once bound."""

Bound = TypeVar("Bound", bound="Term")

DOMAINS = {
    "positive": lambda value: value > 0,
    "non-negative": lambda value: value >= 0,
    "real": lambda value: value == value,
    "complex": lambda value: value == value,
}
"""Conditions on the numbers of a field, by domain; numbers must also be finite."""

SIZES = ("users", "transmitters", "antennas")
"""Axes whose length is given by the network; any other axis has the length that it has in the first field."""


def number(*axes: str, domain: str = "positive", **options: Any) -> Any:
    """A dataclass field: a number for each instance and each entry of `axes`, of a domain in `DOMAINS`.

    An axis is one of `SIZES` or any other name, for an axis of the term: ``number("targets", domain="complex")``.
    """
    return field(metadata={"axes": axes, "domain": domain}, **options)


@dataclass(frozen=True)
class Term:
    """A utility or a constraint: a frozen dataclass of numbers declared by `number`."""

    def bind(self: Bound, network: Network) -> Bound:
        """The term with all numbers as tensors [*batch, *axes] in the network's precision.

        Raises `ShapeError` for a number that does not fit the network or its domain.
        """
        sizes = {axis: getattr(network, axis) for axis in SIZES}
        bound: dict[str, Tensor] = {}
        for item in dataclasses.fields(self):
            axes, domain = item.metadata["axes"], item.metadata["domain"]
            name = f"{item.name} of {type(self).__name__}"
            dtype = network.H.dtype if domain == "complex" else network.noise.dtype
            given = getattr(self, item.name)
            if any(axis not in sizes for axis in axes):
                given = (
                    given if isinstance(given, Tensor) else torch.as_tensor(given, dtype=dtype, device=network.H.device)
                )
                if given.ndim < len(axes):
                    raise ShapeError(f"{name} must be [..., {', '.join(axes)}], got {tuple(given.shape)}")
                for axis, length in zip(axes, given.shape[given.ndim - len(axes) :], strict=True):
                    sizes.setdefault(axis, length)
            shape = tuple(sizes[axis] for axis in axes)
            value = per_instance(name, given, network.H, shape, dtype)
            wrong = ~DOMAINS[domain](value) | value.isinf()
            if wrong.any():
                kind = "" if domain in ("real", "complex") else f"{domain} and "
                raise ShapeError(f"{name} must be {kind}finite, got {value[wrong][0].item():g}")
            bound[item.name] = value
        return dataclasses.replace(self, **bound)

    def figures(self, instance: Instance, beams: Beams) -> Mapping[str, Tensor]:
        """Further values for the report, [..., *] by name; by default none.

        instance  the instance, to whose true network the term is bound.
        """
        return {}
