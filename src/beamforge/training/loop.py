"""The one training loop: every learned method, every recipe, one process or many, interrupted or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

from torch import nn

from beamforge.core.errors import ConfigError
from beamforge.training.interruption import Interruption
from beamforge.training.log import Line
from beamforge.training.processes import Processes, processes
from beamforge.training.recipe import Recipe
from beamforge.training.record import LAST, Record
from beamforge.training.steps import Progress, Steps


def train(
    recipe: Recipe,
    make: Callable[[], nn.Module],
    out: Path,
    *,
    resume: bool = False,
    origin: Mapping[str, str] | None = None,
    report: Callable[[Line], None] = lambda line: None,
) -> Progress:
    """Train what `make` makes, a `Trainable`; it is done if the `step` returned is the recipe's last.

    SIGINT and SIGTERM end a run early, at a checkpoint. Under ``torchrun`` every process trains on its share of the
    same batches; the first one writes the folder `out`, which all must see to go on from it:

    recipe.toml          the recipe as run.         log.jsonl   a line for every step and every validation.
    last.pt, best.pt     checkpoints.               curves.png  the log as a figure.
    weights.safetensors  the best by validation loss once a run is done, with `origin` (version, commit) in the header.

    resume  go on from the last checkpoint in `out`, or begin if there is none yet.
    report  is told every line of the log, in the first process.

    Raises `ConfigError` for a folder that holds a run already when `resume` is not asked for, or the run of another
    recipe; for a batch that the processes cannot share; and for a loss or gradient that stays non-finite.
    """
    with processes(recipe.run.device) as team, Interruption() as interruption:
        steps = begun(recipe, make, out, team, resume=resume)
        with Record(out, steps, report) if team.first else nullcontext() as record:
            run, progress, stopped = recipe.run, steps.progress, False
            while progress.step < run.steps and not stopped:
                start = time.perf_counter()
                lines, improved = [steps.advance()], False
                done = progress.step == run.steps
                if done or progress.step % run.validate_every == 0:
                    line, improved = steps.validate()
                    lines.append(line)
                progress.seconds += time.perf_counter() - start
                stopped = team.any(interruption.asked)
                if record is not None:
                    last = done or stopped or progress.step % run.checkpoint_every == 0
                    record.write(lines, best=improved, last=last)
            if record is not None and progress.step == run.steps:
                record.finish(origin or {})
        del steps, record  # while there still are the connections that they hold
        return progress


def begun(recipe: Recipe, make: Callable[[], nn.Module], out: Path, team: Processes, *, resume: bool) -> Steps:
    """A run at its beginning, or where its last checkpoint in `out` is, in every process alike."""
    steps = Steps(recipe, make, team)
    if (out / LAST).exists():
        if not resume:
            raise ConfigError(f"out must be a folder without a run, got {out}, whose run --resume goes on with")
        steps.restore(out / LAST)
    if team.any(team.mean({"step": steps.progress.step})["step"] != steps.progress.step):
        raise ConfigError(f"out must be a folder that all processes see, got {out} with other runs in some places")
    return steps
