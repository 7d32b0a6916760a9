"""Suites: methods, problem and instances of a comparison; each shipped one takes about a minute on a laptop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from beamforge.core.errors import ConfigError, unknown
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.problem import Problem
from beamforge.scenarios import Fairness, Interference, Rayleigh, Recorded, Strong
from beamforge.scenarios.base import TEST_SEEDS, Scenario


@dataclass(frozen=True)
class Candidate:
    """A method and its settings."""

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name in tables.

        >>> Candidate("wslnr", {"alpha": 2.0}).label
        'wslnr alpha=2.0'
        """
        return " ".join([self.method, *(f"{name}={value}" for name, value in self.settings.items())])


@dataclass(frozen=True)
class Suite:
    """A problem, its instances, the methods to compare, and the baseline method.

    source    a scenario, sampled with the first of `TEST_SEEDS`.
    stated    numbers that the problem needs and the source does not provide, by the names of `Instance.context`.
    baseline  label of one of the candidates.
    count     instances, at most.
    """

    name: str
    description: str
    source: Scenario
    problem: str
    candidates: tuple[Candidate, ...]
    baseline: str
    count: int = 200
    stated: Mapping[str, float] = field(default_factory=dict)

    def instances(self) -> Instance:
        """The instances, one batch dimension, in double precision."""
        return self.source.sample(self.count, seed=TEST_SEEDS[0], dtype=torch.complex128)

    def build(self, context: Mapping[str, Any]) -> Problem:
        """The problem for instances with this context."""
        return build_problem(self.problem, {**context, **self.stated})


def candidates(*methods: str | Candidate) -> tuple[Candidate, ...]:
    """Methods by name, with their default settings unless a `Candidate` says otherwise."""
    return tuple(method if isinstance(method, Candidate) else Candidate(method) for method in methods)


SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            name="rayleigh-square",
            description="Sum rate, 16 users and 16 antennas, i.i.d. Rayleigh fading at 20 dB.",
            source=Rayleigh(users=16, antennas=16, snr_db=20.0),
            problem="sum-rate",
            candidates=candidates("mrt", "zf", "rzf", "multipliers", Candidate("wmmse", {"starts": 1}), "wmmse"),
            baseline="wmmse",
        ),
        Suite(
            name="overloaded",
            description="Sum rate, 24 users but 16 antennas, i.i.d. Rayleigh fading at 20 dB.",
            source=Rayleigh(users=24, antennas=16, snr_db=20.0),
            problem="sum-rate",
            candidates=candidates("mrt", "zf", "rzf", "multipliers", Candidate("wmmse", {"starts": 1}), "wmmse"),
            baseline="wmmse",
        ),
        Suite(
            name="path-loss-spread",
            description="Sum rate, 16 users whose path gains spread over 30 dB, 16 antennas, 20 dB on average.",
            source=Rayleigh(users=16, antennas=16, snr_db=20.0, gain_spread_db=30.0),
            problem="sum-rate",
            candidates=candidates("mrt", "zf", "rzf", "multipliers", Candidate("wmmse", {"starts": 1}), "wmmse"),
            baseline="wmmse",
        ),
        Suite(
            name="fairness-cell",
            description="Least rate of 12 users scattered over a cell of 500 m with 16 antennas and 10 W.",
            source=Fairness(),
            problem="max-min",
            candidates=candidates("rzf", "wslnr", Candidate("wslnr", {"alpha": 5.0}), "duality"),
            baseline="duality",
        ),
        Suite(
            name="interference",
            description="Sum rate of 8 cells with 8 antennas and one user each, cross gains of 0.2, 10 dB.",
            source=Interference(cells=8, antennas=8, snr_db=10.0),
            problem="sum-rate",
            candidates=candidates("mrt", "zf", "rzf", "fastfp", "wmmse"),
            baseline="wmmse",
        ),
        Suite(
            name="power-control-strong",
            description="Weighted sum rate of 16 single-antenna links under strong interference, 2 W in all.",
            source=Strong(links=16),
            problem="sum-rate",
            candidates=candidates(
                "mrt", "fastfp", Candidate("wmmse", {"starts": 1}), "wmmse", "neural-sum-rate-shared", "global"
            ),
            baseline="global",
        ),
        Suite(
            name="munich",
            description="Sum rate in the ray-traced centre of Munich: 16 users, 64 antennas on a rooftop, 0.25 W.",
            source=Recorded("munich.npz"),
            problem="sum-rate",
            candidates=candidates("mrt", "zf", "rzf", "multipliers", "wmmse"),
            baseline="wmmse",
        ),
    )
}
"""Shipped suites by name."""


def find_suite(name: str) -> Suite:
    """The suite of that name; `ConfigError` with the nearest one if there is none."""
    if name not in SUITES:
        raise ConfigError(unknown("suite", name, SUITES))
    return SUITES[name]
