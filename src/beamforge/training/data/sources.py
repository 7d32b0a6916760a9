"""Kinds of training data, by their names in the ``[data]`` section of a recipe."""

from __future__ import annotations

from typing import Any

from beamforge.training.data.cells import Cells
from beamforge.training.data.downlink import Downlink
from beamforge.training.data.hybrid import HybridFeedback, HybridPilots
from beamforge.training.data.interference import Interference
from beamforge.training.data.interference_grid import InterferenceGrid
from beamforge.training.data.isac import MaskedIsac
from beamforge.training.data.isac_grid import IsacGrid
from beamforge.training.data.labelled import Labelled
from beamforge.training.data.links import Links
from beamforge.training.data.masked import Masked

SOURCES: dict[str, type[Any]] = {
    "downlink": Downlink,
    "cells": Cells,
    "links": Links,
    "labelled": Labelled,
    "interference": Interference,
    "interference-grid": InterferenceGrid,
    "isac-grid": IsacGrid,
    "hybrid-feedback": HybridFeedback,
    "hybrid-pilots": HybridPilots,
    "masked": Masked,
    "isac": MaskedIsac,
}
"""Dataclasses whose fields are the entries of ``[data]``, each a `beamforge.training.stream.Source`."""
