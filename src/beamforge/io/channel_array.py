"""The channels of a file as [instances, T, K M, N], for any name, order of axes and form of complex numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from beamforge.core.errors import ChannelFileError
from beamforge.io.axes import Axes
from beamforge.io.stores import Store


@dataclass(frozen=True)
class ChannelArray:
    """Complex channels in a store; `ChannelFileError` for an array that cannot be read as complex channels.

    store      the file.
    name       the name of the array in the file.
    axes       one letter per axis (without the axis of real and imaginary parts).
    real_imag  the axis, of length two, of real and imaginary parts; None for complex numbers.
    """

    store: Store
    name: str
    axes: Axes
    real_imag: int | None = None

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Length of every axis by letter; B is the total number of instances, and "rows" the length of axis B."""
        sizes = self.axes.sizes(self._shape)
        rows = sizes["B"]
        return sizes | {"B": sizes["B"] * sizes["S"] * sizes["F"], "rows": rows}

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        """Shape without the axis of real and imaginary parts; MATLAB drops trailing lengths of one."""
        shape = list(padded(self.store, self.name, len(self.axes.letters) + (self.real_imag is not None)))
        if self.real_imag is not None:
            place = self._parts_axis
            if shape[place] != 2:
                raise ChannelFileError(
                    f"{self.store.path}: axis {self.real_imag} of {self.name} must have length 2, real and imaginary "
                    f"parts, got {shape[place]} in shape {tuple(shape)}"
                )
            del shape[place]
        return tuple(shape)

    @cached_property
    def _parts_axis(self) -> int:
        """The axis of real and imaginary parts, counted from the front."""
        assert self.real_imag is not None
        count = len(self.axes.letters) + 1
        if not -count <= self.real_imag < count:
            shape = self.store.headers[self.name].shape
            raise ChannelFileError(f"{self.store.path}: {self.name} of shape {shape} must have axis {self.real_imag}")
        return self.real_imag % count

    @property
    def dtype(self) -> np.dtype:
        """complex64 or complex128, whichever represents the file's numbers exactly."""
        return np.result_type(self.store.headers[self.name].dtype, np.complex64)

    def rows(self, first: int = 0, count: int | None = None) -> np.ndarray:
        """Instances first..first+count-1, [n, T, K M, N]."""
        sizes = self.sizes
        last = sizes["B"] if count is None else min(sizes["B"], first + count)
        each = sizes["B"] // max(1, sizes["rows"])
        in_rows = self.axes.streams_in_rows and not (self.real_imag is not None and self._parts_axis == 0)
        if in_rows and sizes["rows"] == self.store.headers[self.name].shape[0]:
            start = first // each
            raw = self.store.read(self.name, start, -(-last // each) - start)
            first, last = first - start * each, last - start * each
        else:
            raw = self._whole
        array = self.axes.arrange(self._joined(raw))[first:last]
        n, T, K, M, N = array.shape
        return np.ascontiguousarray(array.reshape(n, T, K * M, N))

    @cached_property
    def _whole(self) -> np.ndarray:
        """The whole array, unchanged."""
        return self.store.read(self.name)

    def _joined(self, raw: np.ndarray) -> np.ndarray:
        """The array as complex numbers, with the file's axes."""
        raw = raw.reshape(raw.shape + (1,) * (len(self.axes.letters) + (self.real_imag is not None) - raw.ndim))
        if self.real_imag is None:
            return raw.astype(self.dtype, copy=False)
        real, imag = np.moveaxis(raw, self._parts_axis, 0)
        return (real + 1j * imag.astype(self.dtype)).astype(self.dtype, copy=False)


def padded(store: Store, name: str, ndim: int) -> tuple[int, ...]:
    """The shape of an array, with the trailing lengths of one that MATLAB drops."""
    shape = store.headers[name].shape
    return shape + (1,) * (ndim - len(shape)) if store.matlab else shape


def looks_like_channels(store: Store) -> list[str]:
    """Names of arrays that may be channels: complex with at least two axes, or stacked real and imaginary parts."""
    found = []
    for name, header in store.headers.items():
        numbers = header.dtype.kind == "c" or (header.dtype.kind in "iuf" and 2 in header.shape)
        if numbers and len(header.shape) >= 2 and np.prod(header.shape) > 1:
            found.append(name)
    return sorted(found, key=lambda name: (store.headers[name].dtype.kind != "c", name))
