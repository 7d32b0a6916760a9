"""Reads instances from channel files, in pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from beamforge.core.context import CONTEXT, LABELS
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.io.blocked_users import BlockedUsers
from beamforge.io.channel_layout import ChannelLayout
from beamforge.io.keys import (
    COMPLEX,
    INTEGERS,
    LIMITS,
    faults,
    indefinite,
)

CHUNK_BYTES = 4 << 20
"""Bytes of channels and beams per chunk when a file is read in chunks; methods need some tens of times as much."""


class ChannelFile(ChannelLayout):
    """Instances in an `.npz`, `.npy`, `.h5` or `.mat` file, read in pieces of any size. Use it in a ``with``.

    Keys: ``H`` complex [B, K, N] or [B, T, K, N], or with axes as ``axes`` names them (see `beamforge.io.axes`); or
    ``G`` real [B, K, K]; ``noise`` (scalar, [K] or [B, K]); optionally ``weights``, ``sinr_target`` ([K] or [B, K]),
    ``p_max`` (the total for one transmitter and for G, scalar or [B]; the limit of each of several transmitters,
    scalar, [T] or [B, T]), ``p_max_transmitter`` ([T] or [B, T]; one a link for G), ``p_max_antenna`` ([N], [T, N] or
    [B, T, N]), ``serving`` and ``stream_user`` ([D] or [B, D]), ``H_estimate``, ``csi_quality``, ``covariance``,
    ``target_angles`` and ``target_gain`` ([B, M]), ``sensing_noise`` and ``sensing_snr_target`` (scalar or [B]),
    ``codebook`` and ``meta``, a JSON string. Watts and linear ratios. One-dimensional noise, weights and targets are
    per user, never per instance.

    MATLAB drops trailing dimensions of length one, so its files cannot hold `H` with N = 1 without ``axes``.

    axes       one letter per axis of H; overrides the key of the file.
    key        the name of the channels, if it is not H or G; fields of structs and groups as ``dataset.H``.
    real_imag  the axis of H, of length two, of real and imaginary parts.
    sensing    adds N sensing streams to those of one transmitter, if the file states no streams.
    stated     values that override those of the file, by key: noise, p_max, p_max_transmitter, sinr_target,
               sensing_snr_target.

    With S and F among the axes, the first axis of an array [B, ...] has the length of the file's axis B or all B S F
    instances; F subcarriers share the power limits equally.

    Sizes and arrays that all instances share are checked on opening, data of instances when read, or all by `scan`.
    Raises `ChannelFileError` with the key, the expected and the received value.

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
        sensing: bool = False,
        **stated: float,
    ) -> None:
        super().__init__(path, axes=axes, key=key, real_imag=real_imag, sensing=sensing, **stated)
        try:
            self.shared = {name: self._load(name) for name in self.axes if not self.axes[name].startswith("B")}
        except BaseException:
            self.store.close()
            raise

    # --- reading -----------------------------------------------------------------------------------------------------
    def read(
        self,
        first: int = 0,
        count: int | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> Instance:
        """Instances first..first+count-1 (all by default) as one batch, by default in the precision of the file."""
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
            """An array with numbers that instances, users or transmitters share repeated for each."""
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
            added = 0 if stream_user is not None or M > 1 else self.sizes["D"] - K
            return Network.broadcast(H.squeeze(1), noise, added, stream_user, M)
        if serving is None:
            serving = torch.arange(K, device=H.device).remainder(T)
        return Network.multicell(H, noise, serving, stream_user, M)

    def arrays(self, first: int = 0, count: int | None = None) -> dict[str, np.ndarray]:
        """The checked arrays of all keys for a range of instances; those that all instances share as in the file.

        Channels are [n, T, K M, N].
        """
        varying = [name for name in self.axes if name not in self.shared]
        channels = {name: self._load(name, first, count) for name in self.channels}
        return channels | self.shared | {name: self._load(name, first, count) for name in varying}

    def _load(self, name: str, first: int = 0, count: int | None = None) -> np.ndarray:
        """An array, or its rows for a range of instances, checked to be finite and in its domain."""
        varies = name in self.channels or self.axes[name].startswith("B")
        value = self._values(name, first, count)
        for wrong, expected in faults(name, value, self.sizes, gains=self.main == "G"):
            if wrong.any():
                place = tuple(np.argwhere(wrong)[0])
                where = f" in instance {first + int(place[0])}" if varies else ""
                raise self._error(name, expected, f"{value[place]}{where}")
        if name == "covariance" and (found := indefinite(value)):
            expected = "E[h h^H] of each user, Hermitian and positive semidefinite"
            raise self._error(name, expected, f"{found[1]} in instance {first + found[0]}")
        return value / self.sizes["F"] if name in LIMITS and self.sizes["F"] > 1 else value

    def _values(self, name: str, first: int, count: int | None) -> np.ndarray:
        """An array, or its rows for a range of instances, unchecked."""
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
        """(first, count) of pieces from instance `start` to the end, each at most `CHUNK_BYTES` or one instance."""
        size = max(1, CHUNK_BYTES // self.instance_bytes)
        for first in range(start, self.count, size):
            yield first, min(size, self.count - first)

    def scan(self) -> str:
        """Check every number of the file, note blocked users, and return a hash of all data of the instances."""
        digests = {name: hashlib.blake2b(f"{name} {self.shapes[name]}".encode()) for name in self.axes}
        digests |= {name: hashlib.blake2b(f"{name} {self.sizes}".encode()) for name in self.channels}
        for name, value in self.shared.items():
            digests[name].update(repr((str(value.dtype), value.tolist())).encode())
        blocked = BlockedUsers()
        for first, count in self.chunks():
            arrays = self.arrays(first, count)
            for name, value in arrays.items():
                if name not in self.shared:
                    digests[name].update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
            blocked.add(self.read(first, count, dtype=torch.complex128).truth, first)
        self.notes += blocked.notes(gains=self.main == "G")
        return hashlib.blake2b(b"".join(digests[name].digest() for name in sorted(digests))).hexdigest()

    def close(self) -> None:
        """Release the file."""
        self.store.close()

    def __enter__(self) -> ChannelFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
