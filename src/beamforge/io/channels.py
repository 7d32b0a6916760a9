"""Channel files: how instances are read from them, piece by piece."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from beamforge.core.context import CONTEXT, LABELS
from beamforge.core.errors import ChannelFileError, ShapeError
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.io.axes import Axes, readings, words
from beamforge.io.channel_array import ChannelArray, looks_like_channels, padded
from beamforge.io.keys import (
    CHANNELS,
    COMPLEX,
    DESCRIPTION,
    INTEGERS,
    LIMITS,
    PER_TRANSMITTER,
    PER_USER,
    SHAPES,
    check_kind,
    described,
    faults,
    fit,
    similar,
)
from beamforge.io.stores import NpyStore, open_store

CHUNK_BYTES = 4 << 20
"""Channels and beams held at once when a file is read in chunks; methods need some tens of times as much."""


class ChannelFile:
    """Instances in an `.npz`, `.npy`, `.h5` or `.mat` file, read in any pieces. Use it in a ``with``.

    Keys: ``H`` complex [B, K, N] or [B, T, K, N], or with axes as ``axes`` names them (see `beamforge.io.axes`); or
    ``G`` real [B, K, K]; ``noise`` (scalar, [K] or [B, K]); optionally ``weights``, ``sinr_target`` ([K] or [B, K]),
    ``p_max`` (the total for one transmitter and for G, scalar or [B]; the limit of each of several transmitters,
    scalar, [T] or [B, T]), ``p_max_transmitter`` ([T] or [B, T]; one a link for G), ``p_max_antenna`` ([N], [T, N] or
    [B, T, N]), ``serving`` and ``stream_user`` ([D] or [B, D]), ``H_estimate``, ``csi_quality``, ``covariance``,
    ``target_angles``, ``target_gain``, ``sensing_noise``, ``codebook`` and ``meta``, a JSON string. Watts and linear
    ratios. One-dimensional noise, weights and targets are per user, never per instance.

    MATLAB drops trailing dimensions of length one, so its files cannot hold `H` with N = 1 without ``axes``.

    axes       instead of the file's: a letter an axis of H.
    key        the name of the channels, if it is not H or G; fields of structs and groups as ``dataset.H``.
    real_imag  the axis of H, of length two, that has real and imaginary parts.
    stated     replaces what the file says, by key: noise, p_max, p_max_transmitter, sinr_target.

    With S and F among the axes, arrays that lead with B may have the file's B or all B S F instances; F subcarriers
    share the power limits equally.

    Sizes and what all instances share are checked at once, data of instances where they are read, or all by `scan`.
    Raises `ChannelFileError`: the key, what was expected and what came.

    >>> from beamforge.io.channel_writing import write_channels
    >>> write_channels("downlink.npz", Instance.perfect(Network.broadcast(torch.ones(5, 2, 3) + 0j, noise=0.1)))
    >>> with ChannelFile("downlink.npz", p_max=1.0) as channels:
    ...     instance = channels.read(first=1, count=2)
    >>> instance.truth.H.shape, instance.context["p_max"].tolist()
    (torch.Size([2, 1, 2, 3]), [1.0, 1.0])
    """

    def __init__(
        self,
        path: str | Path,
        *,
        axes: str | None = None,
        key: str | None = None,
        real_imag: int | None = None,
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
                self.axes.pop("p_max", None)  # an option goes before what the file says, under whatever name
            self.shared = {name: self._load(name) for name in self.axes if not self.axes[name].startswith("B")}
            self._check_whole()
        except BaseException:
            self.store.close()
            raise

    # --- what there is -----------------------------------------------------------------------------------------------
    @property
    def count(self) -> int:
        """B, the instances in the file."""
        return self.sizes["B"]

    @property
    def main(self) -> str:
        """The key that beams are scored on: H, G, or H_estimate where there is no H."""
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
        """Bytes of one instance's channels, beams and gains between users."""
        T, K, M, N = (self.sizes[axis] for axis in "TKMN")
        return self.dtype.itemsize * (T * K * M * N + K * N + K * K)

    @property
    def meta(self) -> dict[str, Any]:
        """What the file tells of itself; `ChannelFileError` unless it is a JSON object."""
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
        """What was read, in words."""
        if self.main == "G":
            return f"{self.count} instance{'s' if self.count > 1 else ''} of {self.sizes['K']} links"
        own = self.sizes["T"] > 1 and "serving" not in self.axes
        return words(self.sizes, "own" if own else "")

    def _raw(self, name: str) -> str:
        """The name in the file of the channels that the library knows by this one."""
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
        """Channels under `H` or `H_estimate`, by the axes stated or by their number of dimensions."""
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
        """What must be there beside the channels."""
        if "noise" not in self.axes:
            raise self._error("noise", "given in watts, by the file or as an option", "none")
        T, K = self.sizes["T"], self.sizes["K"]
        if "serving" not in self.axes and T not in (1, K):
            letters = self.channels[self.main].axes.letters
            others = [each for each in readings(len(letters)) if each != letters]
            hint = f"; if T are no transmitters, name the axes: --axes {' or --axes '.join(others)}" if others else ""
            raise self._error("serving", "given unless T is 1 or K", f"none for T = {T} and K = {K}{hint}")
        both = "p_max" in self.axes and "p_max_transmitter" in self.axes
        if both and self._limits_each:
            raise self._error("p_max_transmitter", "left out where p_max limits each of several transmitters", "both")

    def _recognise(self, name: str) -> None:
        """Note a key's axes if it is one to be read; refuse what looks like a slip of the pen."""
        if name in CHANNELS or name in DESCRIPTION or name == self._raw("H"):
            return
        header = self.store.headers[name]
        if name not in SHAPES:
            if near := similar(name):
                raise ChannelFileError(f"{self.path}: unknown key {name!r}; did you mean {near!r}?")
            self.notes.append(f"key {name!r} of the file means nothing here and is not read")
            return
        if name in self.stated:
            return
        good, expected = check_kind(name, header, matlab=self.store.matlab)
        if not good:
            raise self._error(name, expected, self._came(name))
        if name == "stream_user":
            self.sizes["D"] = header.shape[-1] if header.shape else 0
        for axes in self._options(name):
            shape = self._fit(name, header.shape, axes)
            if shape is not None:
                self.axes[name], self.shapes[name] = axes, shape
                return
        expected = " or ".join(described(axes, self.sizes) for axes in self._options(name))
        raise self._error(name, expected, f"shape {header.shape}{self._hint(name, header.shape)}")

    def _hint(self, name: str, shape: tuple[int, ...]) -> str:
        """What a shape that does not fit may have meant."""
        if name == "p_max" and self.main == "G" and shape[-1:] == (self.sizes["K"],):
            return "; a limit for each link is called p_max_transmitter"
        if name in PER_USER and shape == (self.count,):
            return f"; a number for each instance is [B, 1] = ({self.count}, 1)"
        return ""

    def _options(self, name: str) -> tuple[str, ...]:
        return PER_TRANSMITTER if name == "p_max" and self._limits_each else SHAPES[name]

    @property
    def _limits_each(self) -> bool:
        """`p_max` limits each of several transmitters, not their total."""
        return self.main != "G" and self.sizes["T"] > 1

    def _fit(self, name: str, shape: tuple[int, ...], axes: str) -> tuple[int, ...] | None:
        """The shape as these axes, or None. MATLAB has no vectors or scalars, and drops trailing lengths of one."""
        candidates = [shape]
        named_one = self.main != "G" and "T" in self.channels[self.main].axes.letters and self.sizes["T"] == 1
        if name == "p_max" and named_one and shape[-1:] == (1,):
            candidates.append(shape[:-1])  # the limit of the one transmitter is the total
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

    # --- reading -----------------------------------------------------------------------------------------------------
    def read(
        self,
        first: int = 0,
        count: int | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> Instance:
        """Instances first..first+count-1 (all by default) as one batch, in the file's precision unless `dtype` says."""
        arrays = self.arrays(first, count)
        dtype = dtype or self.dtype
        size = len(arrays[self.main])

        def tensor(name: str) -> Tensor:
            value = torch.from_numpy(np.require(arrays[name], requirements="W"))
            if name in INTEGERS:
                return value.to(device, torch.long)
            found = value.to(device, dtype if name in COMPLEX or value.is_complex() else dtype.to_real())
            if name == "noise" and not (found > 0).all():
                least = f"{value[found <= 0].flatten()[0].item():g}"
                raise self._error("noise", "a number that single precision can hold, or --precision 64", least)
            return found

        def side(name: str) -> Tensor:
            """What instances, users or transmitters share is repeated for each instance."""
            value, axes = tensor(name), self._options(name)[-1][1:]
            lengths = [self.sizes.get(axis) or value.shape[place - len(axes)] for place, axis in enumerate(axes)]
            return value.expand(size, *lengths)

        noise = side("noise")
        if self.main == "G":
            truth = seen = Network.power_control(tensor("G"), noise)
        else:
            streams = {name: side(name) for name in ("serving", "stream_user") if name in self.axes}
            truth = seen = self._network(tensor(self.main), noise, **streams)
            if self.main == "H" and "H_estimate" in self.channels:
                seen = self._network(tensor("H_estimate"), noise, **streams)
        renamed = {"p_max": "p_max_transmitter"} if self._limits_each else {}
        context = {renamed.get(name, name): side(name) for name in arrays if name in CONTEXT}
        return Instance.estimated(truth, seen, {name: side(name) for name in arrays if name in LABELS}, **context)

    def _network(
        self, H: Tensor, noise: Tensor, serving: Tensor | None = None, stream_user: Tensor | None = None
    ) -> Network:
        T, K, M = (self.sizes[axis] for axis in "TKM")
        if T == 1 and serving is None:
            return Network.broadcast(H.squeeze(1), noise, stream_user=stream_user, receive_antennas=M)
        if serving is None:
            serving = torch.arange(K, device=H.device).remainder(T)
        return Network.multicell(H, noise, serving, stream_user, M)

    def arrays(self, first: int = 0, count: int | None = None) -> dict[str, np.ndarray]:
        """Every key's array for a range of instances, checked; those that all instances share are as in the file.

        Channels are [n, T, K M, N].
        """
        varying = [name for name in self.axes if name not in self.shared]
        channels = {name: self._load(name, first, count) for name in self.channels}
        return channels | self.shared | {name: self._load(name, first, count) for name in varying}

    def _load(self, name: str, first: int = 0, count: int | None = None) -> np.ndarray:
        """An array, or the rows of a range of instances, finite and in its domain."""
        varies = name in self.channels or self.axes[name].startswith("B")
        value = self._values(name, first, count)
        for wrong, expected in faults(name, value, self.sizes, gains=self.main == "G"):
            if wrong.any():
                place = tuple(np.argwhere(wrong)[0])
                where = f" in instance {first + int(place[0])}" if varies else ""
                raise self._error(name, expected, f"{value[place]}{where}")
        return value / self.sizes["F"] if name in LIMITS and self.sizes["F"] > 1 else value

    def _values(self, name: str, first: int, count: int | None) -> np.ndarray:
        """An array as it is, or its rows for a range of instances."""
        if name in self.stated:
            return self.stated[name]
        if name in self.channels:
            return self.channels[name].rows(first, count)
        shape, raw = self.shapes[name], self._raw(name) if name == "G" else name
        if self.axes[name].startswith("B"):
            last = self.count if count is None else min(self.count, first + count)
            each = self.count // shape[0] if shape[0] > 1 else self.count  # instances that share a row
            start, stop = first // each, -(-last // each)
            if self.store.headers[raw].shape[:1] == shape[:1]:
                value = self.store.read(raw, start, stop - start).reshape(-1, *shape[1:])
            else:
                value = self.store.read(raw).reshape(shape)[start:stop]
            value = value.repeat(each, 0)[first - start * each : last - start * each]
        else:
            value = self.store.read(raw).reshape(shape)
        return (
            value.astype(np.float64) if value.dtype.kind in "iub" and name not in ("serving", "stream_user") else value
        )

    def chunks(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """(first, count) of pieces from instance `start` to the end, each as large as fits in `CHUNK_BYTES`."""
        size = max(1, CHUNK_BYTES // self.instance_bytes)
        for first in range(start, self.count, size):
            yield first, min(size, self.count - first)

    def scan(self) -> str:
        """Check every number of the file, note what is odd, and return a hash of all that instances are made of."""
        digests = {name: hashlib.blake2b(f"{name} {self.shapes[name]}".encode()) for name in self.axes}
        digests |= {name: hashlib.blake2b(f"{name} {self.sizes}".encode()) for name in self.channels}
        for name, value in self.shared.items():
            digests[name].update(repr((str(value.dtype), value.tolist())).encode())
        blocked = Blocked()
        for first, count in self.chunks():
            arrays = self.arrays(first, count)
            for name, value in arrays.items():
                if name not in self.shared:
                    digests[name].update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
            blocked.look(self.read(first, count, dtype=torch.complex128).truth, first)
        self.notes += blocked.words(gains=self.main == "G")
        return hashlib.blake2b(b"".join(digests[name].digest() for name in sorted(digests))).hexdigest()

    def close(self) -> None:
        """Release the file."""
        self.store.close()

    def __enter__(self) -> ChannelFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Blocked:
    """Counts the users that no stream can reach."""

    def __init__(self) -> None:
        self.users = self.count = 0
        self.first = ""

    def look(self, network: Network, first: int) -> None:
        """Count those of a batch [B] whose first instance has this number in the file."""
        found = ~network.reachable
        self.users += found.numel()
        self.count += int(found.sum())
        if found.any() and not self.first:
            instance, user = found.nonzero()[0].tolist()
            self.first = f"user {user} of instance {first + instance}"

    def words(self, *, gains: bool) -> list[str]:
        """What there is to be said of them."""
        if gains and self.count == self.users:
            return ["no link has a direct gain: the diagonal of G is zero"]
        if self.count:
            has = "user has" if self.count == 1 else f"of {self.users} users have"
            return [f"{self.count} {has} no channel, the first is {self.first}"]
        return []
