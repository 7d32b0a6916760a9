"""The training loop of all learned methods, in one process or several, with resumption after interruptions."""

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
    """Train the `Trainable` that `make` returns; the run is complete if the returned `step` is the recipe's last.

    SIGINT and SIGTERM end a run early, with a checkpoint. Under ``torchrun`` every process trains on its share of the
    same batches; the first one writes the folder `out`, which all must be able to read in order to resume:

    recipe.toml          the recipe as run.         log.jsonl   a line for every step and every validation.
    last.pt, best.pt     checkpoints.               curves.png  the log as a figure.
    weights.safetensors  the best by validation loss, at the end, with `origin` (version, commit) in the header.

    resume  continue from the last checkpoint in `out`, or start if there is none.
    report  called with every line of the log, in the first process.

    Raises `ConfigError` for a folder that already holds a run, unless `resume` is set, or a run of another recipe; for
    a batch that cannot be split evenly; and for a loss or gradient that stays non-finite.
    """
    with processes(recipe.run.device) as group, Interruption() as interruption:
        steps = started(recipe, make, out, group, resume=resume)
        with Record(out, steps, report) if group.first else nullcontext() as record:
            run, progress, stopped = recipe.run, steps.progress, False
            while progress.step < run.steps and not stopped:
                start = time.perf_counter()
                lines, improved = [steps.advance()], False
                done = progress.step == run.steps
                if done or progress.step % run.validate_every == 0:
                    line, improved = steps.validate()
                    lines.append(line)
                progress.seconds += time.perf_counter() - start
                stopped = group.any(interruption.asked)
                if record is not None:
                    last = done or stopped or progress.step % run.checkpoint_every == 0
                    record.write(lines, best=improved, last=last)
            if record is not None and progress.step == run.steps:
                record.finish(origin or {})
        del steps, record  # while the connections they hold are still open
        return progress


def started(recipe: Recipe, make: Callable[[], nn.Module], out: Path, group: Processes, *, resume: bool) -> Steps:
    """A new run, or one restored from its last checkpoint in `out`; the same in every process."""
    steps = Steps(recipe, make, group)
    if (out / LAST).exists():
        if not resume:
            raise ConfigError(f"out must be a folder without a run, got {out}; --resume continues its run")
        steps.restore(out / LAST)
    if group.any(group.mean({"step": steps.progress.step})["step"] != steps.progress.step):
        raise ConfigError(f"out must be a folder that all processes see, got different runs in {out}")
    return steps
