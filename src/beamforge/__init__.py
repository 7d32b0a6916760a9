"""beamforge: optimal beamformers and transmit powers for many users, by classical and learned methods."""

from beamforge.api import solve
from beamforge.core.errors import BeamforgeError, ChannelFileError, ConfigError, ShapeError, UnsupportedProblem
from beamforge.core.evaluate import Report, evaluate
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.io.axes import from_axes

__version__ = "0.1.0"

__all__ = [
    "BeamforgeError",
    "ChannelFileError",
    "ConfigError",
    "Instance",
    "Network",
    "Problem",
    "Report",
    "ShapeError",
    "Solution",
    "Solver",
    "Status",
    "UnsupportedProblem",
    "__version__",
    "evaluate",
    "from_axes",
    "solve",
]
