"""``beamforge train``: trains a learned method by a recipe."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isnan
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import beamforge
from beamforge.bench.timing import commit
from beamforge.cli.output import summarise
from beamforge.cli.request import pairs
from beamforge.registry import trainable
from beamforge.training.log import Line
from beamforge.training.loop import train
from beamforge.training.processes import rank_here
from beamforge.training.recipe import Recipe


@click.command("train")
@click.argument("recipe")
@click.option("--resume", is_flag=True, help="Resume from the last checkpoint in the folder, if any.")
@click.option("--set", "settings", multiple=True, metavar="SECTION.NAME=VALUE", help="A recipe entry; repeatable.")
@click.option("--out", type=click.Path(), metavar="DIR", help="Folder of the run; by default runs/ and RECIPE's name.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def command(recipe: str, resume: bool, settings: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Train a method by RECIPE, a name from `beamforge list recipes` or a .toml file.

    After an interruption or a kill, --resume continues the run and gives the same weights as without it. With torchrun,
    several processes share every batch: torchrun --nproc-per-node 2 -m beamforge train RECIPE.
    """
    chosen = Recipe.find(recipe, pairs(settings))
    folder = Path(out or Path("runs") / Path(recipe).name.removesuffix(".toml"))
    model = chosen.model
    origin = {"version": beamforge.__version__, "commit": commit()}
    with show_progress(chosen.run.steps) as report:
        done = train(
            chosen, lambda: trainable(model.name, model.settings), folder, resume=resume, origin=origin, report=report
        )
    if rank_here():
        return
    if done.step < chosen.run.steps:
        again = ["beamforge", "train", recipe, "--resume", "--out", str(folder)]
        again += [part for setting in settings for part in ("--set", setting)]
        print(f"interrupted after {done.step} steps; resume with: {shlex.join(again)}", file=sys.stderr)
        raise click.exceptions.Exit(1)
    summary = {
        "recipe": recipe,
        "steps": done.step,
        "skipped_steps": done.skipped or None,
        "best_step": done.best_step,
        "validation_loss": done.best,
        "seconds": done.seconds,
        "out": str(folder),
    }
    summarise(summary, as_json=as_json)


@contextmanager
def show_progress(steps: int) -> Iterator[Callable[[Line], None]]:
    """Show the progress of a run on standard error: a bar on a terminal, else one line per validation."""
    if rank_here() or not sys.stderr.isatty():
        yield ProgressText(steps)
        return
    words = TextColumn("{task.fields[words]}")
    columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), words
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=steps, words="")
        text = ProgressText(steps)
        yield lambda line: bar.update(task, completed=line["step"], words=text.words(line))


class ProgressText:
    """Formats lines of a log as text."""

    def __init__(self, steps: int) -> None:
        self.steps, self.first, self.began = steps, 0, 0.0
        self.loss = self.validation = float("nan")

    def __call__(self, line: Line) -> None:
        """Print a line for each validation."""
        words = self.words(line)
        if "validation" in line:
            left = (self.steps - line["step"]) / max(self.rate(line["step"]), 1e-9)
            print(f"step {line['step']}/{self.steps}  {words}  {left / 60:.1f} min left", file=sys.stderr, flush=True)

    def words(self, line: Line) -> str:
        """Steps per second and losses; the training loss is a running mean."""
        if "validation" in line:
            self.validation = line["validation"]["loss"]
        elif not self.began:
            self.first, self.began, self.loss = line["step"], time.monotonic(), line["loss"]
        elif not line.get("skipped"):
            self.loss += 0.05 * (line["loss"] - self.loss)
        words = f"{self.rate(line['step']):.1f} steps/s  loss {self.loss:.5g}"
        return words if isnan(self.validation) else f"{words}  validation {self.validation:.5g}"

    def rate(self, step: int) -> float:
        """Steps per second since the first line."""
        return (step - self.first) / max(time.monotonic() - self.began, 1e-9) if self.began else 0.0
