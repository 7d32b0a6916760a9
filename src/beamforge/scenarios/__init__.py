"""Scenarios by name: random models of users and their channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from beamforge.core.errors import ConfigError, unknown
from beamforge.core.settings import convert
from beamforge.scenarios.base import Scenario
from beamforge.scenarios.cell import Cell, Fairness, PathLoss
from beamforge.scenarios.csi import PilotCSI
from beamforge.scenarios.feedback import FeedbackCSI
from beamforge.scenarios.hybrid import HybridOutage
from beamforge.scenarios.interference import Interference
from beamforge.scenarios.isac import Isac
from beamforge.scenarios.power_control import Strong, ThreeLinks, Weak
from beamforge.scenarios.rayleigh import Rayleigh
from beamforge.scenarios.raytraced import Munich
from beamforge.scenarios.recorded import Recorded
from beamforge.scenarios.tr38901 import CDL, RMa, UMa, UMi
from beamforge.scenarios.upa import UPA

__all__ = [
    "CDL",
    "SCENARIOS",
    "UPA",
    "Cell",
    "Fairness",
    "FeedbackCSI",
    "HybridOutage",
    "Interference",
    "Isac",
    "Munich",
    "PathLoss",
    "PilotCSI",
    "RMa",
    "Rayleigh",
    "Recorded",
    "Scenario",
    "Strong",
    "ThreeLinks",
    "UMa",
    "UMi",
    "Weak",
    "scenario",
    "summary",
]

SCENARIOS: Mapping[str, type[Scenario]] = {
    "rayleigh": Rayleigh,
    "cell": Cell,
    "fairness": Fairness,
    "interference": Interference,
    "isac": Isac,
    "weak": Weak,
    "strong": Strong,
    "three-links": ThreeLinks,
    "upa": UPA,
    "pilot-csi": PilotCSI,
    "feedback-csi": FeedbackCSI,
    "hybrid-outage": HybridOutage,
    "uma": UMa,
    "umi": UMi,
    "rma": RMa,
    "cdl": CDL,
    "munich": Munich,
    "recorded": Recorded,
}
"""All scenarios by name. Each has defaults for all fields; Sionna is imported only when it is needed to sample."""

Config = TypeVar("Config")


def scenario(name: str, /, **overrides: Any) -> Scenario:
    """The scenario of that name with some fields changed; strings are converted to the type of the field.

    Fields of a nested dataclass have dotted names; a nested scenario can be replaced by the name of another one. Raises
    `ConfigError` for an unknown name or field (the message has the nearest known one) and for a value that does not
    fit.

    >>> scenario("rayleigh", users="4", snr_db=20.0)
    Rayleigh(users=4, antennas=8, snr_db=20.0, gain_spread_db=0.0, correlation=0.0)
    >>> scenario("pilot-csi", **{"channels": "rayleigh", "channels.users": "4"}).users
    4
    """
    if name not in SCENARIOS:
        raise ConfigError(unknown("scenario", name, SCENARIOS))
    return _configure(SCENARIOS[name](), overrides)


def summary(name: str) -> str:
    """One line about the scenario of that name: the first line of its docstring.

    >>> summary("upa")
    'Spatially correlated Rayleigh channels of a half-wavelength planar array, with SINR targets to meet.'
    """
    return (SCENARIOS[name].__doc__ or "").partition("\n")[0]


def _configure(config: Config, overrides: Mapping[str, Any]) -> Config:
    """The dataclass `config` with new values for its fields; dotted names are fields of nested dataclasses."""
    hints = get_type_hints(type(config))
    own = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in overrides.items():
        head, _, rest = name.partition(".")
        nested = dataclasses.is_dataclass(getattr(config, head, None))
        if head not in own or (rest and not nested):
            raise ConfigError(unknown(f"field of {type(config).__name__}", name, own))
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            values[head] = _read(name, value, hints[head])
    for head, changes in inner.items():
        values[head] = _configure(values.get(head, getattr(config, head)), changes)
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def _read(name: str, value: Any, hint: Any) -> Any:
    """The value of a field from the given one; a string is converted by the field's annotation."""
    if not isinstance(value, str):
        return value
    if isinstance(hint, type) and issubclass(hint, Scenario):
        return scenario(value)
    if dataclasses.is_dataclass(hint):
        raise ConfigError(f"field {name} must be set field by field, as {name}.NAME, got {value!r}")
    return convert(name, value, hint)
