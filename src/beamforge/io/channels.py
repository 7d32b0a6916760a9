"""Channel files: what their keys mean, how instances are read from them piece by piece, and written to them."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from beamforge.core.context import CONTEXT, LABELS
from beamforge.core.errors import ChannelFileError
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.io.stores import Header, open_store
from beamforge.io.writers import open_writer

CHUNK_BYTES = 4 << 20
"""Channels and beams held at once when a file is read in chunks; methods need some tens of times as much."""

SHAPES = {
    "H": ("BKN", "BTKN"),
    "H_estimate": ("BKN", "BTKN"),
    "G": ("BKK",),
    "noise": ("", "K", "BK"),
    "weights": ("", "K", "BK"),
    "sinr_target": ("", "K", "BK"),
    "p_max": ("", "B"),
    "jain": ("", "B"),
    "p_max_antenna": ("N", "TN", "BTN"),
    "serving": ("K", "BK"),
    "csi_quality": ("B", "BK"),
    "covariance": ("BKNN",),
    "target_angles": ("BM",),
    "target_gain": ("BM",),
}
"""Shapes each key may have, the fullest last: B instances, T transmitters, K users, N antennas; M is free."""

PER_TRANSMITTER = ("", "T", "BT")
"""Shapes of `p_max` where there are several transmitters."""

CHANNELS = ("H", "H_estimate", "G")
COMPLEX = ("H", "H_estimate", "covariance", "target_gain")
POSITIVE = {"noise": "positive watts", "p_max": "positive watts", "p_max_antenna": "positive watts"}
POSITIVE |= {"sinr_target": "positive"}
NONNEGATIVE = ("G", "weights", "csi_quality")


class ChannelFile:
    """Instances in an `.npz`, `.h5` or `.mat` file, read in whatever pieces are asked for. Use it in a ``with``.

    Keys: ``H`` complex [B, K, N] or [B, T, K, N], or ``G`` real [B, K, K]; ``noise`` (scalar, [K] or [B, K]);
    optionally ``weights``, ``sinr_target`` ([K] or [B, K]), ``p_max`` (the total for one transmitter and for G,
    scalar or [B]; the limit of each of several transmitters, scalar, [T] or [B, T]), ``p_max_antenna`` ([N], [T, N] or
    [B, T, N]), ``serving`` ([K] or [B, K]), ``H_estimate``, ``csi_quality``, ``covariance``, ``target_angles``,
    ``target_gain`` and ``meta``, a JSON string. Watts and linear ratios. One-dimensional noise, weights and
    targets are per user, never per instance. Any other array of numbers that leads with B is passed on in the context
    under its own name.

    MATLAB drops trailing dimensions of length one, so its files cannot hold `H` with N = 1: give G instead.

    stated  replaces what the file says, by key: noise, p_max, sinr_target.

    Sizes and what all instances share are checked at once, data of instances where they are read, or all by `scan`.
    Raises `ChannelFileError`: the key, what was expected and what came.

    >>> write_channels("downlink.npz", Instance.perfect(Network.broadcast(torch.ones(5, 2, 3) + 0j, noise=0.1)))
    >>> with ChannelFile("downlink.npz", p_max=1.0) as channels:
    ...     instance = channels.read(first=1, count=2)
    >>> instance.truth.H.shape, instance.context["p_max"].tolist()
    (torch.Size([2, 1, 2, 3]), [1.0, 1.0])
    """

    def __init__(self, path: str | Path, **stated: float) -> None:
        self.path = Path(path)
        self.stated = {name: np.asarray(value, np.float64) for name, value in stated.items()}
        self.store = open_store(path)
        self.sizes: dict[str, int] = {}
        self.axes: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        try:
            self._recognise_channels()
            for name in self.store.headers:
                self._recognise(name)
            for name in self.stated:
                self.axes[name], self.shapes[name] = "", ()
            self.shared = {name: self._load(name) for name in self.axes if not self.axes[name].startswith("B")}
            if "noise" not in self.axes:
                raise self._error("noise", "given in watts, by the file or as an option", "none")
            if "serving" not in self.axes and self.sizes["T"] not in (1, self.sizes["K"]):
                sizes = f"none for T = {self.sizes['T']} and K = {self.sizes['K']}"
                raise self._error("serving", "given unless T is 1 or K", sizes)
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
        return next(name for name in CHANNELS if name in self.axes)

    @property
    def dtype(self) -> torch.dtype:
        """complex64 or complex128, the precision of the channels."""
        found = self.store.headers[self.main].dtype
        return torch.complex64 if found.itemsize == (4 if found.kind == "f" else 8) else torch.complex128

    @property
    def instance_bytes(self) -> int:
        """Bytes of one instance's channels, beams and gains between users."""
        T, K, N = (self.sizes[axis] for axis in "TKN")
        return self.dtype.itemsize * (T * K * N + K * N + K * K)

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

    def _recognise_channels(self) -> None:
        """Sizes, from the channels."""
        present = [name for name in CHANNELS if name in self.store.headers]
        if not present or (len(present) > 1 and "G" in present):
            came = " and ".join(present) or f"only {', '.join(sorted(self.store.headers)) or 'no arrays'}"
            raise self._error("H", "given, complex [B, K, N] or [B, T, K, N], or else G, real [B, K, K]", came)
        name = present[0]
        self._recognise(name)
        if 0 in self.shapes[name]:
            raise self._error(name, "non-empty", f"shape {self.shapes[name]}")
        self.sizes = dict(zip(self.axes[name], self.shapes[name], strict=True))
        self.sizes = {"T": self.sizes["K"] if name == "G" else 1, "N": 1} | self.sizes

    def _recognise(self, name: str) -> None:
        """Note a key's axes if it is one to be read; refuse what looks like a slip of the pen."""
        header = self.store.headers[name]
        if name in SHAPES and name not in self.stated:
            self._check_kind(name, header)
            for axes in self._options(name):
                shape = self._fit(name, header.shape, axes)
                if shape is not None:
                    self.axes[name], self.shapes[name] = axes, shape
                    return
            expected = " or ".join(self._describe(axes) for axes in self._options(name))
            raise self._error(name, expected, f"shape {header.shape}")
        if name not in (*SHAPES, "meta"):
            if near := difflib.get_close_matches(name, [*SHAPES, "meta"], n=1, cutoff=0.8):
                raise ChannelFileError(f"{self.path}: unknown key {name!r}; did you mean {near[0]!r}?")
            if header.dtype.kind in "iufc" and header.shape[:1] == (self.count,):
                self.axes[name], self.shapes[name] = "B" + "." * (len(header.shape) - 1), header.shape

    def _check_kind(self, name: str, header: Header) -> None:
        kind, size = header.dtype.kind, header.dtype.itemsize
        if name in ("H", "H_estimate"):
            good, expected = kind == "c" and size in (8, 16), "complex64 or complex128"
        elif name == "G":
            good, expected = kind == "f" and size in (4, 8), "float32 or float64"
        elif name == "serving":
            good, expected = kind in "iu" or (kind == "f" and self.store.matlab), "integers"
        elif name in COMPLEX:
            good, expected = kind in "iufc", "numbers"
        else:
            good, expected = kind in "iuf", "real numbers"
        if not good:
            came = "objects, which are never unpickled" if header.dtype.hasobject else f"{header.dtype} {header.shape}"
            raise self._error(name, expected, came)

    def _options(self, name: str) -> tuple[str, ...]:
        return PER_TRANSMITTER if name == "p_max" and self._limits_each else SHAPES[name]

    @property
    def _limits_each(self) -> bool:
        """`p_max` limits each of several transmitters, not their total."""
        return self.main != "G" and self.sizes["T"] > 1

    def _fit(self, name: str, shape: tuple[int, ...], axes: str) -> tuple[int, ...] | None:
        """The shape as these axes, or None. MATLAB has no vectors or scalars, and drops trailing lengths of one."""
        candidates = [shape]
        if name == "p_max" and self.sizes["T"] == 1 and "T" in self.axes[self.main] and shape[-1:] == (1,):
            candidates.append(shape[:-1])  # the limit of the one transmitter is the total
        if self.store.matlab and name not in CHANNELS:
            candidates.append(shape + (1,) * (len(axes) - len(shape)))
            if len(shape) == 2 and 1 in shape:
                candidates.append((shape[0] * shape[1],))
            if shape == (1, 1):
                candidates.append(())
        for candidate in candidates:
            sizes = dict(self.sizes)
            if len(candidate) == len(axes):
                if all(sizes.setdefault(axis, length) == length for axis, length in zip(axes, candidate, strict=True)):
                    return candidate
        return None

    def _describe(self, axes: str) -> str:
        """Axes in words, with their lengths where they are known."""
        lengths = f" = ({', '.join(str(self.sizes.get(axis, axis)) for axis in axes)})" if self.sizes else ""
        return f"[{', '.join(axes)}]{lengths}" if axes else "a scalar"

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
            if name == "serving":
                return value.to(device, torch.long)
            return value.to(device, dtype if name in COMPLEX or value.is_complex() else dtype.to_real())

        def side(name: str) -> Tensor:
            """What instances, users or transmitters share is repeated for each instance."""
            value = tensor(name)
            if name not in self.shared:
                return value
            return value.expand(size, *(self.sizes[axis] for axis in self._options(name)[-1][1:]))

        noise = side("noise")
        if self.main == "G":
            truth = seen = Network.power_control(tensor("G"), noise)
        else:
            each = torch.arange(self.sizes["K"], device=device).remainder(self.sizes["T"])
            serving = side("serving") if "serving" in self.axes else each
            truth = self._network(tensor(self.main), noise, serving)
            seen = truth
            if self.main == "H" and "H_estimate" in self.axes:
                seen = self._network(tensor("H_estimate"), noise, serving)
        renamed = {"p_max": "p_max_transmitter"} if self._limits_each else {}
        context = {renamed.get(name, name): side(name) for name in arrays if name in CONTEXT}
        return Instance.estimated(truth, seen, {name: side(name) for name in arrays if name in LABELS}, **context)

    @staticmethod
    def _network(H: Tensor, noise: Tensor, serving: Tensor) -> Network:
        return Network.multicell(H.unsqueeze(1) if H.ndim == 3 else H, noise, serving)

    def arrays(self, first: int = 0, count: int | None = None) -> dict[str, np.ndarray]:
        """Every key's array for a range of instances, checked; those that all instances share are as in the file."""
        varying = [name for name in self.axes if name not in self.shared]
        return self.shared | {name: self._load(name, first, count) for name in varying}

    def _load(self, name: str, first: int = 0, count: int | None = None) -> np.ndarray:
        """An array, or the rows of a range of instances, finite and in its domain."""
        shape, varies = self.shapes[name], self.axes[name].startswith("B")
        if name in self.stated:
            value = self.stated[name]
        elif varies and self.store.headers[name].shape[0] == self.count:
            value = self.store.read(name, first, count).reshape(-1, *shape[1:])
        else:
            value = self.store.read(name).reshape(shape)
            value = value[first : None if count is None else first + count] if varies else value
        for wrong, expected in self._faults(name, value):
            if wrong.any():
                place = tuple(np.argwhere(wrong)[0])
                where = f" in instance {first + int(place[0])}" if varies else ""
                raise self._error(name, expected, f"{value[place]}{where}")
        return value

    def _faults(self, name: str, value: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
        """Where a value breaks each of the rules that its key has."""
        yield ~np.isfinite(value), "finite"
        if name in POSITIVE:
            yield ~(value > 0), POSITIVE[name]
        if name in NONNEGATIVE:
            yield value < 0, "non-negative"
        if name == "serving" and self.main == "G":
            yield value != np.arange(self.sizes["K"]), "left out or 0..K-1 with G"
        elif name == "serving":
            outside = (value < 0) | (value >= self.sizes["T"]) | (value != np.floor(value))
            yield outside, f"integers 0..{self.sizes['T'] - 1}"

    def chunks(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """(first, count) of pieces from instance `start` to the end, each as large as fits in `CHUNK_BYTES`."""
        size = max(1, CHUNK_BYTES // self.instance_bytes)
        for first in range(start, self.count, size):
            yield first, min(size, self.count - first)

    def scan(self) -> str:
        """Check every number of the file, and return a hash of all that instances are made of."""
        digests = {name: hashlib.blake2b(f"{name} {self.shapes[name]}".encode()) for name in self.axes}
        for name, value in self.shared.items():
            digests[name].update(repr((str(value.dtype), value.tolist())).encode())
        for first, count in self.chunks():
            for name, value in self.arrays(first, count).items():
                if name not in self.shared:
                    digests[name].update(value.reshape(-1).view(np.uint8).data)
        return hashlib.blake2b(b"".join(digests[name].digest() for name in sorted(digests))).hexdigest()

    def close(self) -> None:
        """Release the file."""
        self.store.close()

    def __enter__(self) -> ChannelFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- writing ---------------------------------------------------------------------------------------------------------
def write_channels(path: str | Path, instance: Instance, **meta: Any) -> None:
    """Write a batch [B] of instances as `.npz` or `.h5`; `meta` is kept as JSON. Nothing half-written stays behind.

    Raises `ChannelFileError` if the path cannot be written, or for what a channel file cannot state.
    """
    rows = channel_arrays(instance)
    shared = common(rows)
    rows = {name: value for name, value in rows.items() if name not in shared}
    count = instance.truth.batch_shape[0]
    with open_writer(path, count, sum(value.nbytes for value in rows.values()) // count) as writer:
        writer.append(rows)
        writer.finish(**shared, meta=json.dumps(meta))


def channel_arrays(instance: Instance) -> dict[str, np.ndarray]:
    """A batch [B] of instances by the keys of a file, each leading with B.

    A single-antenna network of real amplitudes, transmitter k for user k, is given as its gains G.
    """
    truth, context = instance.truth, dict(instance.context)
    if len(truth.batch_shape) != 1:
        raise ChannelFileError(f"instances must have one batch dimension, got {tuple(truth.batch_shape)}")
    alone = torch.arange(truth.users, device=truth.H.device)
    single = truth.antennas == 1 and truth.transmitters == truth.users
    gains = single and bool((truth.streams.transmitter == alone).all() and (truth.H.imag == 0).all())
    found: dict[str, Tensor] = {}
    if gains:
        found["G"] = truth.gains
    else:
        found["H"] = truth.H.squeeze(1)
        if instance.observation.network is not truth:
            found["H_estimate"] = instance.observation.network.H.squeeze(1)
        if truth.transmitters > 1:
            found["serving"] = truth.streams.transmitter
    each = truth.transmitters > 1 and not gains
    if ("p_max" if each else "p_max_transmitter") in context and truth.transmitters > 1:
        expected = "the limit of each transmitter" if each else "the total over the transmitters of G"
        raise ChannelFileError(f"p_max of a file must be {expected}, got an instance that states the other")
    if "p_max_transmitter" in context:
        limit = context.pop("p_max_transmitter")
        context["p_max"] = limit if each else limit.squeeze(-1)
    found |= {"noise": truth.noise, **context, **instance.labels}
    return {name: value.resolve_conj().detach().cpu().numpy() for name, value in found.items()}


def common(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Noise and power limit as scalars, where they are the same everywhere."""
    same = [name for name in ("noise", "p_max") if name in arrays and (arrays[name] == arrays[name].flat[0]).all()]
    return {name: arrays[name].flat[0] for name in same}
