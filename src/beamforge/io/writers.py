"""Writes named arrays row by row; a file appears only when it is complete, and HDF5 output can be resumed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from beamforge.core.errors import ChannelFileError

MEMORY_LIMIT = 1 << 30
"""Largest size of an `.npz` in bytes, since it is collected in memory; larger output needs `.h5`."""


class Writer:
    """Collects `count` rows of named arrays in a file, which `finish` completes and moves to its path.

    Use it in a ``with``: after an exception no file remains, except the partial file of a resumable `.h5`. `done` is
    the number of rows appended so far, including those before an interruption; `seconds` is the time spent on them.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count
        self.done, self.seconds = 0, 0.0

    def append(self, rows: Mapping[str, np.ndarray], seconds: float = 0.0) -> None:
        """Add rows [n, ...] to every array; `seconds` were spent on making them."""
        size = len(next(iter(rows.values())))
        self.store(rows, slice(self.done, self.done + size))
        self.done += size
        self.seconds += seconds

    def store(self, rows: Mapping[str, np.ndarray], place: slice) -> None:
        """Write rows at a range of row numbers."""
        raise NotImplementedError

    def rows(self, name: str) -> np.ndarray:
        """The rows of one array that were appended so far."""
        raise NotImplementedError

    def finish(self, **shared: np.ndarray | float | str) -> None:
        """Add the arrays that all rows share, and move the complete file to its path."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Remove the incomplete file, unless it can be resumed."""

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.abandon()


def open_writer(path: str | Path, count: int, row_bytes: int, fingerprint: str = "") -> Writer:
    """A writer by extension, `.npz` or `.h5`, for `count` rows of `row_bytes` each.

    With a `fingerprint` of the request, an interrupted `.h5` is resumed. Raises `ChannelFileError`, before anything is
    computed, for a path that cannot be written, for an `.npz` above `MEMORY_LIMIT`, and for the unfinished output of a
    different request.
    """
    path = Path(path)
    check_writable(path)
    if path.suffix == ".h5":
        return Hdf5Writer(path, count, fingerprint)
    if count * row_bytes > MEMORY_LIMIT:
        raise ChannelFileError(f"{path} must end in .h5 for {count * row_bytes / 1e9:.3g} GB, too large for .npz")
    return NpzWriter(path, count)


def check_writable(path: Path, suffixes: tuple[str, ...] = (".npz", ".h5")) -> None:
    """`ChannelFileError` unless a file of such a suffix can be made at `path`."""
    if path.suffix not in suffixes:
        raise ChannelFileError(
            f"output {path} must end in {' or '.join(suffixes)}, got {path.suffix or 'no extension'!r}"
        )
    if path.is_dir():
        raise ChannelFileError(f"output {path} must be a file, got a directory")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ChannelFileError(f"output {path} cannot be written: {error.strerror or error}") from error


def partial_path(path: Path) -> Path:
    """The path of a file while it is incomplete."""
    return path.with_name(path.name + ".partial")


class NpzWriter(Writer):
    """Rows are collected in memory; the file is written under its partial path and renamed."""

    def __init__(self, path: Path, count: int) -> None:
        super().__init__(path, count)
        self.arrays: dict[str, np.ndarray] = {}

    def store(self, rows: Mapping[str, np.ndarray], place: slice) -> None:
        for name, value in rows.items():
            if name not in self.arrays:
                self.arrays[name] = np.empty((self.count, *value.shape[1:]), value.dtype)
            self.arrays[name][place] = value

    def rows(self, name: str) -> np.ndarray:
        return self.arrays[name][: self.done]

    def finish(self, **shared: np.ndarray | float | str) -> None:
        with partial_path(self.path).open("wb") as file:
            np.savez(file, **self.arrays, **{name: np.asarray(value) for name, value in shared.items()})  # type: ignore[arg-type]
        os.replace(partial_path(self.path), self.path)

    def abandon(self) -> None:
        if self.arrays:
            partial_path(self.path).unlink(missing_ok=True)


class Hdf5Writer(Writer):
    """Rows are written to datasets of their final size in ``FILE.partial``, which is renamed when it is complete.

    Space is allocated with the first rows, so that later writes only overwrite: rows, flushed, and then the number of
    rows. If the process is killed at any time, the file contains the number of its valid rows.
    """

    def __init__(self, path: Path, count: int, fingerprint: str) -> None:
        super().__init__(path, count)
        self.fingerprint = fingerprint
        self.partial = partial_path(path)
        self.file: Any = self._resume() if fingerprint and self.partial.exists() else None

    def _resume(self) -> Any:
        """The file of an interrupted writer, or None if it stopped before its first rows were written."""
        try:
            file = h5py.File(self.partial, "r+")
            fingerprint, progress = file.attrs["fingerprint"], file.attrs["progress"]
        except BlockingIOError:
            raise ChannelFileError(f"{self.partial} is in use: another process is writing it") from None
        except (OSError, KeyError):
            return None
        if fingerprint != self.fingerprint:
            file.close()
            raise ChannelFileError(f"{self.partial} is the unfinished output of a different request; remove it first")
        self.done, self.seconds = int(progress[0]), float(progress[1])
        return file

    def store(self, rows: Mapping[str, np.ndarray], place: slice) -> None:
        if self.file is None:
            self.file = self._create(rows)
        for name, value in rows.items():
            self.file[name][place] = value

    def append(self, rows: Mapping[str, np.ndarray], seconds: float = 0.0) -> None:
        super().append(rows, seconds)
        self.file.flush()
        self.file.attrs.modify("progress", np.array([self.done, self.seconds]))
        self.file.flush()

    def _create(self, rows: Mapping[str, np.ndarray]) -> Any:
        file = h5py.File(self.partial, "w")
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        for name, value in rows.items():
            file.create_dataset(name, (self.count, *value.shape[1:]), value.dtype, dcpl=layout)
        file.attrs["progress"] = np.zeros(2)
        file.flush()
        file.attrs["fingerprint"] = self.fingerprint
        file.flush()
        return file

    def rows(self, name: str) -> np.ndarray:
        return self.file[name][: self.done]

    def finish(self, **shared: np.ndarray | float | str) -> None:
        for name, value in shared.items():
            if name in self.file:  # an earlier run was stopped just before the renaming
                del self.file[name]
            array = np.asarray(value)
            self.file[name] = array.astype(h5py.string_dtype()) if array.dtype.kind == "U" else array
        self.file.close()
        os.replace(self.partial, self.path)

    def abandon(self) -> None:
        if self.file is not None:
            self.file.close()
            if not self.fingerprint or not self.done:
                self.partial.unlink(missing_ok=True)
