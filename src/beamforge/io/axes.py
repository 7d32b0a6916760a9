"""Named axes of a channel array, and conversion from any order to the order of this library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from beamforge.core.errors import ShapeError

Array = TypeVar("Array", np.ndarray, Tensor)

AXES = {
    "B": "instances",
    "S": "time (more instances)",
    "F": "subcarriers",
    "T": "transmitters",
    "K": "users",
    "M": "receive antennas of a user",
    "N": "transmit antennas",
}
"""The letter of each axis."""

INSTANCES, NETWORK = "BSF", "TKMN"
"""Axes of instances, the last varies fastest, and axes of one network, in the order of this library."""


@dataclass(frozen=True)
class Axes:
    """The axes of an array, one letter each, in the array's order; `ShapeError` for invalid letters.

    >>> Axes("BKMTNSF").sizes((2, 3, 1, 1, 8, 14, 12))["F"]
    12
    """

    letters: str

    def __post_init__(self) -> None:
        known = " ".join(f"{letter} {words}," for letter, words in AXES.items()).rstrip(",")
        if not self.letters or set(self.letters) - AXES.keys():
            raise ShapeError(f"axes must be of the letters {known}; got {self.letters!r}")
        if len(set(self.letters)) < len(self.letters):
            raise ShapeError(f"axes must name every axis once, got {self.letters!r}")
        if not {"K", "N"} <= set(self.letters):
            raise ShapeError(f"axes must have K (users) and N (transmit antennas), got {self.letters!r}")

    def sizes(self, shape: Sequence[int]) -> dict[str, int]:
        """Length of each axis of an array of this shape; 1 for axes that it lacks."""
        if len(shape) != len(self.letters):
            came = f"{self.letters!r}" + (f"; try {' or '.join(options)}" if (options := readings(len(shape))) else "")
            raise ShapeError(f"axes must name the {len(shape)} axes of an array of shape {tuple(shape)}, got {came}")
        return dict.fromkeys(AXES, 1) | dict(zip(self.letters, shape, strict=True))

    @property
    def numbers_instances(self) -> bool:
        """Whether there is an axis of instances."""
        return bool(set(INSTANCES) & set(self.letters))

    @property
    def streams_in_rows(self) -> bool:
        """Whether the first axis is B, so that an array can be read a few instances at a time."""
        return self.letters[0] == "B"

    def arrange(self, array: Array) -> Array:
        """The array as [I, T, K, M, N]; instances in the order B, S, F, the last fastest; missing axes get length 1."""
        sizes = self.sizes(array.shape)
        order = [self.letters.index(letter) for letter in INSTANCES + NETWORK if letter in self.letters]
        moved = array.permute(order) if isinstance(array, Tensor) else array.transpose(order)
        instances = math.prod(sizes[letter] for letter in INSTANCES)
        return moved.reshape(instances, *(sizes[letter] for letter in NETWORK))


def from_axes(H: Array, axes: str) -> Array:
    """A channel array (NumPy or torch) with its axes in the order of this library.

    H     complex, any shape.
    axes  one letter per axis of H, in order: B instances, S time, F subcarriers, T transmitters, K users, M receive
          antennas, N transmit antennas.

    Returns [I, K, N], with T before K if there are several transmitters and M after K if users have several antennas.
    I numbers the instances in the order B, S, F, the last fastest; without an axis of instances, I is left out.

    >>> sionna = np.ones((2, 3, 1, 1, 8, 14, 12), complex)  # [batch, rx, rx_ant, tx, tx_ant, time, frequency]
    >>> from_axes(sionna, "BKMTNSF").shape
    (336, 3, 8)

    Raises `ShapeError` for axes that do not fit the array.
    """
    named = Axes(axes)
    arranged = named.arrange(H)
    _, T, _, M, _ = arranged.shape
    if M == 1:
        arranged = arranged[:, :, :, 0]
    if T == 1:
        arranged = arranged[:, 0]
    return arranged if named.numbers_instances else arranged[0]


def describe_sizes(sizes: Mapping[str, int], serving: str) -> str:
    """A description of channels, e.g. "4 instances of 3 interfering cells, 8 antennas".

    sizes    lengths by letter; B is the total number of instances and "rows" the length of axis B.
    serving  "own" if every transmitter serves its own user, else "".
    """
    users = f"{sizes['K']} user{'s' if sizes['K'] > 1 else ''}"
    if sizes["M"] > 1:
        users += f" with {sizes['M']} antennas each"
    if sizes["T"] == 1:
        network = f"{users}, {sizes['N']} transmit antenna{'s' if sizes['N'] > 1 else ''}"
    elif serving == "own":
        network = f"{sizes['K']} interfering cells, {sizes['N']} antenna{'s' if sizes['N'] > 1 else ''}"
    else:
        network = f"{sizes['T']} transmitters with {sizes['N']} antennas each, {users}"
    instances = f"{sizes['B']} instance{'s' if sizes['B'] > 1 else ''}"
    if folded := [f"{sizes[axis]} {name}" for axis, name in (("S", "times"), ("F", "subcarriers")) if sizes[axis] > 1]:
        instances += f" ({' x '.join([str(sizes['rows']), *folded])})"
    return f"{instances} of {network}"


def readings(ndim: int) -> list[str]:
    """Likely axes of an array with `ndim` dimensions, as values of ``--axes``, the likeliest first.

    >>> readings(4)
    ['BFKN', 'BSKN', 'BKMN', 'BTKN']
    """
    return {
        2: ["KN"],
        3: ["BKN", "TKN", "KMN"],
        4: ["BFKN", "BSKN", "BKMN", "BTKN"],
        5: ["BSFKN", "BTKMN", "BFTKN"],
        6: ["BKMTNF", "BSFTKN"],
        7: ["BKMTNSF"],
    }.get(ndim, [])
