"""Steps of training: each a function of the recipe, its number, and the weights that it finds.

Batches, learning rates and whatever a method draws follow from the number of the step, so there is no stream, schedule
or generator to be kept, and a run that goes on from a checkpoint ends with the weights of one that was never stopped.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.training import checkpoints
from beamforge.training.log import Line
from beamforge.training.processes import Processes
from beamforge.training.recipe import Recipe
from beamforge.training.schedules import learning_rate
from beamforge.training.sliding_window import Windowed, window_at
from beamforge.training.stream import Stream
from beamforge.training.trainable import Adaptive, Trainable

PATIENCE = 20
"""Steps in a row with a loss or gradient that is not finite, after which a run gives up."""


@dataclass
class Progress:
    """How far a run has come. `step` steps are done, and `seconds` were spent on them by all processes at once.

    best     least validation loss, after `best_step` steps.
    skipped  steps that changed nothing, their loss or gradient not being finite; `in_a_row` of them just now.
    """

    step: int = 0
    seconds: float = 0.0
    best: float = math.inf
    best_step: int = 0
    skipped: int = 0
    in_a_row: int = 0


class Steps:
    """A model, its optimiser and its data, in every process alike; `progress` tells how far they are."""

    def __init__(self, recipe: Recipe, make: Callable[[], nn.Module], team: Processes) -> None:
        run, self.recipe, self.team = recipe.run, recipe, team
        self.rows, self.progress = team.rows(run.batch), Progress()
        dtype = torch.complex128 if run.precision == 64 else torch.complex64
        self.data = Stream.training(recipe.data, run.seed, run.batch, dtype, team.device)
        self.held_out = Stream.validation(recipe.data, run.batch, dtype, team.device)
        with randomness(team.device, run.seed):
            model = make().to(team.device)
        self.model = model.double() if run.precision == 64 else model.float()
        self.objective = team.together(Objective(self.model))
        settings = recipe.optimiser
        self.optimiser = torch.optim.AdamW(self.model.parameters(), settings.lr, weight_decay=settings.weight_decay)

    def advance(self) -> Line:
        """One step; returns what the log says of it. `ConfigError` if too many in a row were not finite."""
        step, settings, progress = self.progress.step, self.recipe.optimiser, self.progress
        lr = learning_rate(
            settings.schedule,
            step,
            self.recipe.run.steps,
            lr=settings.lr,
            lr_end=settings.lr_end,
            warm_up=settings.warm_up,
        )
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        if isinstance(self.model, Windowed):
            run = self.recipe.run
            self.model.focus(window_at(step, self.model.depth(), run.window, run.window_steps))
        self.optimiser.zero_grad()
        with randomness(self.team.device, self.recipe.run.seed, step, self.team.rank) as generator:
            batch = self.data.batch_at(step, self.rows)
            with torch.autocast(self.team.device.type, torch.bfloat16, enabled=self.recipe.run.precision == 16):
                loss, metrics = self.objective(batch, generator)
            loss.backward()
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip))
        figures = self.team.mean({"loss": loss, **metrics})
        progress.step += 1
        line: dict[str, Any] = {"step": progress.step, "seconds": round(progress.seconds, 3), "lr": lr}
        if math.isfinite(norm) and math.isfinite(figures["loss"]):
            if isinstance(self.model, Adaptive):
                self.model.adapt(figures)
            self.optimiser.step()
            progress.in_a_row = 0
        else:
            progress.skipped += 1
            progress.in_a_row += 1
            line["skipped"] = True
            if progress.in_a_row == PATIENCE:
                where = f"{PATIENCE} steps in a row up to step {progress.step} where one is not"
                raise ConfigError(
                    f"loss and gradient must be finite, got {where}; lower optimiser.lr or optimiser.clip"
                )
        return line | figures | {"gradient_norm": norm}

    @torch.no_grad()
    def validate(self) -> tuple[Line, bool]:
        """What the log says of the batches held out, and whether they were never solved better."""
        totals: dict[str, float] = {}
        self.model.eval()
        for index in range(self.recipe.run.validation_batches):
            with randomness(self.team.device, self.held_out.seed, index, self.team.rank) as generator:
                loss, metrics = Objective(self.model)(self.held_out.batch_at(index, self.rows), generator)
            for name, value in self.team.mean({"loss": loss, **metrics}).items():
                totals[name] = totals.get(name, 0.0) + value / self.recipe.run.validation_batches
        self.model.train()
        progress = self.progress
        improved = totals["loss"] < progress.best
        if improved:
            progress.best, progress.best_step = totals["loss"], progress.step
        return {"step": progress.step, "seconds": round(progress.seconds, 3), "validation": totals}, improved

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {
            "recipe": self.recipe.text(),
            "progress": dataclasses.asdict(self.progress),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint; `ConfigError` if it is none, or one of another recipe."""
        state = checkpoints.load(path)
        then, now = Recipe.parse(state["recipe"]).entries(), self.recipe.entries()
        if other := [name for name in {**then, **now} if name != "run.device" and then.get(name) != now.get(name)]:
            was = ", ".join(f"{name} = {then.get(name)!r}" for name in other)
            raise ConfigError(f"{path} must be a run of the same recipe to go on with it, got one with {was}")
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.progress = Progress(**state["progress"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{path} must fit the model {self.recipe.model.name}, got an error: {reason}") from None


class Objective(nn.Module):
    """A trainable's loss as a module's forward pass, which is where gradients of several processes are averaged."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss and metrics."""
        assert isinstance(self.model, Trainable)
        return self.model.loss(instance, generator)


@contextmanager
def randomness(device: torch.device, seed: int, *key: int) -> Iterator[torch.Generator]:
    """A generator that depends on seed and key alone; torch's own are seeded alike meanwhile, and then as before."""
    number = int(np.random.SeedSequence(seed, spawn_key=key).generate_state(2)[1])  # torch keeps 32 bits of a seed
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(number)
        yield torch.Generator(device).manual_seed(number)
