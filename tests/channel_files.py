"""Channel files in the formats of other programs, MATLAB among them."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import scipy.io

RNG = np.random.default_rng


def normal(*shape, seed=0, dtype=np.complex128):
    rng = RNG(seed)
    return ((rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)).astype(dtype)


def broadcast(B=6, K=3, N=4, seed=0, dtype=np.complex128, **more):
    return {"H": normal(B, K, N, seed=seed, dtype=dtype), "noise": np.float64(0.1), "p_max": np.float64(2.0), **more}


def matlab_shape(value):
    """An array in the shape that MATLAB gives it: at least two dimensions, vectors as rows, no trailing ones."""
    value = np.asarray(value)
    if value.ndim < 2:
        return value.reshape(1, -1)
    while value.ndim > 2 and value.shape[-1] == 1:
        value = value[..., 0]
    return value


def write_mat5(path, arrays):
    whole = {name: value if isinstance(value, str) else matlab_shape(value) for name, value in arrays.items()}
    scipy.io.savemat(path, whole, do_compression=True)


def write_mat73(path, arrays):
    """As MATLAB's `save -v7.3`: a 512-byte text header, dimensions reversed, (real, imag) pairs, doubles throughout."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in arrays.items():
            if isinstance(value, str):
                item = file.create_dataset(name, data=np.array([[ord(c)] for c in value], np.uint16))
                item.attrs["MATLAB_class"] = np.bytes_("char")
                item.attrs["MATLAB_int_decode"] = np.int32(2)
                continue
            value = matlab_shape(value)
            value = value.astype(float) if value.dtype.kind in "iu" else value
            kind = "single" if value.dtype in (np.complex64, np.float32) else "double"
            if value.dtype.kind == "c":
                pair = np.empty(value.shape, [("real", value.real.dtype), ("imag", value.real.dtype)])
                pair["real"], pair["imag"] = value.real, value.imag
                value = pair
            item = file.create_dataset(name, data=value.T)
            item.attrs["MATLAB_class"] = np.bytes_(kind)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Nov  2 10:00:00 2026 HDF5 schema 1.00 ."
    with Path(path).open("r+b") as file:
        file.write(header.ljust(116) + bytes(8) + b"\x00\x02IM")


def write_h5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name] = value


def write_npz(path, arrays):
    np.savez(path, **arrays)


def write_npz_compressed(path, arrays):
    np.savez_compressed(path, **arrays)


def write_npz_column_major(path, arrays):
    np.savez(path, **{k: np.asfortranarray(v) if np.ndim(v) else v for k, v in arrays.items()})


def write_npz_big_endian(path, arrays):
    swapped = {k: np.asarray(v) for k, v in arrays.items()}
    np.savez(
        path, **{k: v.astype(v.dtype.newbyteorder(">")) if v.dtype.kind in "fc" else v for k, v in swapped.items()}
    )


FORMATS = {
    "npz": (".npz", write_npz),
    "npz-compressed": (".npz", write_npz_compressed),
    "npz-column-major": (".npz", write_npz_column_major),
    "npz-big-endian": (".npz", write_npz_big_endian),
    "h5": (".h5", write_h5),
    "mat-v5": (".mat", write_mat5),
    "mat-v7.3": (".mat", write_mat73),
}


def write(folder, arrays, form="npz", name="channels"):
    suffix, writer = FORMATS[form]
    path = Path(folder) / f"{name}{suffix}"
    writer(path, arrays)
    return path


