"""The networks for sum rate under a prescribed fairness: shipped, or newly trained."""

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
"""The setting for the weights of the multipliers."""


@dataclass(frozen=True)
class Training:
    """A training of the transformer for a target: its initial price and other changes of the recipe.

    after  target of a network trained before, whose weights are the initial ones; None for random weights.
    """

    limit: float
    price: float
    after: float | None = None
    changes: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the folder and of the weights: ``wit-86`` is for 0.86."""
        return f"wit-{f'{self.limit:g}'.removeprefix('0.').ljust(2, '0')}"


SHORT_RUN = {"run.steps": "1500", "optimiser.lr": "1e-3", "optimiser.warm_up": "10"}
"""Changes of the recipe for a training that starts from the weights of a nearby target."""

TRAININGS = (
    Training(0.86, 2.2),
    Training(0.97, 6.0),
    Training(0.75, 2.0),
    Training(0.8, 2.0, 0.86, SHORT_RUN),
    Training(0.9, 2.8, 0.86, SHORT_RUN),
    Training(0.96, 5.0, 0.97, SHORT_RUN),
    Training(0.93, 3.5, 0.96, {**SHORT_RUN, "run.steps": "4000"}),
    Training(0.973, 6.5, 0.97, SHORT_RUN),
    Training(0.7, 1.2, 0.75, SHORT_RUN),
    Training(0.6, 0.1, 0.7, SHORT_RUN),
)
"""All trainings, in order."""


@dataclass(frozen=True)
class Networks:
    """The learned multipliers, and the transformer by target."""

    multipliers: Solver
    wit: Mapping[float, WiT]


def networks(options: Options) -> Networks:
    """Networks newly trained in the folder of the reproduction; shipped ones with `quick` or given weights."""
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
