"""Trained weights: safetensors whose header names the model, its configuration and what trained it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from torch import Tensor

from beamforge.core.errors import ConfigError

KEY = "beamforge"
"""Entry of a safetensors file's metadata that holds the header, a JSON object."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, on the CPU, and the header: `model`, `settings`, `recipe`, `version`, `commit`, ..."""

    tensors: Mapping[str, Tensor]
    header: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the model that the weights fit."""
        return self.header["settings"]


def save(path: Path, weights: Weights) -> None:
    """Write weights, whole or not at all."""
    from safetensors.torch import save as serialise

    from beamforge.io.writers import beside

    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.tensors.items()}
    beside(path).write_bytes(serialise(tensors, {KEY: json.dumps(weights.header, sort_keys=True)}))
    beside(path).replace(path)


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices in bfloat16, which is all that a run of precision 16 computes with; the rest, which is little, as it is.

    >>> import torch
    >>> halved({"weight": torch.ones(2, 2), "bias": torch.ones(2)})["weight"].dtype
    torch.bfloat16
    """
    return {name: value.bfloat16() if value.ndim > 1 else value for name, value in tensors.items()}


def load(model: str, path: Path | None = None, *, name: str | None = None) -> Weights:
    """The weights that come with the package for `model`, or those in a file; no more is imported than that takes.

    name  of those that come with the package, where a model has several; else they have the model's.

    Raises `ConfigError` if there are none, for a file without a header, and for weights of another model.
    """
    if path is not None:
        return _read(path, model)
    place = files("beamforge") / "weights" / f"{name or model}.safetensors"
    if not place.is_file():
        raise ConfigError(f"weights must be given for {name or model}, got none, and none come with the package")
    with as_file(place) as found:
        return _read(found, model)


def _read(path: Path, model: str) -> Weights:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise ConfigError(f"weights must be a safetensors file, got {path} ({' '.join(str(error).split())})") from None
    if not isinstance(header, dict) or not {"model", "settings"} <= header.keys():
        raise ConfigError(f"weights must have a header that names their model, got none in {path}")
    if header["model"] != model:
        raise ConfigError(f"weights must be of model {model}, got those of {header['model']} in {path}")
    return Weights(tensors, header)