def read_npz(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def read_h5(path):
    with h5py.File(path) as file:
        found = {
            name: item.asstr()[()] if h5py.check_string_dtype(item.dtype) else item[()] for name, item in file.items()
        }
    return {name: np.asarray(value) if not isinstance(value, np.ndarray) else value for name, value in found.items()}


def read_solution(path):
    return read_h5(path) if Path(path).suffix == ".h5" else read_npz(path)


def hostile():
    """Invalid files: (what is wrong, arrays or bytes, words that the error must contain)."""
    H, good = broadcast()["H"], broadcast()

    def but(**changes):
        return {name: value for name, value in (good | changes).items() if value is not None}

    nan, infinite = H.copy(), H.copy()
    nan[4, 1, 2] = np.nan
    infinite[5, 0, 0] = 1j * np.inf
    pickle = io.BytesIO()
    np.savez(pickle, H=np.array([[[{"a": 1}]]], object), noise=0.1)
    whole = io.BytesIO()
    np.savez(whole, **good)
    nan_noise = np.full((6, 3), 0.1)
    nan_noise[2, 1] = np.nan
    zero_noise = np.full((6, 3), 0.1)
    zero_noise[3, 2] = 0
    cells = normal(6, 2, 3, 4)
    return [
        ("missing H", but(H=None), ["H must be given", "noise"]),
        ("both H and G", but(G=np.ones((6, 3, 3))), ["G", "H"]),
        ("H of rank 2", but(H=H[0]), ["H must be", "[B, K, N]", "(3, 4)"]),
        ("H of rank 5", but(H=H[None, None]), ["H must be", "[B, T, K, N]", "(1, 1, 6, 3, 4)"]),
        ("real H", but(H=H.real), ["H must be complex", "float64"]),
        ("G not square", {"G": np.ones((6, 3, 2)), "noise": 0.1, "p_max": 1.0}, ["G must be", "(6, 3, 2)"]),
        ("complex G", {"G": np.ones((6, 3, 3), complex), "noise": 0.1, "p_max": 1.0}, ["G must be", "complex128"]),
        (
            "negative G",
            {"G": -np.ones((6, 3, 3)), "noise": 0.1, "p_max": 1.0},
            ["G must be non-negative", "instance 0"],
        ),
        ("NaN in H", but(H=nan), ["H must be finite", "nan", "instance 4"]),
        ("Inf in H", but(H=infinite), ["H must be finite", "inf", "instance 5"]),
        ("empty batch", but(H=H[:0]), ["H must be non-empty", "(0, 3, 4)"]),
        ("no users", but(H=H[:, :0]), ["H must be non-empty", "(6, 0, 4)"]),
        ("zero noise", but(noise=0.0), ["noise must be positive", "0.0"]),
        ("zero noise of one user", but(noise=zero_noise), ["noise must be positive", "instance 3"]),
        ("negative noise", but(noise=-0.1), ["noise must be positive", "-0.1"]),
        ("NaN noise", but(noise=nan_noise), ["noise must be finite", "instance 2"]),
        ("complex noise", but(noise=0.1 + 0j), ["noise must be real", "complex128"]),
        ("no noise", but(noise=None), ["noise must be given"]),
        ("noise per instance", but(noise=np.ones(6)), ["noise must be", "[K] = (3)", "(6,)"]),
        ("zero power", but(p_max=0.0), ["p_max must be positive", "0.0"]),
        ("negative power", but(p_max=-1.0), ["p_max must be positive", "-1.0"]),
        ("infinite power", but(p_max=np.inf), ["p_max must be finite", "inf"]),
        ("no power", but(p_max=None), ["p_max"]),
        ("power per user", but(p_max=np.ones(3)), ["p_max must be", "(3,)"]),
        ("weights per instance", but(weights=np.ones(6)), ["weights must be", "(6,)"]),
        ("weights of another batch", but(weights=np.ones((5, 3))), ["weights must be", "(5, 3)"]),
        ("negative weights", but(weights=-np.ones(3)), ["weights must be non-negative", "-1.0"]),
        ("text weights", but(weights=np.array(["a", "b", "c"])), ["weights must be real numbers", "<U1"]),
        ("targets too long", but(sinr_target=np.ones(4)), ["sinr_target must be", "(4,)"]),
        ("negative target", but(sinr_target=-np.ones(3)), ["sinr_target must be non-negative", "-1.0"]),
        ("antenna power too long", but(p_max_antenna=np.ones(5)), ["p_max_antenna must be", "(5,)"]),
        ("estimate of another shape", but(H_estimate=H[:, :2]), ["H_estimate must be", "(6, 2, 4)"]),
        ("real estimate", but(H_estimate=H.real), ["H_estimate must be complex", "float64"]),
        ("serving nobody", but(H=cells), ["serving must be given", "T = 2"]),
        ("serving out of range", but(H=cells, serving=np.array([0, 1, 2])), ["serving must be integers 0..1", "2"]),
        ("serving of floats", but(H=cells, serving=np.array([0.0, 1, 1])), ["serving must be integers", "float64"]),
        ("serving too long", but(H=cells, serving=np.array([0, 1, 1, 0])), ["serving must be", "(4,)"]),
        ("misspelt key", but(weigths=np.ones(3)), ["weigths", "weights"]),
        ("objects", pickle.getvalue(), ["H must be", "objects"]),
        ("truncated", whole.getvalue()[:-200], [".npz"]),
        ("cut in half", whole.getvalue()[: len(whole.getvalue()) // 2], [".npz"]),
        ("not a zip", b"PK\x03\x04 but no more", [".npz"]),
        ("empty file", b"", [".npz"]),
    ]
