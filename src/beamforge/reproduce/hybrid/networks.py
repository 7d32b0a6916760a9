"""The networks of the comparison: shipped, or newly trained in folds."""

from __future__ import annotations

from collections.abc import Mapping

from beamforge.core.errors import ConfigError
from beamforge.core.solver import Solver
from beamforge.registry import MODELS, configure
from beamforge.reproduce.exhibits import Options
from beamforge.reproduce.training import trained

GCN, FCN, DIGITAL, TWO = "hybrid-gcn", "hybrid-fcn", "fulldigital-gcn", "hybrid-2gcn"

FOLDS = 5
"""Folds of a training."""


def trains(options: Options) -> bool:
    """Whether networks are to be trained: not with `quick`, and not with the setting ``checkpoint=shipped``.

    Raises `ConfigError` for other settings.
    """
    for name, value in options.settings.items():
        if (name, value) != ("checkpoint", "shipped"):
            raise ConfigError(f"the only setting of hybrid-outage must be checkpoint=shipped, got {name}={value}")
    return not (options.quick or options.settings)


def networks(options: Options, name: str, model: str, changes: Mapping[str, str]) -> list[Solver]:
    """One network for each fold, trained in folders that begin with `name`; or the shipped one alone."""
    if not trains(options):
        return [configure(MODELS[model], {"checkpoint": "shipped"})]
    found = []
    for fold in range(FOLDS):
        of_fold = {"run.folds": str(FOLDS), "run.fold": str(fold)}
        file = trained(options, f"{name}-{fold}", model, {**changes, **of_fold})
        found.append(configure(MODELS[model], {"checkpoint": file}))
    return found
