"""Fig. 2 of the paper: weighted sum rate and duality gap during training, alternating and joint, for K = N = 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from beamforge.plot.style import line, png, styled
from beamforge.reproduce.exhibits import Exhibit, Options, Picture, Table
from beamforge.reproduce.training import trained
from beamforge.training import log
from beamforge.training.log import Line

RECIPE = "itnet-dualnet-sum-rate"

STEPS, QUICK = 2000, 60
VALIDATIONS = 20

TRAININGS = {"alternating (Algorithm 2)": "true", "joint (24)": "false"}
"""By label, the recipe's `model.alternating`."""

Curve = list[Line]
"""Lines of the log with a validation."""


def training_curves(options: Options) -> Iterator[Exhibit]:
    """Both trainings from the same initial weights on the same batches, in folders of the reproduction."""
    steps = QUICK if options.quick else STEPS
    curves: dict[str, Curve] = {}
    for label, alternating in TRAININGS.items():
        name = f"figure-2-{label.split()[0]}{'-quick' if options.quick else ''}"
        changes = {
            "model.alternating": alternating,
            "data.cells": "[2, 2]",
            "data.antennas": "[2, 2]",
            "run.steps": str(steps),
            "run.validate_every": str(steps // VALIDATIONS),
            "run.validation_batches": "4",
        }
        weights = trained(options, name, RECIPE, changes)
        curves[label] = [entry for entry in log.read(Path(weights).parent / "log.jsonl") if "validation" in entry]
    yield table(curves)
    yield Picture("figure-2-training", png(figure(curves)))


def table(curves: dict[str, Curve]) -> Table:
    """Figures of the validation instances at the end of each training."""
    rows = []
    for label, curve in curves.items():
        last = curve[-1]["validation"]
        rate, gap, size = (last[name] for name in ("weighted_rate", "gap", "gap_size"))
        rows.append([label, curve[-1]["step"], rate, 100 * gap / last["rate_within"], 100 * size / last["rate_within"]])
    columns = ["Training", "Steps", "Weighted sum rate (bit/s/Hz)", "Gap (% of rate)", "Size of gap (% of rate)"]
    return Table("figure-2-training", "Fig. 2: validation at the end of training, K = N = 2", columns, rows)


@styled
def figure(curves: dict[str, Curve]) -> Figure:
    """The weighted sum rate, and the duality gap in percent of the rate, against training steps."""
    found = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = found.subplots(1, 2)
    for index, (label, curve) in enumerate(curves.items()):
        steps = [entry["step"] for entry in curve]
        values = [entry["validation"] for entry in curve]
        left.plot(steps, [value["weighted_rate"] for value in values], label=label, **line(index))
        right.plot(steps, [100 * value["gap_size"] / value["rate_within"] for value in values], **line(index))
    left.set(xlabel="Training steps", ylabel="Weighted sum rate (bit/s/Hz)")
    right.set(xlabel="Training steps", ylabel="Size of the duality gap (% of the rate)", yscale="log")
    found.legend(loc="outside upper center", ncols=2)
    return found
