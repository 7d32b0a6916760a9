"""beamforge: optimal beamformers and transmit powers for many users, by classical and learned methods."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beamforge.api import solve
    from beamforge.compiled.function import compile
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
    "compile",
    "evaluate",
    "from_axes",
    "solve",
]

MODULES = {
    "api": ("solve",),
    "compiled.function": ("compile",),
    "core.errors": ("BeamforgeError", "ChannelFileError", "ConfigError", "ShapeError", "UnsupportedProblem"),
    "core.evaluate": ("Report", "evaluate"),
    "core.instance": ("Instance",),
    "core.network": ("Network",),
    "core.problem": ("Problem",),
    "core.solution": ("Solution", "Status"),
    "core.solver": ("Solver",),
    "io.axes": ("from_axes",),
}
"""Public names by module. A module is imported at the first use of its names, since PyTorch takes seconds to import."""


def __getattr__(name: str) -> Any:
    for module, names in MODULES.items():
        if name in names:
            found = globals()[name] = getattr(importlib.import_module(f"beamforge.{module}"), name)
            return found
    if not name.startswith("_") and importlib.util.find_spec(f"beamforge.{name}"):
        return importlib.import_module(f"beamforge.{name}")
    raise AttributeError(f"module 'beamforge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
