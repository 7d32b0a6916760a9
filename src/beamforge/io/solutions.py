"""Solution files: writes solutions of this library, and reads beams from any source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from beamforge.core.beams import Factors
from beamforge.core.errors import ChannelFileError, ShapeError
from beamforge.core.evaluate import Report
from beamforge.core.network import Network
from beamforge.core.solution import Solution, Status
from beamforge.core.streams import whole_numbers
from beamforge.io.channel_writing import stream_rows
from beamforge.io.channels import ChannelFile
from beamforge.io.stores import open_store

NUMBER = (int, float)
STATED_TYPES: dict[str, Any] = {
    **dict.fromkeys(("problem", "axes", "key", "power"), str),
    **dict.fromkeys(
        ("p_max", "p_max_transmitter", "noise", "sinr_target_db", "jain", "sensing_snr_db", "sensing_weight", "outage"),
        NUMBER,
    ),
    "real_imag": int,
    "drop_blocked": bool,
}
"""Types of the request's values in the `meta` of a solution; values of other types are ignored."""

MEASURED = ("rate", "sinr", "power", "jain")
"""Figures of every report that are not copied to a solution file as figures of a term."""

STATUS_NAMES = [status.name.lower() for status in Status]


def solution_rows(solution: Solution, report: Report, *, powers: bool) -> dict[str, np.ndarray]:
    """The arrays of a batch [B] of solutions and their report by the keys of a file; the first axis of each is B.

    ``W`` complex [B, N, D], or with `powers` (single-antenna power control) ``p`` real [B, K]; ``rate`` and ``sinr``
    [B, K]; ``utility`` [B]; ``status`` and ``iterations`` [B]; the factors ``A``, ``B``, ``p`` and ``beam_index`` of
    hybrid beams; and the figures of the problem's terms. An instance without usable beams has W, p, rate and sinr 0 and
    utility NaN; an instance whose figures overflow has the status numerical failure.
    """
    broken = solution.solved & ~(torch.isfinite(report.rate).all(-1) & torch.isfinite(report.utility))
    status = torch.where(broken, int(Status.NUMERICAL_FAILURE), solution.status)
    solved = status <= Status.MAX_ITERATIONS

    def kept(value: Tensor, otherwise: float = 0.0) -> Tensor:
        mask = solved.reshape(-1, *(1,) * (value.ndim - 1))
        return torch.where(mask, value, torch.full_like(value, otherwise))

    beams = kept(solution.W)
    rows = {
        "p" if powers else "W": beams.abs().square().squeeze(-2) if powers else beams,
        "rate": kept(report.rate),
        "sinr": kept(report.sinr),
        "utility": kept(report.utility, torch.nan),
        "status": status.to(torch.int8),
        "iterations": solution.iterations.to(torch.int32),
    }
    if (factors := solution.factors) is not None:
        rows |= {"A": factors.analog, "B": factors.digital, "p": kept(factors.power)}
        rows |= {} if factors.codeword is None else {"beam_index": factors.codeword}
    rows |= {name: kept(value) for name, value in report.figures.items() if name not in (*MEASURED, *rows)}
    return {name: value.resolve_conj().cpu().numpy() for name, value in rows.items()}


def stated_request(path: str | Path) -> dict[str, Any]:
    """The problem of a solution and the values stated for it, as far as the file contains them."""
    with open_store(path) as store:
        text = {name: store.text(name) for name in ("problem", "meta") if name in store.headers}
    try:
        stated = json.loads(text.pop("meta", "{}"))
    except ValueError:
        stated = {}
    stated = stated if isinstance(stated, dict) else {}
    sound = {name: value for name, value in stated.items() if isinstance(value, STATED_TYPES.get(name, object))}
    return sound | text


