"""Reads named arrays from `.npz`, `.npy`, `.h5` and MATLAB `.mat` files by ranges of rows, without unpickling."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import h5py
import numpy as np

from beamforge.core.errors import ChannelFileError

FORMATS = (".npz", ".npy", ".h5", ".mat")
"""Supported extensions; MATLAB files of v5 and v7.3."""


class Header(NamedTuple):
    """Shape and type of an array, known before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Store:
    """A file of named arrays: `headers` lists them, `read` loads rows of one. Use it in a ``with``."""

    matlab = False
    """Whether MATLAB wrote the file: arrays have at least two dimensions, and trailing lengths of one are dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.headers: dict[str, Header] = {}

    def read(self, name: str, first: int = 0, count: int | None = None) -> np.ndarray:
        """Rows first..first+count-1 of an array (all of them by default); a scalar is read whole."""
        header = self.headers[name]
        if header.dtype.hasobject:
            raise objects_error(self.path, name)
        rows = slice(first, None if count is None else first + count)
        with reading(self.path):
            return native(self.rows(name, rows))

    def rows(self, name: str, rows: slice) -> np.ndarray:
        """Load `rows` of an array (all of a scalar)."""
        raise NotImplementedError

    def text(self, name: str) -> str:
        """The string under a name."""
        return str(self.read(name).item())

    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def objects_error(path: Path, name: str) -> ChannelFileError:
    """The error for arrays of objects."""
    return ChannelFileError(f"{path}: {name} must be numbers or text, got objects, which are never unpickled")


def open_store(path: str | Path) -> Store:
    """Open a file of arrays by its extension; `ChannelFileError` if it is not a supported file, or damaged."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ChannelFileError(f"{path} must end in {', '.join(FORMATS)}, got {path.suffix or 'no extension'!r}")
    if not path.is_file():
        raise ChannelFileError(f"{path} must be a file, got {'a directory' if path.is_dir() else 'nothing there'}")
    with reading(path):
        if path.suffix == ".npz":
            return NpzStore(path)
        if path.suffix == ".npy":
            return NpyStore(path)
        if path.suffix == ".h5":
            return Hdf5Store(path)
        return Matlab73Store(path) if h5py.is_hdf5(path) else Matlab5Store(path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert the exceptions of decoders of damaged files to a `ChannelFileError` of one sentence."""
    damaged = (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, OverflowError, RuntimeError, MemoryError)
    try:
        yield
    except ChannelFileError:
        raise
    except (*damaged, SyntaxError, struct.error, zlib.error, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ChannelFileError(f"{path} cannot be read as {path.suffix}: {reason}") from error


def native(array: np.ndarray) -> np.ndarray:
    """The array in native byte order, contiguous, with complex numbers in place of HDF5's pairs."""
    names = array.dtype.names
    if names and len(names) == 2:
        array = array[names[0]] + 1j * array[names[1]].astype(array[names[0]].dtype)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(array.shape)


def complex_pair(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The complex type of a pair of real and imaginary parts; any other type unchanged."""
    if dtype.names in (("real", "imag"), ("r", "i")):
        return np.result_type(dtype[0], np.complex64)
    return dtype


# --- NumPy -----------------------------------------------------------------------------------------------------------
class NpzStore(Store):
    """A zip of `.npy` members, each read as a stream; only arrays in column-major order are loaded as a whole."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.archive = zipfile.ZipFile(path)
        self.streams: dict[str, IO[bytes]] = {}
        self.offsets: dict[str, int] = {}
        self.column_major: dict[str, np.ndarray] = {}
        for member in self.archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                continue
            stream = self.archive.open(member)
            shape, column_major, dtype = npy_header(stream)
            if dtype.hasobject:
                raise objects_error(path, name)
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if member.file_size - stream.tell() != size:
                raise ValueError(
                    f"{name} is truncated, {size} bytes expected, {member.file_size - stream.tell()} found"
                )
            self.headers[name] = Header(shape, dtype)
            self.streams[name], self.offsets[name] = stream, stream.tell()
            if column_major and len(shape) > 1:
                flat = np.frombuffer(stream.read(size), dtype)
                self.column_major[name] = flat.reshape(shape, order="F")

    def rows(self, name: str, rows: slice) -> np.ndarray:
        shape, dtype = self.headers[name]
        if name in self.column_major:
            return self.column_major[name][rows]
        first, last, _ = rows.indices(shape[0]) if shape else (0, 1, 1)
        shape = (last - first, *shape[1:]) if shape else ()
        row = int(np.prod(shape[1:])) * dtype.itemsize
        found = np.empty(shape, dtype)
        stream = self.streams[name]
        advance(stream, self.offsets[name] + first * row)
        data = stream.read(found.nbytes)
        if len(data) != found.nbytes:
            raise EOFError(f"{name} is truncated")
        found.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
        return found

    def close(self) -> None:
        for stream in self.streams.values():
            stream.close()
        self.archive.close()


def advance(stream: IO[bytes], place: int, step: int = 1 << 20) -> None:
    """Go to a position in a member of a zip, decompressing at most `step` bytes at once."""
    if place < stream.tell():
        stream.seek(0)
    while stream.tell() < place:
        if not stream.read(min(step, place - stream.tell())):
            raise EOFError("truncated")


def npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the order is column-major, and type of a `.npy` stream."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"npy version {version} is not known")


class NpyStore(Store):
    """One array without a name: ``H`` if it is complex, ``G`` if it is real."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.array = np.load(path, mmap_mode="r", allow_pickle=False)
        self.headers["H" if self.array.dtype.kind == "c" else "G"] = Header(self.array.shape, self.array.dtype)

    def rows(self, name: str, rows: slice) -> np.ndarray:
        return np.array(self.array[rows] if self.array.ndim else self.array)


# --- HDF5 and MATLAB -------------------------------------------------------------------------------------------------
class Hdf5Store(Store):
    """Datasets of an HDF5 file; complex numbers are pairs (r, i), as in h5py, or (real, imag).

    Datasets in groups have dotted names, ``dataset.H``.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.file = h5py.File(path, "r")
        found: dict[str, Any] = {}
        self.file.visititems(lambda name, item: found.update({name: item} if isinstance(item, h5py.Dataset) else {}))
        found = {name.replace("/", "."): item for name, item in found.items() if not name.startswith("#")}
        self.data = {name: item for name, item in found.items() if item.shape is not None}  # h5py.Empty has none
        for name, item in self.data.items():
            text = h5py.check_string_dtype(item.dtype) is not None
            self.headers[name] = Header(item.shape, np.dtype("U") if text else complex_pair(item.dtype))

    def rows(self, name: str, rows: slice) -> np.ndarray:
        item = self.data[name]
        source = item.asstr() if self.headers[name].dtype.kind == "U" else item
        found = np.asarray(source[rows] if item.shape else source[()])
        return found.astype(str) if self.headers[name].dtype.kind == "U" else found

    def close(self) -> None:
        self.file.close()


class Matlab73Store(Hdf5Store):
    """MATLAB v7.3: HDF5 with the dimensions reversed, text as 16-bit codes and empty arrays as their shapes."""

    matlab = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for name, item in self.data.items():
            shape, dtype = item.shape[::-1], self.headers[name].dtype
            if item.attrs.get("MATLAB_empty"):
                shape = tuple(int(length) for length in np.ravel(item[()]))
            if item.attrs.get("MATLAB_class") == b"char":
                shape, dtype = (), np.dtype("U")
            self.headers[name] = Header(shape, dtype)

    def rows(self, name: str, rows: slice) -> np.ndarray:
        shape, dtype = self.headers[name]
        if dtype.kind == "U":
            return np.array("".join(map(chr, np.ravel(self.data[name][()]))))
        if 0 in shape:
            return np.empty(shape, dtype)
        return self.data[name][..., rows].T


class Matlab5Store(Store):
    """MATLAB v5 (at most 2 GB a variable), loaded whole; fields of structs have dotted names, ``dataset.H``."""

    matlab = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        from scipy.io import loadmat, matlab  # imported here, since it takes a fifth of a second

        try:
            found = loadmat(path, appendmat=False)
        except matlab.MatReadError as error:
            raise ValueError(str(error)) from error
        self.arrays = {name: value for name, value in fields(found).items() if isinstance(value, np.ndarray)}
        for name, value in self.arrays.items():
            if value.dtype.kind == "U" and value.size <= 1:
                value = self.arrays[name] = np.array("".join(value.ravel()))
            self.headers[name] = Header(value.shape, value.dtype)

    def rows(self, name: str, rows: slice) -> np.ndarray:
        value = self.arrays[name]
        return value[rows] if value.ndim else value


def fields(variables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Variables by name; a struct is replaced by its fields under dotted names."""
    found: dict[str, Any] = {}
    for name, value in variables.items():
        if isinstance(value, np.ndarray) and value.dtype.names and value.size == 1:
            record = value.reshape(-1)[0]
            found |= fields({each: record[each] for each in value.dtype.names}, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
