"""Side information of an instance, by name: limits, weights, targets, statistics; and labels for training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from beamforge.core.errors import ConfigError, ShapeError, unknown
from beamforge.core.network import Network


class ContextEntry(NamedTuple):
    """Shapes and meaning of one entry of a context.

    shapes   the allowed shapes behind the batch dimensions, one letter per axis: T transmitters, K users, N antennas;
             an axis with any other letter may have any length.
    meaning  in words, with the unit.
    """

    shapes: tuple[str, ...]
    meaning: str


CONTEXT: dict[str, ContextEntry] = {
    "p_max": ContextEntry(("",), "limit of the total power, watts"),
    "p_max_transmitter": ContextEntry(("T",), "limit of each transmitter's power, watts"),
    "p_max_antenna": ContextEntry(("TN",), "limit of each antenna's power, watts"),
    "weights": ContextEntry(("K",), "weights of the users' rates"),
    "sinr_target": ContextEntry(("K",), "SINR targets, linear"),
    "jain": ContextEntry(("",), "mean of Jain's index to be met"),
    "csi_quality": ContextEntry(("", "K"), "quality of the estimate: pilot power over noise, or feedback bits"),
    "covariance": ContextEntry(("KNN",), "statistics of the channels, E[h h^H] of every user"),
    "codebook": ContextEntry(("NC",), "analog beams that may be chosen, one a column"),
    "target_angles": ContextEntry(("M",), "directions of the sensing targets, radians"),
    "target_gain": ContextEntry(("M",), "complex reflection gains of the sensing targets"),
    "sensing_noise": ContextEntry(("",), "noise power of the sensing receiver, watts"),
    "sensing_snr_target": ContextEntry(("",), "least sensing SNR of every target, linear"),
    "user_position": ContextEntry(("KP",), "places of the users, metres"),
}
"""Every entry that the context of an observation may have."""

LABELS: dict[str, ContextEntry] = {
    "p": ContextEntry(("K",), "best known powers, watts"),
    "utility": ContextEntry(("",), "utility of these powers"),
    "group": ContextEntry(("",), "number of the kind of instance, for constraints on groups"),
    "certificate": ContextEntry(("",), "proof that they are optimal, a value of `beamforge.learned.links.labels`"),
}
"""Labels for training; solvers do not see them."""


def checked(context: Mapping[str, Any], network: Network, names: Mapping[str, ContextEntry]) -> dict[str, Any]:
    """The context as a dict, after a check that every name is known and every tensor has an allowed shape.

    Raises `ConfigError` for an unknown name (the message has the nearest known one), `ShapeError` for a wrong shape.
    """
    sizes = {"T": network.transmitters, "K": network.users, "N": network.antennas}
    for name, value in context.items():
        if name not in names:
            raise ConfigError(unknown("entry of a context", name, names))
        if isinstance(value, Tensor) and not any(fits(value, axes, network, sizes) for axes in names[name].shapes):
            expected = " or ".join(f"[{', '.join(('...', *axes))}]" for axes in names[name].shapes)
            raise ShapeError(f"{name} must be {expected} ({names[name].meaning}), got {tuple(value.shape)}")
    return dict(context)


def fits(value: Tensor, axes: str, network: Network, sizes: Mapping[str, int]) -> bool:
    """Whether a tensor has the shape [*batch, *axes]."""
    dims = len(network.batch_shape)
    known = all(sizes.get(axis, length) == length for axis, length in zip(axes, value.shape[dims:], strict=False))
    return value.ndim == dims + len(axes) and value.shape[:dims] == network.batch_shape and known