class SolutionFile:
    """Beams ``W`` complex [B, N, D], or powers ``p`` real [B, K] for a file of gains G, from any source.

    Only these are needed. Streams are those of the channels, or those of ``stream_user`` and ``serving`` in the
    solution, [D] or [B, D]. Without ``stream_user``, additional columns beyond one per user are sensing streams; with
    several transmitters, ``serving`` gives their transmitters.
    Raises `ChannelFileError` for beams that do not fit the channels, are not numbers, or are not finite.
    """

    def __init__(self, path: str | Path, channels: ChannelFile) -> None:
        self.path, self.channels = Path(path), channels
        self.store = open_store(path)
        headers = self.store.headers
        self.name = "p" if channels.main == "G" and "p" in headers else "W"
        B, K, N, D = (channels.sizes[axis] for axis in "BKND")
        expected = f"real [B, K] = {(B, K)}" if self.name == "p" else f"complex [B, N, D] = {(B, N, D)}"
        if self.name not in headers:
            came = ", ".join(sorted(headers)) or "no arrays"
            raise ChannelFileError(f"{self.path}: {self.name} must be given, {expected}, got only {came}")
        shape, dtype = headers[self.name]
        shape += (1,) * (3 - len(shape)) if self.store.matlab and self.name == "W" else ()
        self.streams = bool({"stream_user", "serving"} & set(headers))
        free = self.name == "W" and len(shape) == 3 and (self.streams or (channels.sizes["T"] == 1 and shape[-1] > D))
        kinds, sizes = (
            (("f", (4, 8)), (B, K)) if self.name == "p" else (("c", (8, 16)), (B, N, shape[-1] if free else D))
        )
        if dtype.kind != kinds[0] or dtype.itemsize not in kinds[1] or shape != sizes:
            raise ChannelFileError(f"{self.path}: {self.name} must be {expected}, got {dtype} {shape}")
        self.dtype = torch.complex64 if dtype.itemsize == kinds[1][0] else torch.complex128
        self.count = K if self.name == "p" else sizes[-1]

    def beams(self, first: int, count: int) -> Tensor:
        """W [count, N, D] of instances first..first+count-1."""
        value = self.store.read(self.name, first, count)
        wrong = ~np.isfinite(value) | ((value < 0) if self.name == "p" else False)
        if wrong.any():
            place = np.argwhere(wrong)[0]
            expected = "finite and non-negative" if self.name == "p" else "finite"
            where = f"{value[tuple(place)]} in instance {first + place[0]}"
            raise ChannelFileError(f"{self.path}: {self.name} must be {expected}, got {where}")
        tensor = torch.from_numpy(np.require(value, requirements="W"))
        if self.name == "p":
            return tensor.sqrt().to(self.dtype).unsqueeze(1)
        return tensor.reshape(count, self.channels.sizes["N"], -1)

    def factors(self, first: int, count: int) -> Factors | None:
        """``A`` [count, N, M], ``B`` [count, M, D] and ``p`` [count, D], if the file has all of them; else None.

        Raises `ChannelFileError` for a key of another shape or type, or whose numbers are not finite.
        """
        headers, N, D = self.store.headers, self.channels.sizes["N"], self.count
        if self.name == "p" or not {"A", "B", "p"} <= headers.keys():
            return None
        M = headers["A"].shape[-1] if headers["A"].shape else 0
        found = []
        for name, sizes, kinds in (("A", (N, M), "c"), ("B", (M, D), "c"), ("p", (D,), "f")):
            shape, dtype = headers[name]
            if shape != (self.channels.count, *sizes) or dtype.kind != kinds:
                kind = "complex" if kinds == "c" else "real"
                expected = f"{kind} {(self.channels.count, *sizes)}"
                raise ChannelFileError(f"{self.path}: {name} must be {expected}, got {dtype} {shape}")
            value = self.store.read(name, first, count)
            if not np.isfinite(value).all() or (name == "p" and (value < 0).any()):
                raise ChannelFileError(f"{self.path}: {name} must be finite and powers not negative")
            tensor = torch.from_numpy(np.require(value, requirements="W"))
            found.append(tensor.to(self.dtype if kinds == "c" else self.dtype.to_real()))
        return Factors(*found)

    def network(self, network: Network, first: int, count: int) -> Network:
        """The network of the channels with the streams of the beams."""
        if not self.streams and self.count == network.streams.count:
            return network
        found = {name: self._integers(name, first, count) for name in ("serving", "stream_user")}
        serving, user = found["serving"], found["stream_user"]
        try:
            if serving is None and network.transmitters == 1:
                serving = torch.zeros(self.count, dtype=torch.long)
            if serving is None:
                serving = self._senders(network, user)
            if (serving if user is None else user).shape[-1] != self.count:
                name = "serving" if user is None else "stream_user"
                raise ShapeError(f"{name} must have one number for each of the {self.count} columns of W")
            return Network.multicell(network.H, network.noise, serving, user, network.receive_antennas)
        except ShapeError as error:
            raise ChannelFileError(f"{self.path}: {error}") from None

    def _senders(self, network: Network, user: Tensor | None) -> Tensor:
        """The transmitter of each stream: that of the channel file, or that of the user whose data it carries."""
        own = stream_rows(network).get("stream_user")
        if own is not None and user is not None and user.shape[-1] == own.shape[-1]:
            if (user.to(own.device) == own).all():
                return network.streams.transmitter
        data = network.streams.data_of(network.users)
        if user is None or (user < 0).any() or not data.any(-1).all():
            raise ShapeError("serving must be given in the solution, the transmitter of each stream, got none")
        user = whole_numbers("stream_user", user, network.H, range(network.users)).expand(*network.batch_shape, -1)
        return network.streams.transmitter.gather(-1, data.int().argmax(-1).gather(-1, user))

    def _integers(self, name: str, first: int, count: int) -> Tensor | None:
        """The integers [D] or [count, D] of a key, None if the key is missing."""
        if name not in self.store.headers:
            return None
        header = self.store.headers[name]
        each = len(header.shape) == 2 and header.shape[0] == self.channels.count
        value = self.store.read(name, first, count) if each else self.store.read(name).reshape(-1)
        if header.dtype.kind == "f" and (value == np.floor(value)).all():
            value = value.astype(np.int64)  # MATLAB stores integers as floats
        return torch.from_numpy(np.require(value, requirements="W"))

    def statuses(self) -> np.ndarray | None:
        """Integers [B], each a `Status`, if this library made the file, else None."""
        header = self.store.headers.get("status")
        ours = "status_names" in self.store.headers and header and header.shape == (self.channels.count,)
        return self.store.read("status") if ours else None

    def close(self) -> None:
        """Release the file."""
        self.store.close()

    def __enter__(self) -> SolutionFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
