"""Fig. 3 of the paper: rate regions of two base stations of two antennas, a convex and a non-convex one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from beamforge.bench.statistics import Values
from beamforge.classical.interference.pareto_boundary import boundary
from beamforge.core import batching
from beamforge.core.instance import Instance
from beamforge.core.problem import Problem
from beamforge.core.constraints import PerTransmitterPower
from beamforge.core.utilities import MinRate, SumRate
from beamforge.plot.style import COLOURS, png, styled
from beamforge.registry import create
from beamforge.reproduce.decentralised.cells import Cell
from beamforge.reproduce.exhibits import Exhibit, Options, Picture, Table

CELL = Cell(users=2, snr_db=15, antennas=2)
SEARCHED = 300
"""Realisations among which the two cases are looked for."""
