"""Fig. 3: prices and validation outage during training, with the annealed and the quantile constraint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from beamforge.plot.style import line, styled
from beamforge.reproduce.exhibits import Options
from beamforge.reproduce.hybrid.networks import DIGITAL, GCN, trains
from beamforge.reproduce.training import trained
from beamforge.training import log
from beamforge.training.log import Line
from beamforge.training.outage import FORMS

KINDS = ("0 dB", "10 dB", "20 dB", "0 to 20 dB")
"""Names of the kinds of channel knowledge in a log, in order."""

FULL = {"run.validate_every": "100"}
"""Changes of the recipe for a full run."""

QUICK = {"run.steps": "60", "run.validate_every": "10", "run.validation_batches": "4"}
"""Changes of the recipe for a run with shipped weights, which trains the fully digital network briefly."""


def logs(options: Options) -> dict[str, list[Line]]:
    """The log of a training with each form of the constraint, for four users."""
    recipe, short = (GCN, FULL) if trains(options) else (DIGITAL, QUICK)
    changes = {"data.users": "[4, 4]", **short}
    found: dict[str, list[Line]] = {}
    for form in FORMS:
        name = f"figure-3-{form}"
        trained(options, name, recipe, {**changes, "model.constraint": form})
        found[form] = [*log.read(Path(options.out) / name / "log.jsonl")]
    return found


def variability(lines: list[Line], nominal: float) -> float:
    """Mean distance of the validation outage from the nominal one in the second half of a training, over the kinds."""
    watched = [one["validation"] for one in lines if "validation" in one]
    later = watched[len(watched) // 2 :]
    return float(np.mean([abs(one[f"outage_{kind + 1}"] - nominal) for one in later for kind in range(len(KINDS))]))


@styled
def curves(found: Mapping[str, list[Line]], nominal: float) -> Figure:
    """A row of panels for each form: prices by the step, and outage on validation instances."""
    figure = Figure(figsize=(8.4, 5.6), layout="constrained")
    axes = figure.subplots(len(found), 2, squeeze=False, sharex="col")
    for (left, right), (form, lines) in zip(axes, found.items(), strict=True):
        steps = [one for one in lines if "validation" not in one]
        watched = [one for one in lines if "validation" in one]
        for kind, name in enumerate(KINDS):
            style = line(kind)
            prices = [one.get(f"price_{kind + 1}", np.nan) for one in steps]
            left.plot([one["step"] for one in steps], prices, label=name, color=style["color"], ls=style["linestyle"])
            shares = [one["validation"][f"outage_{kind + 1}"] for one in watched]
            right.plot([one["step"] for one in watched], shares, **style)
        right.axhline(nominal, color="black", linewidth=0.8)
        left.set(ylabel=f"Price, {form}")
        right.set(ylabel="Validation outage")
    for place in axes[-1]:
        place.set(xlabel="Step")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, title="Pilot power over noise")
    return figure
