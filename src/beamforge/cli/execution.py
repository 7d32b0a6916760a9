"""How base stations run: all of them in this process, or each in its own, and what their messages cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import click
import torch

from beamforge.cli.request import Request
from beamforge.core.capability import Form, forms
from beamforge.core.errors import ConfigError
from beamforge.core.network import Network
from beamforge.core.solution import Solution
from beamforge.core.solver import Solver
from beamforge.decentralised.launch import TIME_LIMIT, apart, joined, launched, rank_here
from beamforge.decentralised.quantised import BITS
from beamforge.decentralised.solver import DecentralisedSolver

OPTIONS = (
    click.option("--decentralised", is_flag=True, help="Each base station is a process with its own channels alone."),
    click.option("--message-bits", type=click.Choice([*map(str, BITS)]), help="Of a number between base stations."),
    click.option("--time-limit", type=float, metavar="SECONDS", help=f"To wait for a base station; {TIME_LIMIT:g}."),
)


def executing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say how base stations run."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Execution:
    """What is asked of it; `ConfigError` for what does not go together."""

    decentralised: bool
    message_bits: int | None
    time_limit: float | None
    request: Request

    def __post_init__(self) -> None:
        if self.time_limit is not None and not self.decentralised:
            raise ConfigError(f"time-limit must be left out without --decentralised, got {self.time_limit:g}")
        if self.time_limit is not None and not 0 < self.time_limit < math.inf:
            raise ConfigError(f"time-limit must be positive, finite seconds, got {self.time_limit:g}")
        if self.decentralised and self.request.drop_blocked:
            raise ConfigError("drop-blocked must be left out with --decentralised, where every base station has a part")

    @property
    def alone(self) -> bool:
        """Whether the method must be one whose base stations decide alone."""
        return self.decentralised or self.message_bits is not None

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes the solutions."""
        return not self.decentralised or rank_here() == 0

    @property
    def stated(self) -> dict[str, Any]:
        """What the solutions depend on, for their file."""
        stated = {"decentralised": self.decentralised, "message_bits": self.message_bits}
        return {name: value for name, value in stated.items() if value}

    def check(self, network: Network) -> None:
        """`ConfigError` unless every user of the network has a base station, where that is needed."""
        if self.alone and Form.INTERFERENCE not in forms(network):
            came = f"{network.transmitters} transmitters and {network.users} users"
            raise ConfigError(f"base stations that decide alone must be one for each user in order, got {came}")

    def set(self, solver: Solver) -> Solver:
        """The solver with messages of so many bits."""
        if isinstance(solver, DecentralisedSolver):
            solver.message_bits = self.message_bits
        return solver

    @contextmanager
    def started(self, solver: Solver, count: int, device: torch.device) -> Iterator[Solver | None]:
        """The solver with its base stations running; None in a process that has served as one of them."""
        if not (self.decentralised and isinstance(solver, DecentralisedSolver)):
            yield solver
            return
        start = apart if launched() is None else joined
        with start(solver, count, self.time_limit or TIME_LIMIT, device) as operator:
            yield operator


@dataclass
class Traffic:
    """What base stations sent one another, and which of them were missed."""

    messages: int = 0
    scalars: int = 0
    bits: int = 0
    instances: int = 0
    missed: set[int] = field(default_factory=set)

    def count(self, solution: Solution) -> None:
        """Add a batch: a message holds a number for each of its instances."""
        if "scalars" not in solution.info or not len(solution.status):
            return
        each = solution.info["scalars"]
        self.messages += int(each[0])
        self.scalars += int(each.sum())
        self.bits += int(solution.info["bits"].sum())
        self.instances += len(each)
        if "missed" in solution.info:
            self.missed |= set(solution.info["missed"].any(0).nonzero().flatten().tolist())

    @property
    def told(self) -> dict[str, Any]:
        """Entries of a summary, none where nobody decided alone."""
        if not self.instances:
            return {}
        exchanged = {"messages": self.messages, "scalars": self.scalars, "bytes": math.ceil(self.bits / 8)}
        return {
            "exchanged": exchanged | {"scalars_per_instance": self.scalars / self.instances},
            "missed_base_stations": sorted(self.missed),
        }
