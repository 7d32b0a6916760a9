"""The folder of a run: log, checkpoints, curves, and finally the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from beamforge.core.errors import ConfigError
from beamforge.io import weights
from beamforge.io.weights import Weights
from beamforge.io.writers import partial_path
from beamforge.training import checkpoints, log
from beamforge.training.log import Line, Log
from beamforge.training.steps import Steps
from beamforge.training.trainable import TrainingOnly

LAST, BEST, WEIGHTS = "last.pt", "best.pt", "weights.safetensors"


class Record:
    """Writes the results of `steps`; the last checkpoint is written after the log and the best checkpoint."""

    def __init__(self, out: Path, steps: Steps, report: Callable[[Line], None]) -> None:
        self.out, self.steps, self.report = out, steps, report
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / "recipe.toml").write_text(steps.recipe.text(), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"out must be a folder that can be written, got {out} ({error.strerror})") from None
        if not steps.progress.step:
            for name in (BEST, WEIGHTS):
                (out / name).unlink(missing_ok=True)
        self.log = Log(out / "log.jsonl", steps.progress.step)

    def write(self, lines: Sequence[Line], *, best: bool, last: bool) -> None:
        """Log the lines of a step, and save the checkpoints that are due."""
        for line in lines:
            self.log.write(line)
            self.report(line)
        for name, due in ((BEST, best), (LAST, last)):
            if due:
                checkpoints.save(self.out / name, self.steps.state())
        if len(lines) > 1:
            self.draw()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()

    def draw(self) -> None:
        """Draw the curves."""
        from beamforge.plot.style import png
        from beamforge.training.curves import curves

        picture = self.out / "curves.png"
        partial_path(picture).write_bytes(png(curves(log.read(self.out / "log.jsonl"))))
        partial_path(picture).replace(picture)

    def finish(self, origin: Mapping[str, str]) -> None:
        """Write the best weights of a finished run, with `origin` in their header."""
        if not (self.out / BEST).exists():
            raise ConfigError("validation loss must be finite at least once to choose the weights, got no finite one")
        best = checkpoints.load(self.out / BEST)
        model = self.steps.recipe.model
        header = {
            "model": model.name,
            "settings": dict(model.settings),
            "recipe": self.steps.recipe.tables(),
            "step": best["progress"]["step"],
            "validation_loss": best["progress"]["best"],
            "seconds": round(self.steps.progress.seconds, 1),
            **origin,
        }
        training_only = self.steps.model.training_only if isinstance(self.steps.model, TrainingOnly) else ()
        tensors = {name: value for name, value in best["model"].items() if not name.startswith(training_only)}
        if self.steps.recipe.run.precision == 16:
            tensors = weights.halved(tensors)
        weights.save(self.out / WEIGHTS, Weights(tensors, header))
