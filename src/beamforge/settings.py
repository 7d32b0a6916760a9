"""Settings from a command line: strings read in the type of what they replace."""

from __future__ import annotations

from typing import Any

import torch

from beamforge.errors import ConfigError


def convert(name: str, value: Any, to: type) -> Any:
    """A setting's value in the type `to`; `ConfigError` if it cannot be read as one. Only strings are converted.

    >>> convert("users", "12", int), convert("line_of_sight", "yes", bool)
    (12, True)
    """
    if not isinstance(value, str) or to is str:
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    try:
        return words[value.lower()] if to is bool else to(value)
    except (KeyError, ValueError):
        raise ConfigError(f"setting {name} must be {to.__name__}, got {value!r}") from None


def device_of(name: str) -> torch.device:
    """The device of that name; `ConfigError` if there is none."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError):
        raise ConfigError(f"device must be one that torch has here, got {name!r}") from None
    if device.type == "meta":
        raise ConfigError("device must compute, got 'meta'")
    return device
