"""Options that state a problem on the command line, shared by `solve` and `evaluate`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click
import torch
from torch import Tensor

from beamforge.core.errors import ConfigError, unknown
from beamforge.core.named_problems import ONLY_FOR, PROBLEMS, build_problem
from beamforge.core.problem import Problem
from beamforge.core.units import from_db
from beamforge.io.axes import AXES
from beamforge.io.channels import ChannelFile

LARGEST_DB = 300.0
"""Largest absolute SINR target in decibels; beyond it the linear ratio may overflow or underflow."""

RATIOS_DB = {"sinr_target_db": "sinr_target", "sensing_snr_db": "sensing_snr_target"}
"""Options in decibels, and the linear ratios that they state."""

OPTIONS_OF_PROBLEMS = ("jain", "sensing_weight", "outage", "power")
"""Options whose values are numbers of a problem under the same names."""

OPTIONS = (
    click.option("--axes", metavar="LETTERS", help=f"Letters of H's axes: {', '.join(map(' '.join, AXES.items()))}."),
    click.option("--key", metavar="NAME", help="Name of the channels in the file, if not H; NAME.FIELD in a struct."),
    click.option("--real-imag", type=int, metavar="AXIS", help="Axis of H with real and imaginary parts, from 0."),
    click.option("--p-max", type=float, metavar="WATT", help="Power limit, instead of the file's."),
    click.option("--p-max-transmitter", type=float, metavar="WATT", help="Power limit of each transmitter or link."),
    click.option("--noise", type=float, metavar="WATT", help="Noise power, instead of the file's."),
    click.option("--sinr-target-db", type=float, metavar="DB", help="SINR target of every user (not with rates)."),
    click.option("--jain", type=float, metavar="J", help="Mean of Jain's index over the file (fair-sum-rate)."),
    click.option("--sensing-snr-db", type=float, metavar="DB", help="Sensing SNR that every target needs (isac)."),
    click.option("--sensing-weight", type=float, metavar="A", help="Weight of sensing rates, added to the sum (isac)."),
    click.option(
        "--outage", type=float, metavar="E", help="Share of users that may miss their target (hybrid-min-power)."
    ),
    click.option("--power", metavar="NAME", help="Power to minimise: radiated or baseband (hybrid-min-power)."),
    click.option("--drop-blocked", is_flag=True, help="Leave users without a channel out (max-min, min-power)."),
    click.option("--device", default="cpu", show_default=True, help="Where to compute: cpu, cuda, cuda:1, ..."),
)


def problem_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that state a problem."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Request:
    """A problem by name, and the stated values that override those of the file."""

    problem: str
    p_max: float | None = None
    noise: float | None = None
    sinr_target_db: float | None = None
    jain: float | None = None
    p_max_transmitter: float | None = None
    drop_blocked: bool = False
    axes: str | None = None
    key: str | None = None
    real_imag: int | None = None
    sensing_snr_db: float | None = None
    sensing_weight: float | None = None
    outage: float | None = None
    power: str | None = None

    def __post_init__(self) -> None:
        if self.problem not in PROBLEMS:
            raise ConfigError(unknown("problem", self.problem, PROBLEMS))
        for option, entry in RATIOS_DB.items():
            value = getattr(self, option)
            name = option.replace("_", "-")
            if value is not None and self.problem not in ONLY_FOR[entry]:
                raise ConfigError(f"{name} must be left out with {self.problem}, got {value:g}")
            if value is not None and not abs(value) <= LARGEST_DB:
                raise ConfigError(f"{name} must be within ±{LARGEST_DB:g} dB, got {value:g}")
        if self.drop_blocked and self.problem not in ("min-power", "max-min"):
            raise ConfigError(f"drop-blocked must be left out with {self.problem}, got it")
        for name in OPTIONS_OF_PROBLEMS:
            if (value := getattr(self, name)) is not None and self.problem not in ONLY_FOR[name]:
                raise ConfigError(f"{name.replace('_', '-')} must be left out with {self.problem}, got {value}")
        if self.outage is not None and not 0 < self.outage < 1:
            raise ConfigError(f"outage must be a probability between 0 and 1, got {self.outage:g}")
        if self.sensing_weight is not None and not 0 <= self.sensing_weight < math.inf:
            raise ConfigError(f"sensing-weight must be non-negative and finite, got {self.sensing_weight:g}")

    def open(self, path: str) -> ChannelFile:
        """The channel file, with the stated values in place of the file's."""
        stated = {"p_max": self.p_max, "noise": self.noise, "p_max_transmitter": self.p_max_transmitter}
        for option, entry in RATIOS_DB.items():
            if (value := getattr(self, option)) is not None:
                stated[entry] = from_db(value)
        known = {name: value for name, value in stated.items() if value is not None}
        sensing = self.problem == "isac"
        return ChannelFile(path, axes=self.axes, key=self.key, real_imag=self.real_imag, sensing=sensing, **known)

    def build(self, context: Mapping[str, Tensor]) -> Problem:
        """The problem for a batch. With a stated SINR target, max-min balances SINRs and ignores the weights."""
        if self.sinr_target_db is not None:
            context = {name: value for name, value in context.items() if name != "weights"}
        if self.sensing_weight is not None:
            context = {name: value for name, value in context.items() if name != "sensing_snr_target"}
        given = {name: getattr(self, name) for name in OPTIONS_OF_PROBLEMS}
        return build_problem(self.problem, {**context, **{n: value for n, value in given.items() if value is not None}})


def pairs(settings: tuple[str, ...]) -> dict[str, str]:
    """``name=value`` arguments as a mapping.

    >>> pairs(("tolerance=1e-4",))
    {'tolerance': '1e-4'}
    """
    found = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise ConfigError(f"--set must be name=value, got {setting!r}")
        found[name] = value
    return found


def precision_of(bits: str | None, channels: ChannelFile) -> torch.dtype:
    """complex64 for "32", complex128 for "64", by default the precision of the file."""
    return {"32": torch.complex64, "64": torch.complex128, None: channels.dtype}[bits]
