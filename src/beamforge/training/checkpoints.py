"""Checkpoints: the complete state of a run in one file, written atomically."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from beamforge.core.errors import ConfigError
from beamforge.io.writers import partial_path


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them; after a crash the file is the old one or the new one."""
    with partial_path(path).open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial_path(path), path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint into main memory; no code in it is executed. `ConfigError` if it is not one."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise ConfigError(f"{path} must be a checkpoint of a training run, got {reason}") from None
    if not isinstance(state, dict) or "recipe" not in state:
        raise ConfigError(f"{path} must be a checkpoint of a training run, got something else")
    return state
