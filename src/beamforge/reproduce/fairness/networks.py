"""The networks behind sum rate under a prescribed fairness: those that come with the package, or trained anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from beamforge.core.solver import Solver
from beamforge.learned.fairness.multipliers import FairMultipliers
from beamforge.learned.fairness.wit import WiT, targets
from beamforge.registry import configure
from beamforge.reproduce.exhibits import Options
from beamforge.reproduce.training import trained

WEIGHTS = "checkpoint"
"""The setting that says whose weights the multipliers have."""


@dataclass(frozen=True)
class Training:
    """Of the transformer for a target: the price that it begins with, whose weights, and what else the recipe does not
    say.

    after  target of the network whose weights it begins with, trained before; None begins with nothing.
    """

    limit: float
    price: float
    after: float | None = None
    changes: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its folder and of its weights: ``wit-86`` is for 0.86."""
        return f"wit-{f'{self.limit:g}'.removeprefix('0.').ljust(2, '0')}"


SHORT = {"run.steps": "1500", "optimiser.lr": "1e-3", "optimiser.warm_up": "10"}
"""Of a training that begins with a neighbour's weights."""

TRAININGS = (
    Training(0.86, 2.2),
    Training(0.97, 6.0),
    Training(0.75, 2.0),
    Training(0.8, 2.0, 0.86, SHORT),
    Training(0.9, 2.8, 0.86, SHORT),
    Training(0.96, 5.0, 0.97, SHORT),
    Training(0.93, 3.5, 0.96, {**SHORT, "run.steps": "4000"}),
    Training(0.973, 6.5, 0.97, SHORT),
    Training(0.7, 1.2, 0.75, SHORT),
    Training(0.6, 0.1, 0.7, SHORT),
)
"""In the order in which they are trained."""


@dataclass(frozen=True)
class Networks:
    """The learned multipliers, and the transformer by target."""

    multipliers: Solver
    wit: Mapping[float, WiT]


def networks(options: Options) -> Networks:
    """Trained anew in the folder of the reproduction; those of the package where it is quick or weights are given."""
    if options.quick or WEIGHTS in options.settings:
        multipliers = configure(FairMultipliers, options.settings)
        return Networks(multipliers, {limit: WiT(checkpoint=shipped) for limit, shipped in targets().items()})
    ours = trained(options, "fair-multipliers", "fair-multipliers")
    files: dict[float, str] = {}
    for one in TRAININGS:
        begun = {} if one.after is None else {"model.checkpoint": files[one.after]}
        changes = {"model.jain": f"{one.limit:g}", "model.price": f"{one.price:g}", **begun, **one.changes}
        files[one.limit] = trained(options, one.name, "wit", changes)
    multipliers = configure(FairMultipliers, {**options.settings, WEIGHTS: ours})
    return Networks(multipliers, {limit: WiT(checkpoint=files[limit]) for limit in sorted(files)})
