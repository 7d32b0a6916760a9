"""Small problems of every kind in a method's capabilities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from beamforge.core.capability import Capability, Feature, Form
from beamforge.core.constraints import (
    Constraint,
    EqualPower,
    JainAtLeast,
    MeanJainAtLeast,
    PerAntennaPower,
    PerTransmitterPower,
    SinrAtLeast,
    TotalPower,
)
from beamforge.core.hybrid import AnalogCodebook, MeanSinrOutage
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.sensing import RateAndSensing, SensingSnrAtLeast
from beamforge.core.solver import Solver
from beamforge.core.streams import numbers
from beamforge.core.utilities import Utility

BATCH = 4

WEAK = 0.2
"""Factor on the channel (the power gains of links) of the last user of the first instance."""

RECEIVE_ANTENNAS = 2
"""Antennas of the users of an example network, where a method can handle several."""

EXAMPLES: tuple[Constraint, ...] = (
    TotalPower(4.0),
    PerTransmitterPower(2.0),
    PerAntennaPower(0.5),
    EqualPower(4.0),
    SinrAtLeast(0.8),
    JainAtLeast(0.935),
    MeanJainAtLeast(0.97),
    SensingSnrAtLeast((0.3,), (1.0,), level=(1.0,)),
    AnalogCodebook(),
    MeanSinrOutage(0.1, 0.8),
)
"""A limit of every kind; the example networks can meet all limits of a problem together."""


UTILITIES: tuple[Utility, ...] = (RateAndSensing((0.3,), (1.0,)),)
"""An example of every utility that cannot be made without numbers."""


class Question(NamedTuple):
    """A small problem on a batch of small instances, all of them feasible."""

    name: str
    problem: Problem
    instance: Instance


def questions_for(kind: type[Solver], seed: int = 0) -> list[Question]:
    """A question for each utility, form, set of limits and feature in a method's capabilities."""
    found: dict[str, Question] = {}
    for capability in kind.capabilities:
        for form in capability.forms:
            for feature in (None, *capability.handles):
                network = example_network(form, torch.Generator().manual_seed(seed), *kind.tried_on, feature)
                for limits in sets_of_limits(capability):
                    problem = Problem(
                        example_utility(capability.utility), tuple(example_limit(limit) for limit in limits)
                    )
                    if kind.supports(problem, network):
                        words = f" with {feature.value}" if feature else ""
                        named = ", ".join(limit.__name__ for limit in limits)
                        name = f"{capability.utility.__name__} with {named} on {form.value}{words}"
                        found[name] = Question(name, problem.bind(network), Instance.perfect(network))
    return list(found.values())


def sets_of_limits(capability: Capability) -> Iterator[tuple[type[Constraint], ...]]:
    """All required limits with each choice of `needs_one_of`, without and with each limit of `allows`."""
    for one in capability.needs_one_of or (None,):
        needed = (*capability.needs, *([] if one is None else [one]))
        for extra in (None, *capability.allows):
            yield needed if extra is None or extra in needed else (*needed, extra)


def example_network(
    form: Form, generator: torch.Generator, users: int = 3, antennas: int = 4, feature: Feature | None = None
) -> Network:
    """A batch of small networks with unequal noise and, in the first of them, a weak user.

    Links of power control have weak interference, so that targets can be met.
    """
    noise = torch.rand(BATCH, users, dtype=torch.float64, generator=generator) * 0.1 + 0.05
    if form is Form.POWER_CONTROL:
        G = torch.rand(BATCH, users, users, dtype=torch.float64, generator=generator)
        G = 0.1 * G + torch.diag_embed(0.5 + G.diagonal(dim1=-2, dim2=-1))
        G[0, -1] *= WEAK
        return Network.power_control(G, noise)
    T = {Form.BROADCAST: 1, Form.INTERFERENCE: users}.get(form, 2)
    M = RECEIVE_ANTENNAS if feature is Feature.RECEIVE_ANTENNAS else 1
    H = torch.randn(BATCH, T, users * M, antennas, dtype=torch.complex128, generator=generator)
    H[0, :, -M:] *= WEAK
    data = numbers(users, H)
    if feature is Feature.SENSING:
        data = torch.cat([data, data.new_full((1,), -1)])
    elif feature is not None:
        data = data.repeat_interleave(2)
    return Network.multicell(H, noise, numbers(len(data), H) % T, data, M)


def example_utility(kind: type[Utility]) -> Utility:
    """A utility of that kind."""
    return next((example for example in UTILITIES if type(example) is kind), None) or kind()


def example_limit(kind: type[Constraint]) -> Constraint:
    """A limit of that kind that the example networks can meet; `LookupError` for a kind without an example."""
    found = next((example for example in EXAMPLES if type(example) is kind), None)
    if found is None:
        raise LookupError(f"there is no example of {kind.__name__}: pass questions of your own to check_solver")
    return found
