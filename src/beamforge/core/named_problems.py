"""Problems by name, built from the numbers of a context (limits, weights, targets)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from beamforge.core.constraints import (
    Constraint,
    EqualPower,
    MeanJainAtLeast,
    PerAntennaPower,
    PerTransmitterPower,
    SinrAtLeast,
    TotalPower,
)
from beamforge.core.errors import ConfigError, ShapeError, unknown
from beamforge.core.hybrid import AnalogCodebook, BasebandPower, MeanSinrOutage
from beamforge.core.problem import Problem
from beamforge.core.sensing import RateAndSensing, SensingSnrAtLeast
from beamforge.core.utilities import MinRate, MinSinr, SumRate, TransmitPower, Utility

Context = Mapping[str, Any]


def power_limits(context: Context, *, required: bool) -> tuple[Constraint, ...]:
    """The power constraints of `p_max` (total), `p_max_transmitter` and `p_max_antenna`, watts.

    Raises `ConfigError` if there is none and one is `required`.
    """
    kinds = {
        "p_max": TotalPower,
        "p_max_transmitter": PerTransmitterPower,
        "p_max_antenna": PerAntennaPower,
    }
    limits = tuple(kind(context[name]) for name, kind in kinds.items() if name in context)
    if required and not limits:
        raise ConfigError("p_max (watts) must be given for this problem, got none")
    return limits


def sum_rate(context: Context) -> Problem:
    """Maximise ``sum_k weights_k rate_k`` within the power limits."""
    return Problem(SumRate(context.get("weights", 1.0)), power_limits(context, required=True))


def max_min(context: Context) -> Problem:
    """Maximise the least ``weights_k rate_k`` if weights are given, else ``SINR_k / target_k`` if targets are, else
    the least rate."""
    limits = power_limits(context, required=True)
    if "weights" in context:
        return Problem(MinRate(context["weights"]), limits)
    if "sinr_target" in context:
        return Problem(MinSinr(context["sinr_target"]), limits)
    return Problem(MinRate(), limits)


def min_power(context: Context) -> Problem:
    """Minimise the transmit power subject to SINR targets (linear), and to power limits if they are given."""
    if "sinr_target" not in context:
        raise ConfigError("sinr_target must be given for min-power, got none")
    targets = SinrAtLeast(context["sinr_target"])
    return Problem(TransmitPower(), (targets, *power_limits(context, required=False)))


def fair_sum_rate(context: Context) -> Problem:
    """Maximise ``sum_k weights_k rate_k`` with equal powers, such that Jain's index is at least `jain` in the mean."""
    for name, whose in (("p_max_transmitter", "several transmitters"), ("p_max_antenna", "antennas")):
        if name in context:
            raise ConfigError(f"fair-sum-rate must have one transmitter and p_max alone, got power limits of {whose}")
    for name, what in (("p_max", "watts, the total of one transmitter"), ("jain", "mean of Jain's index")):
        if name not in context:
            raise ConfigError(f"{name} ({what}) must be given for fair-sum-rate, got none")
    limits = EqualPower(context["p_max"]), MeanJainAtLeast(context["jain"])
    return Problem(SumRate(context.get("weights", 1.0)), limits)


def isac(context: Context) -> Problem:
    """Maximise ``sum_k weights_k rate_k`` with the sensing SNR of every target at least `sensing_snr_target` (linear).

    Where `sensing_weight` is stated instead, sensing rates with that weight are added to the sum.
    """
    if "p_max" not in context:
        raise ConfigError("p_max (watts, the total of one transmitter) must be given for isac, got none")
    for name in ("target_angles", "target_gain"):
        if name not in context:
            raise ConfigError(f"{name} (one number a target) must be given for isac, got none")
    angles, gain = context["target_angles"], context["target_gain"]
    if isinstance(angles, Tensor) and isinstance(gain, Tensor) and angles.shape[-1:] != gain.shape[-1:]:
        expected = f"as many numbers as target_angles, {tuple(angles.shape)}"
        raise ShapeError(f"target_gain must have {expected}, got {tuple(gain.shape)}")
    if ("sensing_snr_target" in context) == ("sensing_weight" in context):
        which = "both" if "sensing_snr_target" in context else "neither"
        raise ConfigError(f"isac must have either sensing_snr_target or sensing_weight, got {which}")
    limits = power_limits(context, required=True)
    named = {"angle": "target_angles", "gain": "target_gain", "noise": "sensing_noise"}
    targets = {field: context[name] for field, name in named.items() if name in context}
    weights = context.get("weights", 1.0)
    if "sensing_weight" in context:
        return Problem(RateAndSensing(**targets, weights=weights, weight=context["sensing_weight"]), limits)
    level: Any = context["sensing_snr_target"]  # for all targets of an instance
    level = level.unsqueeze(-1) if isinstance(level, Tensor) else [level]
    return Problem(SumRate(weights), (*limits, SensingSnrAtLeast(**targets, level=level)))


def hybrid_min_power(context: Context) -> Problem:
    """Minimise the power of hybrid beams subject to SINR targets, or to a mean `outage` of them over a batch.

    The analog beams are columns of `codebook` (by default the DFT). The power is the radiated one unless `power` is
    "baseband".
    """
    if "sinr_target" not in context:
        raise ConfigError("sinr_target must be given for hybrid-min-power, got none")
    target, power = context["sinr_target"], context.get("power", "radiated")
    if power not in POWERS:
        raise ConfigError(f"power must be {' or '.join(POWERS)}, got {power!r}")
    targets = MeanSinrOutage(context["outage"], target) if "outage" in context else SinrAtLeast(target)
    limits = power_limits(context, required=False)
    return Problem(POWERS[str(power)](), (targets, AnalogCodebook(context.get("codebook")), *limits))


POWERS: dict[str, type[Utility]] = {"radiated": TransmitPower, "baseband": BasebandPower}
"""Powers that hybrid-min-power can minimise, by name."""

PROBLEMS: dict[str, Callable[[Context], Problem]] = {
    "sum-rate": sum_rate,
    "max-min": max_min,
    "min-power": min_power,
    "fair-sum-rate": fair_sum_rate,
    "isac": isac,
    "hybrid-min-power": hybrid_min_power,
}

ONLY_FOR = {
    **dict.fromkeys(("target_angles", "target_gain", "sensing_noise"), ("isac",)),
    **dict.fromkeys(("codebook", "outage", "power"), ("hybrid-min-power",)),
    "sinr_target": ("max-min", "min-power", "hybrid-min-power"),
    "jain": ("fair-sum-rate",),
    "sensing_snr_target": ("isac",),
    "sensing_weight": ("isac",),
}
"""The problems that use a number, by its name; if it is given by hand for another problem, it is refused."""


def build_problem(name: str, context: Context) -> Problem:
    """The named problem with the numbers of `context`; `ConfigError` for an unknown name or a missing number.

    >>> build_problem("sum-rate", {"p_max": 1.0}).maximise
    SumRate(weights=1.0)
    """
    if name not in PROBLEMS:
        raise ConfigError(unknown("problem", name, PROBLEMS))
    return PROBLEMS[name](context)
