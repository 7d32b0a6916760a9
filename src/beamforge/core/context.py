"""What is known beside the channels, by name: limits, weights, targets, statistics, and labels to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from beamforge.core.errors import ConfigError, ShapeError, unknown
from beamforge.core.network import Network


class Entry(NamedTuple):
    """What a name stands for.

    shapes   the shapes it may have behind the batch dimensions, axis by axis: T transmitters, K users, N antennas;
             any other letter is an axis of its own, of any length.
    meaning  in words, with its unit.
    """

    shapes: tuple[str, ...]
    meaning: str


CONTEXT: dict[str, Entry] = {
    "p_max": Entry(("",), "limit of the total power, watts"),
    "p_max_transmitter": Entry(("T",), "limit of each transmitter's power, watts"),
    "p_max_antenna": Entry(("TN",), "limit of each antenna's power, watts"),
    "weights": Entry(("K",), "weights of the users' rates"),
    "sinr_target": Entry(("K",), "SINR targets, linear"),
    "jain": Entry(("",), "mean of Jain's index to be met"),
    "csi_quality": Entry(("", "K"), "quality of the estimate: pilot power over noise, or feedback bits"),
    "covariance": Entry(("KNN",), "statistics of the channels, E[h h^H] of every user"),
    "codebook": Entry(("NC",), "analog beams that may be chosen, one a column"),
    "target_angles": Entry(("M",), "directions of the sensing targets, radians"),
    "target_gain": Entry(("M",), "complex reflection gains of the sensing targets"),
    "sensing_noise": Entry(("",), "noise power of the sensing receiver, watts"),
    "sensing_snr_target": Entry(("",), "sensing SNR that every target must have, linear"),
    "user_position": Entry(("KP",), "places of the users, metres"),
}
"""Everything that an observation may hold beside its network."""

LABELS: dict[str, Entry] = {
    "p": Entry(("K",), "the best powers known, watts"),
    "utility": Entry(("",), "the utility of these powers"),
    "certificate": Entry(("",), "the proof that no powers are better, a number of `beamforge.learned.links.labels`"),
}
"""What there is to learn from; no solver sees it."""


def checked(context: Mapping[str, Any], network: Network, names: Mapping[str, Entry]) -> dict[str, Any]:
    """The context with every name known and every tensor of a shape that its name may have.

    Raises `ConfigError` for an unknown name, with the nearest known one, and `ShapeError` for another shape.
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
    """Whether a tensor is [*batch, *axes]."""
    dims = len(network.batch_shape)
    known = all(sizes.get(axis, length) == length for axis, length in zip(axes, value.shape[dims:], strict=False))
    return value.ndim == dims + len(axes) and value.shape[:dims] == network.batch_shape and known
