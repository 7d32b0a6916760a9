"""Trained weights: safetensors files whose header names the model, its settings and the training recipe.

Small weights come with the package. Those above 1 MB are in a separate distribution, `beamforge-weights`, which the
extra `weights` installs; they are then found by name as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from torch import Tensor

from beamforge.core.errors import ConfigError, unknown

KEY = "beamforge"
"""Entry of a safetensors file's metadata that holds the header, a JSON object."""

SUFFIX = ".safetensors"

DISTRIBUTION = "beamforge_weights"
"""The package of the extra `weights`: files, and an ``index.json`` with its version and their sizes and checksums."""


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
    """Write weights; the file appears only when it is complete."""
    from safetensors.torch import save as serialise

    from beamforge.io.writers import partial_path

    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.tensors.items()}
    partial_path(path).write_bytes(serialise(tensors, {KEY: json.dumps(weights.header, sort_keys=True)}))
    partial_path(path).replace(path)


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with matrices in bfloat16, the precision of matrices in a run of precision 16; others unchanged.

    >>> import torch
    >>> halved({"weight": torch.ones(2, 2), "bias": torch.ones(2)})["weight"].dtype
    torch.bfloat16
    """
    return {name: value.bfloat16() if value.ndim > 1 else value for name, value in tensors.items()}


@dataclass(frozen=True)
class Extra:
    """The contents of the extra `weights`, which may not be installed.

    version  the version of the extra that fits this version of the package.
    train    the names of its weights, and the arguments of ``beamforge train`` that train them again.
    """

    version: str
    train: Mapping[str, str]


@cache
def extra() -> Extra:
    """The version and contents of the extra `weights` that this version of the package requires.

    >>> extra().train["wit-75"]
    'wit --set model.jain=0.75'
    """
    return Extra(**json.loads((_own() / "extra.json").read_text(encoding="utf-8")))


def names() -> list[str]:
    """Names of all trained weights, including those of the extra whether it is installed or not.

    >>> [name for name in names() if name.startswith("gnn")]
    ['gnn-16', 'gnn-4', 'gnn-64']
    """
    own = (item.name.removesuffix(SUFFIX) for item in _own().iterdir() if item.name.endswith(SUFFIX))
    return sorted({*own, *extra().train})


def card(name: str) -> Traversable:
    """The card of trained weights, which describes their training and results; all cards are in the package.

    Weights whose names begin alike share a card: that of the longest beginning.

    >>> card("wit-75").name
    'wit.md'
    """
    shared = name
    while shared and not (_own() / f"{shared}.md").is_file():
        shared = shared.rpartition("-")[0]
    return _own() / f"{shared or name}.md"


def trained_weights(model: str, checkpoint: str) -> Weights | None:
    """The weights that the setting `checkpoint` of a learned method selects: "shipped", a file, or "random" (None)."""
    if checkpoint == "random":
        return None
    return load(model, None if checkpoint == "shipped" else Path(checkpoint))


def load(model: str, path: Path | None = None, *, name: str | None = None) -> Weights:
    """The shipped weights of `model`, or those in a file; imports are local to keep loading fast.

    name  one of `names`, if a model has several weights; by default the name of the model.

    Raises `ConfigError` for an unknown name; for weights of the extra if that is not installed (with the commands that
    install or replace them), has another version or is damaged; for a file without a header; and for weights of another
    model.
    """
    if path is not None:
        return _read(path, model)
    name = name or model
    if name not in names():
        raise ConfigError(unknown("weights", name, names()))
    place = _in_extra(name) if name in extra().train else _own() / f"{name}{SUFFIX}"
    with as_file(place) as found:
        return _read(found, model)


def _own() -> Traversable:
    return files("beamforge") / "weights"


def _in_extra(name: str) -> Traversable:
    """A file of the extra, after checking its version and checksum."""
    wanted, install = extra(), "run `pip install ./weights` in the checkout that beamforge came from"
    try:
        folder = files(DISTRIBUTION)
    except ModuleNotFoundError:
        raise ConfigError(
            f"weights {name} come with the extra beamforge[weights], which is not installed: {install}, "
            f"or train them by `beamforge train {wanted.train[name]}` and give that file as checkpoint"
        ) from None
    version, intact = wanted.version, False
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        version = index["version"]
        found = sha256((folder / f"{name}{SUFFIX}").read_bytes()).hexdigest()
        intact = found == index["weights"][name]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # files of another version, or damaged: reported below
    if version != wanted.version:
        raise ConfigError(
            f"beamforge-weights must be version {wanted.version} for this beamforge, got {version}: {install}"
        )
    if not intact:
        raise ConfigError(f"weights {name} of beamforge-weights are damaged (wrong checksum): {install}")
    return folder / f"{name}{SUFFIX}"


def _read(path: Path, model: str) -> Weights:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise ConfigError(
            f"checkpoint must be a safetensors file, got {path} ({' '.join(str(error).split())})"
        ) from None
    if not isinstance(header, dict) or not {"model", "settings"} <= header.keys():
        raise ConfigError(f"checkpoint must have a header that names its model, got none in {path}")
    if header["model"] != model:
        raise ConfigError(f"checkpoint must be of model {model}, got one of {header['model']} in {path}")
    for settings in (header["settings"], header.get("recipe", {}).get("model", {})):
        if "weights" in settings:  # name of the initial checkpoint in files of earlier versions
            settings["checkpoint"] = settings.pop("weights")
    return Weights(tensors, header)
