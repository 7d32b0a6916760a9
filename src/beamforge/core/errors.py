"""Errors that a caller can fix. Each message is one sentence: the argument, what was expected, the value received."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BeamforgeError(Exception):
    """Base class of all errors caused by the request or the input (exit status 2 on the command line)."""


class ShapeError(BeamforgeError):
    """A tensor has the wrong shape, precision, device or domain."""


class UnsupportedProblem(BeamforgeError):
    """A method was asked for a problem or a form of network that it does not serve."""


class ConfigError(BeamforgeError):
    """A name, a setting or an option is unknown or out of range, or an optional package is missing."""


class ChannelFileError(BeamforgeError):
    """A file cannot be read or written, or its contents break the conventions."""


def unknown(kind: str, name: str, options: Iterable[str]) -> str:
    """One sentence for an unknown name, with the nearest known one.

    >>> unknown("method", "wmse", ["wmmse", "zf"])
    "unknown method 'wmse'; did you mean 'wmmse'?"
    """
    options = sorted(options)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(options) or 'none'}"
    return f"unknown {kind} {name!r}; {hint}"
