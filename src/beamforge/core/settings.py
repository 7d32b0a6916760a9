"""Settings from a command line: strings converted to the type of the setting; devices by name."""

from __future__ import annotations

import numbers
from typing import Any, get_args

import torch

from beamforge.core.errors import ConfigError

BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
KINDS = {bool: bool, int: numbers.Integral, float: numbers.Real, str: str}


def convert(name: str, value: Any, hint: Any) -> Any:
    """The value of a setting, converted to its type annotation `hint`; `ConfigError` if that is impossible.

    hint   a type, or a type and None; then the string "none" stands for None.
    value  a string is converted; any other value is only checked, and that for bool, int, float and str alone.

    >>> convert("users", "12", int), convert("line_of_sight", "yes", bool), convert("seed", "none", int | None)
    (12, True, None)
    """
    kinds = get_args(hint) or (hint,)
    to = next(kind for kind in kinds if kind is not type(None))
    if type(None) in kinds and (value is None or (isinstance(value, str) and value.lower() == "none")):
        return None
    try:
        if isinstance(value, str) and to is not str:
            value = BOOLEANS[value.lower()] if to is bool else to(value)
        wrong = not isinstance(value, KINDS.get(to, object)) or value != value
    except (KeyError, ValueError):
        wrong = True
    if wrong or (isinstance(value, bool) and to in (int, float)):
        raise ConfigError(f"setting {name} must be {to.__name__}, got {value!r}")
    return value


def device_of(name: str) -> torch.device:
    """The device of that name; `ConfigError` if there is none."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError):
        raise ConfigError(f"device must be one that torch can use here, got {name!r}") from None
    if device.type == "meta":
        raise ConfigError("device must be one that holds numbers, got 'meta'")
    return device
