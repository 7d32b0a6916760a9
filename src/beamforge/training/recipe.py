"""Recipes: all settings of a training run, in one TOML file."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from beamforge.core.errors import ConfigError, unknown
from beamforge.scenarios.base import require
from beamforge.training.data.downlink import Downlink
from beamforge.training.data.sources import SOURCES
from beamforge.training.schedules import SCHEDULES
from beamforge.training.stream import Source

Config = TypeVar("Config")


@dataclass(frozen=True)
class Model:
    """``[model]``: the `name` of a method, and settings of that method."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Optimiser:
    """``[optimiser]``: AdamW.

    lr             largest learning rate.
    lr_end         learning rate at the end of the run.
    schedule       one of `SCHEDULES`.
    warm_up        steps over which the learning rate rises from zero to `lr`.
    weight_decay   decoupled, per step and unit of learning rate.
    clip           limit on the gradient's 2-norm over all parameters; longer gradients are scaled down.
    clip_quantile  a lower limit, this quantile of the norms of all steps so far; 0 means none.
    """

    lr: float = 3e-3
    lr_end: float = 0.0
    schedule: str = "cosine"
    warm_up: int = 100
    weight_decay: float = 1e-4
    clip: float = 1.0
    clip_quantile: float = 0.0

    def __post_init__(self) -> None:
        require(0 < self.lr < math.inf, "lr", "positive", self.lr)
        require(0 <= self.lr_end <= self.lr, "lr_end", "between 0 and lr", self.lr_end)
        require(self.warm_up >= 0, "warm_up", "at least 0", self.warm_up)
        require(0 <= self.weight_decay < math.inf, "weight_decay", "at least 0", self.weight_decay)
        require(self.clip > 0, "clip", "positive", self.clip)
        require(0 <= self.clip_quantile <= 1, "clip_quantile", "between 0 and 1", self.clip_quantile)
        if self.schedule not in SCHEDULES:
            raise ConfigError(unknown("schedule", self.schedule, SCHEDULES))


@dataclass(frozen=True)
class Run:
    """``[run]``: number of steps, batch size, validation, checkpoints, precision and device.

    batch               instances a step, over all processes together.
    seed                seed of the initial weights and of the data; neither a test nor a validation seed.
    validate_every      steps between validations; a last one follows the last step.
    validation_batches  batches of `batch` instances in each validation, always the same ones.
    checkpoint_every    steps between checkpoints; a killed run loses at most this many.
    folds               parts of a finite set of `fold_batches` training batches for cross-validation, of which part
                        `fold` is for validation (see `Fold`); 0 means unlimited data.
    window              layers trained at a time, where a network can be trained by `sliding_window`; 0 means all.
    window_steps        steps after which the window moves on by one layer.
    precision           bits of a real number, 32 or 64; 16 means 32 with bfloat16 products in training (autocast,
                        faster for wide layers) and bfloat16 matrices in the weights.
    device              "auto" (CUDA where available), or a PyTorch device.
    """

    steps: int = 10_000
    batch: int = 64
    seed: int = 0
    validate_every: int = 500
    validation_batches: int = 8
    checkpoint_every: int = 500
    folds: int = 0
    fold: int = 0
    fold_batches: int = 400
    window: int = 0
    window_steps: int = 1000
    precision: int = 32
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "validate_every", "validation_batches", "checkpoint_every", "window_steps"):
            require(getattr(self, name) > 0, name, "positive", getattr(self, name))
        require(self.window >= 0, "window", "at least 0", self.window)
        require(self.folds >= 0, "folds", "at least 0", self.folds)
        require(self.precision in (16, 32, 64), "precision", "16, 32 or 64", self.precision)


