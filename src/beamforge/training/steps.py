"""Training steps: each is a function of the recipe, the number of the step and the current weights.

Batches, learning rates and random numbers follow from the number of the step, so checkpoints hold no state of streams,
schedules or generators, and a resumed run ends with the same weights as one that was never stopped.
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
from beamforge.training.clipping import adaptive_limit
from beamforge.training.folds import Fold
from beamforge.training.log import Line
from beamforge.training.processes import Processes
from beamforge.training.recipe import Recipe
from beamforge.training.schedules import learning_rate
from beamforge.training.sliding_window import Windowed, window_at
from beamforge.training.stream import Stream
from beamforge.training.trainable import Adaptive, Alternating, Judged, Trainable

PATIENCE = 20
"""Consecutive steps with a non-finite loss or gradient after which a run fails."""


@dataclass
class Progress:
    """Progress of a run: `step` steps done, in `seconds` of wall-clock time.

    best     least validation loss, after `best_step` steps.
    skipped  steps without an update, because their loss or gradient was not finite; the last `in_a_row` steps were.
    """

    step: int = 0
    seconds: float = 0.0
    best: float = math.inf
    best_step: int = 0
    skipped: int = 0
    in_a_row: int = 0


class Steps:
    """A model, its optimiser, its data and its `progress`; the same in every process."""

    def __init__(self, recipe: Recipe, make: Callable[[], nn.Module], group: Processes) -> None:
        run, self.recipe, self.group = recipe.run, recipe, group
        self.rows, self.progress = group.rows(run.batch), Progress()
        dtype = torch.complex128 if run.precision == 64 else torch.complex64
        self.data: Stream | Fold = Stream.training(recipe.data, run.seed, run.batch, dtype, group.device)
        self.held_out: Stream | Fold = Stream.validation(recipe.data, run.batch, dtype, group.device)
        if run.folds:
            both = (Fold(self.data, run.fold_batches, run.folds, run.fold, held_out=side) for side in (False, True))
            self.data, self.held_out = both
        self.norms: list[float] = []
        with randomness(group.device, run.seed):
            model = make().to(group.device)
        self.model = model.double() if run.precision == 64 else model.float()
        self.turns = (isinstance(self.model, Alternating) and self.model.turns) or {"": 1.0}  # "" is all of it
        self.objective = group.distributed(Objective(self.model), partly=len(self.turns) > 1)
        settings = recipe.optimiser
        groups = [{"params": [*self.model.get_submodule(part).parameters()]} for part in self.turns]
        self.optimiser = torch.optim.AdamW(groups, settings.lr, weight_decay=settings.weight_decay)

    def advance(self) -> Line:
        """One step; returns its line of the log. `ConfigError` after `PATIENCE` consecutive non-finite steps."""
        step, settings, progress = self.progress.step, self.recipe.optimiser, self.progress
        lr = learning_rate(
            settings.schedule,
            step,
            self.recipe.run.steps,
            lr=settings.lr,
            lr_end=settings.lr_end,
            warm_up=settings.warm_up,
        )
        if isinstance(self.model, Windowed):
            run = self.recipe.run
            self.model.focus(window_at(step, self.model.depth(), run.window, run.window_steps))
        progress.step += 1
        line: dict[str, Any] = {"step": progress.step, "seconds": round(progress.seconds, 3), "lr": lr}
        totals = {"loss": 0.0, "gradient_norm": 0.0}
        with randomness(self.group.device, self.recipe.run.seed, step, self.group.rank) as generator:
            batch = self.data.batch_at(step, self.rows)
            for (part, rate), settings_of in zip(self.turns.items(), self.optimiser.param_groups, strict=True):
                settings_of["lr"] = rate * lr
                figures, moved = self.move(part, settings_of["params"], batch, generator)
                line |= {f"{part}_{name}" if part else name: value for name, value in figures.items()}
                totals = {name: totals[name] + figures[name] for name in totals}
                if not moved:
                    line["skipped"] = True
        if "skipped" not in line:
            progress.in_a_row = 0
            return line | totals
        progress.skipped += 1
        progress.in_a_row += 1
        if progress.in_a_row == PATIENCE:
            where = f"{PATIENCE} steps in a row up to step {progress.step} where one is not"
            raise ConfigError(f"loss and gradient must be finite, got {where}; lower optimiser.lr or optimiser.clip")
        return line | totals

    def move(
        self, part: str, parameters: list[nn.Parameter], batch: Instance, generator: torch.Generator
    ) -> tuple[dict[str, float], bool]:
        """Move some parameters against the gradient of their loss, if that is finite; what it was, and whether."""
        with torch.autocast(self.group.device.type, torch.bfloat16, enabled=self.recipe.run.precision == 16):
            loss, metrics = self.objective(batch, generator, part)
        self.optimiser.zero_grad()
        loss.backward()
        theirs = set(parameters)
        for other in self.model.parameters():
            if other not in theirs:
                other.grad = None  # so that the optimiser passes over it
        norm = float(nn.utils.clip_grad_norm_(parameters, self.limit(parameters)))
        figures = self.group.mean({"loss": loss, **metrics})
        finite = math.isfinite(norm) and math.isfinite(figures["loss"])
        if finite:
            if isinstance(self.model, Adaptive):
                self.model.adapt(figures)
            self.optimiser.step()
        return figures | {"gradient_norm": norm}, finite

    def limit(self, parameters: list[nn.Parameter]) -> float:
        """The limit on the norm of the gradient of a step."""
        settings = self.recipe.optimiser
        if not settings.clip_quantile:
            return settings.clip
        self.norms.append(float(nn.utils.get_total_norm(p.grad for p in parameters if p.grad is not None)))
        return min(settings.clip, adaptive_limit(self.norms, settings.clip_quantile))

    @torch.no_grad()
    def validate(self) -> tuple[Line, bool]:
        """The line of the log for the validation batches, and whether the loss is the least so far."""
        totals: dict[str, float] = {}
        self.model.eval()
        for index in range(self.recipe.run.validation_batches):
            with randomness(self.group.device, self.held_out.seed, index, self.group.rank) as generator:
                loss, metrics = Objective(self.model)(self.held_out.batch_at(index, self.rows), generator)
            for name, value in self.group.mean({"loss": loss, **metrics}).items():
                totals[name] = totals.get(name, 0.0) + value / self.recipe.run.validation_batches
        self.model.train()
        if isinstance(self.model, Judged):
            totals["loss"] = self.model.criterion(totals)
        progress = self.progress
        improved = totals["loss"] < progress.best
        if improved:
            progress.best, progress.best_step = totals["loss"], progress.step
        return {"step": progress.step, "seconds": round(progress.seconds, 3), "validation": totals}, improved

    def state(self) -> dict[str, Any]:
        """The state that `restore` needs."""
        return {
            "recipe": self.recipe.text(),
            "progress": dataclasses.asdict(self.progress),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "norms": self.norms,
        }

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint; `ConfigError` if the file is not one, or is of another recipe.

        The device and the number of steps may be others: a run can be extended, and the learning rate of its further
        steps is that of the longer schedule.
        """
        state = checkpoints.load(path)
        then, now = Recipe.parse(state["recipe"]).entries(), self.recipe.entries()
        names = [name for name in {**then, **now} if name not in ("run.device", "run.steps")]
        if other := [name for name in names if then.get(name) != now.get(name)]:
            was = ", ".join(f"{name} = {then.get(name)!r}" for name in other)
            raise ConfigError(f"{path} must be a run of the same recipe to resume, got one with {was}")
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.progress = Progress(**state["progress"])
            if self.progress.step > self.recipe.run.steps:
                done = f"the {self.progress.step} steps that the run in {path.parent} has done"
                raise ConfigError(f"run.steps must be at least {done}, got {self.recipe.run.steps}")
            self.norms = state.get("norms", [])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{path} must fit the model {self.recipe.model.name}, got an error: {reason}") from None


class Objective(nn.Module):
    """A trainable's loss as the forward pass of a module, as `DistributedDataParallel` requires."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, instance: Instance, generator: torch.Generator, part: str = ""
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss and metrics, of one part where there are turns."""
        assert isinstance(self.model, Trainable)
        if part:
            assert isinstance(self.model, Alternating)
            return self.model.turn(part, instance, generator)
        return self.model.loss(instance, generator)


@contextmanager
def randomness(device: torch.device, seed: int, *key: int) -> Iterator[torch.Generator]:
    """A generator seeded by `seed` and `key`; PyTorch's global generators are seeded alike, and restored at the end."""
    number = int(np.random.SeedSequence(seed, spawn_key=key).generate_state(2)[1])  # PyTorch uses 32 bits of a seed
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(number)
        yield torch.Generator(device).manual_seed(number)
