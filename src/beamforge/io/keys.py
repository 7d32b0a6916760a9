"""The keys of a channel file: shapes, types and domains of their arrays."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from beamforge.io.stores import Header

SHAPES = {
    "G": ("BKK",),
    "noise": ("", "K", "BK"),
    "weights": ("", "K", "BK"),
    "sinr_target": ("", "K", "BK"),
    "p_max": ("", "B"),
    "p_max_transmitter": ("", "T", "BT"),
    "p_max_antenna": ("N", "TN", "BTN"),
    "jain": ("", "B"),
    "serving": ("D", "BD"),
    "stream_user": ("D", "BD"),
    "csi_quality": ("B", "BK"),
    "covariance": ("BKNN",),
    "target_angles": ("BP",),
    "target_gain": ("BP",),
    "sensing_noise": ("", "B"),
    "sensing_snr_target": ("", "B"),
    "codebook": ("NC", "BNC"),
    "user_position": ("BKX",),
    "p": ("BK",),
    "utility": ("B",),
    "certificate": ("B",),
}
"""Shapes that each key may have, the fullest last: B instances, T transmitters, K users, N antennas, D streams, and any
number of P targets, C codewords and X coordinates. The shapes of `H` and `H_estimate` follow from their axes."""

PER_TRANSMITTER = ("", "T", "BT")
"""Shapes of `p_max` for several transmitters."""

CHANNELS = ("H", "H_estimate", "G")
DESCRIPTION = ("axes", "meta")
"""Keys with text."""

LIMITS = ("p_max", "p_max_transmitter", "p_max_antenna")
PER_USER = ("noise", "weights", "sinr_target")
"""Keys whose axes of length one stand for all users or all instances."""

COMPLEX = ("H", "H_estimate", "covariance", "target_gain", "codebook")
INTEGERS = ("serving", "stream_user")
POSITIVE = {
    **dict.fromkeys(("noise", "p_max", "sensing_noise"), "positive watts"),
    "sensing_snr_target": "a positive ratio",
}
NONNEGATIVE = ("G", "weights", "sinr_target", "csi_quality", "p_max_transmitter", "p_max_antenna", "p")


def check_kind(name: str, header: Header, *, matlab: bool) -> tuple[bool, str]:
    """Whether an array has the type that its key requires, and this type in words; exact conversions are allowed."""
    kind = header.dtype.kind
    if name == "G":
        return kind in "iufb", "real numbers"
    if name in INTEGERS:
        return kind in "iu" or (kind == "f" and matlab), "integers"
    if name in COMPLEX:
        return kind in "iufc", "numbers"
    return kind in "iufb", "real numbers"


def faults(name: str, value: np.ndarray, sizes: Mapping[str, int], *, gains: bool) -> Iterator[tuple[np.ndarray, str]]:
    """For each rule of a key: where the value violates it, and the rule in words; `gains`: in a file of G."""
    yield ~np.isfinite(value), "finite"
    if name in POSITIVE:
        yield ~(value > 0), POSITIVE[name]
    if name in NONNEGATIVE:
        yield value < 0, "non-negative"
    if name == "serving" and gains:
        yield value != np.arange(value.shape[-1]), "left out or 0..K-1 with G"
    elif name == "serving":
        yield (value < 0) | (value >= sizes["T"]) | (value != np.floor(value)), f"integers 0..{sizes['T'] - 1}"
    elif name == "stream_user":
        yield (value < -1) | (value >= sizes["K"]) | (value != np.floor(value)), f"integers -1..{sizes['K'] - 1}"


def indefinite(value: np.ndarray) -> tuple[int, str] | None:
    """The first instance of matrices [n, K, N, N] with one that is not a covariance, and why; None if all are."""
    R = torch.from_numpy(value.astype(np.complex128, order="C"))
    rounding = 1e-4 if value.dtype.itemsize <= 8 else 1e-8
    size = R.diagonal(dim1=-2, dim2=-1).real.mean(-1).clamp_min(1e-30)
    skew = (R - R.mH).abs().amax((-2, -1)) > rounding * R.abs().amax((-2, -1))
    eye = torch.eye(R.shape[-1], dtype=R.dtype)
    negative = torch.linalg.cholesky_ex(R + (rounding * size)[..., None, None] * eye)[1] > 0
    wrong = (skew | negative).nonzero()
    if not len(wrong):
        return None
    instance, user = wrong[0].tolist()
    if skew[instance, user]:
        return instance, "a matrix that is not Hermitian"
    return instance, f"an eigenvalue of {torch.linalg.eigvalsh(R[instance, user])[0].item():.3g}"


def fit(shape: tuple[int, ...], axes: str, sizes: Mapping[str, int], *, loose: bool) -> bool:
    """Whether a shape agrees with these axes; with `loose`, a length of one stands for any length."""
    known = dict(sizes)
    return len(shape) == len(axes) and all(
        known.setdefault(axis, length) == length or (loose and length == 1)
        for axis, length in zip(axes, shape, strict=True)
    )


def axes_text(axes: str, sizes: Mapping[str, int]) -> str:
    """The axes as text, with their lengths if known."""
    lengths = f" = ({', '.join(str(sizes.get(axis, axis)) for axis in axes)})" if sizes else ""
    return f"[{', '.join(axes)}]{lengths}" if axes else "a scalar"


def similar(name: str) -> str | None:
    """The key that a misspelt name probably means, or None."""
    known = [*SHAPES, *CHANNELS, *DESCRIPTION]
    begun = [key for key in known if len(name) > 3 and key.startswith(name)]
    return next(iter([*begun, *difflib.get_close_matches(name, known, n=1, cutoff=0.75)]), None)
