"""The keys of a channel file, with their axes and sizes, recognised before any instance is read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beamforge.core.errors import ChannelFileError, ShapeError
from beamforge.io.axes import Axes, describe_sizes, readings
from beamforge.io.channel_array import ChannelArray, looks_like_channels, padded
from beamforge.io.keys import (
    CHANNELS,
    DESCRIPTION,
    INTEGERS,
    PER_TRANSMITTER,
    PER_USER,
    SHAPES,
    axes_text,
    check_kind,
    fit,
    similar,
)
from beamforge.io.stores import NpyStore, open_store


class ChannelLayout:
    """Keys, axes and sizes of a channel file; `ChannelFile` describes the arguments and reads the instances.

    sizes     lengths by letter (see `beamforge.io.axes`), D streams; B is the total number of instances, "rows" the
              length of axis B.
    channels  the arrays ``H`` and ``H_estimate``.
    axes      the axes of every other key; arrays whose axes do not begin with B are shared by all instances.
    notes     notes for the user on how the file is read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        axes: str | None = None,
        key: str | None = None,
        real_imag: int | None = None,
        sensing: bool = False,
        **stated: float,
    ) -> None:
        self.path = Path(path)
        self.stated = {name: np.asarray(value, np.float64) for name, value in stated.items()}
        self.store = open_store(path)
        self.key, self.real_imag = key, real_imag
        self.sizes: dict[str, int] = {}
        self.channels: dict[str, ChannelArray] = {}
        self.axes: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.notes: list[str] = []
        try:
            self._recognise_channels(axes)
            for name in self.store.headers:
                self._recognise(name)
            for name in self.stated:
                self.axes[name], self.shapes[name] = "", ()
            if self._limits_each and {"p_max_transmitter"} <= self.stated.keys() and "p_max" not in self.stated:
                self.axes.pop("p_max", None)  # an option overrides the file, also if the file uses the other name
            self._check_whole()
            if sensing and self.sizes["T"] == 1 and "stream_user" not in self.axes:
                self.sizes["D"] = self.sizes["K"] + self.sizes["N"]
        except BaseException:
            self.store.close()
            raise

    # --- contents ----------------------------------------------------------------------------------------------------
    @property
    def count(self) -> int:
        """B, the instances in the file."""
        return self.sizes["B"]

    @property
    def main(self) -> str:
        """The key of the channels for evaluation: H, G, or H_estimate if there is no H."""
        return next(name for name in CHANNELS if name in self.channels or name in self.axes)

    @property
    def dtype(self) -> torch.dtype:
        """complex64 or complex128, the precision of the channels."""
        if self.main == "G":
            small = np.result_type(self.store.headers[self._raw("G")].dtype, np.float16).itemsize <= 4
            return torch.complex64 if small else torch.complex128
        return torch.complex64 if self.channels[self.main].dtype == np.complex64 else torch.complex128

    @property
    def instance_bytes(self) -> int:
        """Bytes of the channels, beams and gains between users of one instance."""
        T, K, M, N = (self.sizes[axis] for axis in "TKMN")
        return self.dtype.itemsize * (T * K * M * N + K * N + K * K)

    @property
    def meta(self) -> dict[str, Any]:
        """The key `meta` of the file; `ChannelFileError` unless it is a JSON object."""
        text = self.store.text("meta") if "meta" in self.store.headers else "{}"
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._error("meta", "a JSON object", repr(text[:40]))
        return found

    @property
    def read_as(self) -> str:
        """A description of the instances as they are read."""
        if self.main == "G":
            return f"{self.count} instance{'s' if self.count > 1 else ''} of {self.sizes['K']} links"
        own = self.sizes["T"] > 1 and "serving" not in self.axes
        return describe_sizes(self.sizes, "own" if own else "")

    def _raw(self, name: str) -> str:
        """The name in the file of the channels that this library calls `name`."""
        if isinstance(self.store, NpyStore):
            return next(iter(self.store.headers))
        return self.key if self.key and name in ("H", "G") else name

    def _recognise_channels(self, axes: str | None) -> None:
        """Find the channels, and sizes from them."""
        headers = self.store.headers
        if self.key is not None and self.key not in headers:
            known = ", ".join(sorted(headers)) or "no arrays"
            raise ChannelFileError(
                f"{self.path}: key must name an array of the file, got {self.key!r}; there are {known}"
            )
        single = self.key or (next(iter(headers)) if isinstance(self.store, NpyStore) else None)
        if single is not None:
            present = ["H" if self.real_imag is not None or headers[single].dtype.kind == "c" or axes else "G"]
        else:
            present = [name for name in CHANNELS if name in headers]
        if not present or (len(present) > 1 and "G" in present):
            came = " and ".join(present) or f"only {', '.join(sorted(headers)) or 'no arrays'}"
            like = [] if present else looks_like_channels(self.store)
            hint = f"; {' or '.join(like)} may be channels, read with --key {like[0]}" if like else ""
            expected = "given, complex [B, K, N] or [B, T, K, N], or else G, real [B, K, K]"
            raise self._error("H", expected, came + hint)
        if present == ["G"]:
            self._recognise_gains()
            return
        stated = axes or (self.store.text("axes") if "axes" in headers else None)
        for name in (each for each in ("H", "H_estimate") if each in present):
            self._recognise_array(name, stated)

    def _recognise_gains(self) -> None:
        raw = self._raw("G")
        shape = padded(self.store, raw, 3)
        good, expected = check_kind("G", self.store.headers[raw], matlab=self.store.matlab)
        if not good:
            raise self._error("G", f"{expected} [B, K, K]", self._came(raw))
        if len(shape) != 3 or shape[1] != shape[2]:
            raise self._error("G", "[B, K, K] (rx, tx)", f"shape {shape}")
        if 0 in shape:
            raise self._error("G", "non-empty", f"shape {shape}")
        self.axes["G"], self.shapes["G"] = "BKK", shape
        sizes = {"B": shape[0], "T": shape[1], "K": shape[1], "D": shape[1], "rows": shape[0]}
        self.sizes = {"M": 1, "N": 1, "S": 1, "F": 1, **sizes}

    def _recognise_array(self, name: str, stated: str | None) -> None:
        """Recognise channels under `H` or `H_estimate`, by the stated axes or by their number of dimensions."""
        raw = self._raw(name)
        header = self.store.headers[raw]
        good = header.dtype.kind in "iufc" if self.real_imag is not None else header.dtype.kind == "c"
        if not good or header.dtype.itemsize > 16:
            parts = [axis for axis, length in enumerate(header.shape) if length == 2]
            hint = f"; real and imaginary parts on an axis are read with --real-imag {parts[0]}" if parts else ""
            raise self._error(
                name, "complex64 or complex128", self._came(raw) + (hint if header.dtype.kind in "iuf" else "")
            )
        ndim = len(header.shape) - (self.real_imag is not None)
        letters = stated or {3: "BKN", 4: "BTKN"}.get(ndim)
        if letters is None:
            options = readings(len(header.shape)) if self.real_imag is None else []
            hint = (
                f"; name its axes, as --axes {' or --axes '.join(options)}"
                if options
                else "; name its axes with --axes"
            )
            raise self._error(name, "[B, K, N] or [B, T, K, N]", f"shape {header.shape}{hint}")
        try:
            found = ChannelArray(self.store, raw, Axes(letters), self.real_imag)
            sizes = found.sizes
        except ShapeError as error:
            raise ChannelFileError(f"{self.path}: {error}") from None
        if 0 in header.shape:
            raise self._error(name, "non-empty", f"shape {header.shape}")
        if self.sizes and any(sizes[axis] != self.sizes[axis] for axis in "BTKMN"):
            expected = f"like H, {' '.join(f'{axis} = {self.sizes[axis]}' for axis in 'BTKMN')}"
            raise self._error(name, expected, f"shape {header.shape}")
        self.channels[name] = found
        self.sizes = {"D": sizes["K"], **sizes}

    def _check_whole(self) -> None:
        """Check the keys that must be present beside the channels."""
        if "noise" not in self.axes:
            raise self._error("noise", "given in watts", "none")
        T, K = self.sizes["T"], self.sizes["K"]
        if "serving" not in self.axes and T not in (1, K):
            letters = self.channels[self.main].axes.letters
            others = [each for each in readings(len(letters)) if each != letters]
            hint = f"; if T does not count transmitters, state --axes {' or --axes '.join(others)}" if others else ""
            raise self._error("serving", "given unless T is 1 or K", f"none for T = {T} and K = {K}{hint}")
        both = "p_max" in self.axes and "p_max_transmitter" in self.axes
        if both and self._limits_each:
            raise self._error("p_max_transmitter", "left out where p_max limits each of several transmitters", "both")

    def _recognise(self, name: str) -> None:
        """Note the axes of a key that is read; `ChannelFileError` for a name that looks misspelt."""
        if name in CHANNELS or name in DESCRIPTION or name == self._raw("H"):
            return
        header = self.store.headers[name]
        if name not in SHAPES:
            if near := similar(name):
                raise ChannelFileError(f"{self.path}: unknown key {name!r}; did you mean {near!r}?")
            self.notes.append(f"key {name!r} of the file is unknown and not read")
            return
        if name in self.stated:
            return
        good, expected = check_kind(name, header, matlab=self.store.matlab)
        if not good:
            raise self._error(name, expected, self._came(name))
        if 0 in header.shape:
            raise self._error(name, "of at least one number", f"none: shape {header.shape}")
        if name in INTEGERS and "stream_user" in self.store.headers:
            streams = self.store.headers["stream_user"].shape
            vector = self.store.matlab and 1 in streams  # MATLAB stores a vector as a row or a column
            self.sizes["D"] = math.prod(streams) if vector else streams[-1] if streams else 0
        for axes in self._options(name):
            shape = self._fit(name, header.shape, axes)
            if shape is not None:
                self.axes[name], self.shapes[name] = axes, shape
                return
        expected = " or ".join(axes_text(axes, self.sizes) for axes in self._options(name))
        raise self._error(name, expected, f"shape {header.shape}{self._hint(name, header.shape)}")

    def _hint(self, name: str, shape: tuple[int, ...]) -> str:
        """A hint on the intended meaning of a shape that does not fit."""
        if name == "p_max" and self.main == "G" and shape[-1:] == (self.sizes["K"],):
            return "; a limit for each link is called p_max_transmitter"
        if name in PER_USER and shape == (self.count,):
            return f"; a number for each instance is [B, 1] = ({self.count}, 1)"
        return ""

    def _options(self, name: str) -> tuple[str, ...]:
        return PER_TRANSMITTER if name == "p_max" and self._limits_each else SHAPES[name]

    @property
    def _limits_each(self) -> bool:
        """Whether `p_max` limits each of several transmitters, not their total power."""
        return self.main != "G" and self.sizes["T"] > 1

    def _fit(self, name: str, shape: tuple[int, ...], axes: str) -> tuple[int, ...] | None:
        """The shape with these axes, or None. MATLAB has no vectors or scalars, and drops trailing lengths of one."""
        candidates = [shape]
        named_one = self.main != "G" and "T" in self.channels[self.main].axes.letters and self.sizes["T"] == 1
        if name == "p_max" and named_one and shape[-1:] == (1,):
            candidates.append(shape[:-1])  # with one transmitter, its limit is the total
        if self.store.matlab:
            candidates.append(shape + (1,) * (len(axes) - len(shape)))
            if len(shape) == 2 and 1 in shape:
                candidates.append((shape[0] * shape[1],))
            if shape == (1, 1):
                candidates.append(())
        for candidate in candidates:
            for instances in dict.fromkeys((self.count, self.sizes["rows"])):
                if fit(candidate, axes, self.sizes | {"B": instances}, loose=name in PER_USER):
                    return candidate
        return None

    def _came(self, name: str) -> str:
        header = self.store.headers[name]
        return "objects, which are never unpickled" if header.dtype.hasobject else f"{header.dtype} {header.shape}"

    def _error(self, name: str, expected: str, got: object) -> ChannelFileError:
        where = "" if name in self.stated else f"{self.path}: "
        return ChannelFileError(f"{where}{name} must be {expected}, got {got}")
