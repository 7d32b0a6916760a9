"""Training of networks within a reproduction."""

from __future__ import annotations

from collections.abc import Mapping

import beamforge
from beamforge.bench.timing import commit
from beamforge.core.errors import ConfigError
from beamforge.registry import trainable
from beamforge.reproduce.exhibits import Options
from beamforge.training.log import Line
from beamforge.training.loop import train
from beamforge.training.recipe import Recipe
from beamforge.training.record import WEIGHTS


def trained(options: Options, name: str, recipe: str, changes: Mapping[str, str] | None = None) -> str:
    """The weights file of a run in the folder `name` of the reproduction, which is started or resumed if not complete.

    changes  entries of the recipe to replace, ``section.name``.

    Raises `KeyboardInterrupt` for a run that was interrupted, after its checkpoint, and `ConfigError` for a folder with
    the run of another recipe.
    """
    chosen, folder = Recipe.find(recipe, changes), options.out / name
    model = chosen.model
    before = folder / "recipe.toml"
    if before.exists() and (steps := Recipe.find(str(before)).run.steps) != chosen.run.steps:
        # an extended run is not the run of a longer recipe: its learning rates were others
        raise ConfigError(f"{folder} must be a run of the same recipe to resume, got one with run.steps = {steps}")

    def report(line: Line) -> None:
        options.report(f"training {name}, step {line['step']} of {chosen.run.steps}")

    origin = {"version": beamforge.__version__, "commit": commit()}
    done = train(
        chosen, lambda: trainable(model.name, model.settings), folder, resume=True, origin=origin, report=report
    )
    if done.step < chosen.run.steps:
        raise KeyboardInterrupt
    return str(folder / WEIGHTS)
