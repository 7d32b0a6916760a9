"""What utilities and constraints share: numbers per instance, user, transmitter or target, bound to a network."""

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
"""What the numbers of a field may be; all of them finite."""

SIZES = ("users", "transmitters", "antennas")
"""Axes whose length is the network's; an axis of any other name is as long as the first field that has it says."""


def number(*axes: str, domain: str = "positive", **options: Any) -> Any:
    """A dataclass field with one number of a domain (`DOMAINS`) per instance and per entry of `axes`.

    An axis is one of `SIZES`, or one of the term's own: ``number("targets", domain="complex")``.
    """
    return field(metadata={"axes": axes, "domain": domain}, **options)


@dataclass(frozen=True)
class Term:
    """A utility or a constraint: a frozen dataclass of numbers declared by `number`."""

    def bind(self: Bound, network: Network) -> Bound:
        """Every number as a tensor [*batch, *axes] in the network's precision; `ShapeError` if it cannot be."""
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
        """What a report should tell beside rates and powers, [..., *] by name; by default nothing.

        instance  the truth, and the term's numbers are bound to it.
        """
        return {}