@dataclass(frozen=True)
class Recipe:
    """A training run, section by section; ``source`` in ``[data]`` names one of `SOURCES`, the rest are its fields.

    >>> recipe = Recipe.parse('[model]\\nname = "multipliers"\\n', {"run.steps": "200", "data.users": "[4, 8]"})
    >>> recipe.run.steps, recipe.data.users
    (200, (4, 8))
    >>> Recipe.parse(recipe.text()) == recipe
    True
    """

    model: Model
    data: Source = field(default_factory=Downlink)
    optimiser: Optimiser = field(default_factory=Optimiser)
    run: Run = field(default_factory=Run)

    @classmethod
    def parse(cls, text: str, overrides: Mapping[str, str] | None = None, source: str = "recipe") -> Recipe:
        """A recipe from TOML, with entries ``section.name`` replaced by values in TOML (or bare words).

        Raises `ConfigError` for text that is not TOML, for an unknown section or entry (with the nearest known one),
        and for a value of the wrong type or out of range.
        """
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{source} must be TOML, got an error: {error}") from None
        sections = {item.name: item for item in dataclasses.fields(cls)}
        for name, table in tables.items():
            if name not in sections:
                raise ConfigError(unknown(f"section of {source}", name, sections))
            require(isinstance(table, dict), name, f"a section of {source}", table)
        for name, value in (overrides or {}).items():
            section, _, entry = name.partition(".")
            if section not in sections or not entry:
                raise ConfigError(unknown("setting of a recipe", name, names()))
            tables.setdefault(section, {})[entry] = literal(value)
        model = {"name": "", **tables.pop("model", {})}
        require(isinstance(model["name"], str) and model["name"] != "", "model.name", "a method's name", model["name"])
        for name, value in model.items():
            plain = isinstance(value, (str, bool, int, float, list))
            require(plain, f"model.{name}", "a string, a boolean, a number or a list", value)
        data = tables.pop("data", {})
        source = data.pop("source", "downlink")
        if source not in SOURCES:
            raise ConfigError(unknown("source of data", str(source), SOURCES))
        kinds = get_type_hints(cls)
        rest = {name: section_of(name, kinds[name], table) for name, table in tables.items()}
        return cls(Model(model.pop("name"), model), section_of("data", SOURCES[source], data), **rest)

    @classmethod
    def find(cls, name: str, overrides: Mapping[str, str] | None = None) -> Recipe:
        """A recipe that comes with the package, by name, or a ``.toml`` file, by path."""
        place = Path(name) if name.endswith(".toml") else files("beamforge") / "recipes" / f"{name}.toml"
        if not (name.endswith(".toml") or place.is_file()):
            raise ConfigError(unknown("recipe", name, shipped()))
        try:
            return cls.parse(place.read_text(encoding="utf-8"), overrides, source=name)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"recipe must be a TOML file that can be read, got {name} ({error})") from None

    def tables(self) -> dict[str, dict[str, Any]]:
        """Every entry of every section, defaults included."""
        return {
            "model": {"name": self.model.name, **self.model.settings},
            "data": {"source": source_name(self.data), **dataclasses.asdict(self.data)},  # type: ignore[call-overload]
            **{name: dataclasses.asdict(getattr(self, name)) for name in ("optimiser", "run")},
        }

    def entries(self) -> dict[str, Any]:
        """All entries by their full names, ``section.name``, as used to replace them."""
        return {f"{section}.{name}": value for section, table in self.tables().items() for name, value in table.items()}

    def text(self) -> str:
        """The recipe as TOML, with all defaults written out."""
        sections = (
            f"[{section}]\n" + "".join(f"{name} = {toml(value)}\n" for name, value in table.items())
            for section, table in self.tables().items()
        )
        return "\n".join(sections)


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        item.name.removesuffix(".toml")
        for item in (files("beamforge") / "recipes").iterdir()
        if item.name.endswith(".toml")
    )


def names() -> list[str]:
    """Full names, ``section.name``, of all entries that can be replaced, except the settings of a model."""
    parts: list[tuple[str, type[Any]]] = [("data", kind) for kind in SOURCES.values()]
    parts += [("optimiser", Optimiser), ("run", Run)]
    entries = (f"{name}.{item.name}" for name, part in parts for item in dataclasses.fields(part))
    return list(dict.fromkeys(["model.name", "data.source", *entries]))


def source_name(data: Source) -> str:
    """The name of a kind of training data."""
    return next(name for name, kind in SOURCES.items() if type(data) is kind)


def section_of(name: str, kind: type[Config], table: Mapping[str, Any]) -> Config:
    """A section from its table, with each entry converted to the type of its field."""
    hints = get_type_hints(kind)
    for entry in table:
        if entry not in hints:
            raise ConfigError(unknown(f"setting of [{name}]", entry, hints))
    try:
        return kind(**{entry: typed(entry, value, hints[entry]) for entry, value in table.items()})
    except ConfigError as error:
        raise ConfigError(f"{name}.{error}") from None


def typed(name: str, value: Any, hint: Any) -> Any:
    """A TOML value in the type of a field; a float may be written as an integer, and a range as one number."""
    if ends := get_args(hint):
        pair = value if isinstance(value, list) else [value, value]
        require(len(pair) == 2, name, "one number or [least, largest]", value)
        return tuple(typed(name, end, kind) for end, kind in zip(pair, ends, strict=True))
    fits = type(value) is hint or (hint is float and type(value) is int)
    require(fits, name, {int: "an integer", float: "a number", str: "a string", bool: "a boolean"}[hint], value)
    return hint(value)


def literal(text: str) -> Any:
    """A value parsed as TOML; text that is not TOML is taken as a string.

    >>> literal("[2, 64]"), literal("3e-3"), literal("cosine")
    ([2, 64], 0.003, 'cosine')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def toml(value: Any) -> str:
    """A value in TOML: a string, a boolean, a number or a list of such.

    >>> toml(["a", 1e-4, True])
    '["a", 0.0001, true]'
    """
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value) if isinstance(value, (str, bool)) else repr(value)
