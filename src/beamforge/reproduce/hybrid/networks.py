"""The networks of the comparison: shipped, or newly trained in folds."""

from __future__ import annotations

from collections.abc import Mapping

from beamforge.core.solver import Solver
from beamforge.registry import MODELS, configure
from beamforge.reproduce.exhibits import Options
from beamforge.reproduce.training import trained

GCN, FCN, DIGITAL, TWO = "hybrid-gcn", "hybrid-fcn", "fulldigital-gcn", "hybrid-2gcn"

FOLDS = 5
"""Folds of a training."""


def networks(options: Options, name: str, model: str, changes: Mapping[str, str]) -> list[Solver]:
    """One network for each fold, trained in folders that begin with `name`; with `quick`, the shipped one alone."""
    if options.quick:
        return [configure(MODELS[model], {"checkpoint": "shipped"})]
    found = []
    for fold in range(FOLDS):
        of_fold = {"run.folds": str(FOLDS), "run.fold": str(fold)}
        file = trained(options, f"{name}-{fold}", model, {**changes, **of_fold})
        found.append(configure(MODELS[model], {"checkpoint": file}))
    return found
