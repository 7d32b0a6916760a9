"""Capability: one kind of question that a method answers, and the forms and features that networks can have."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from beamforge.core.constraints import Constraint
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.streams import numbers
from beamforge.core.utilities import Utility


class Form(Enum):
    """Forms of network that methods are written for; a network can have several (see `forms`)."""

    BROADCAST = "broadcast"
    MULTICELL = "multicell"
    INTERFERENCE = "interference"
    POWER_CONTROL = "power-control"


class Feature(Enum):
    """What a network may have beyond one stream and one antenna for every user; a method says if it can handle it."""

    SENSING = "streams without data"
    SEVERAL_STREAMS = "several streams for a user"
    RECEIVE_ANTENNAS = "users with several antennas"


def forms(network: Network) -> set[Form]:
    """One transmitter is a broadcast, transmitter k for user k interference, and of single antennas power control.

    Any network is multicell.
    """
    found = {Form.MULTICELL}
    if network.transmitters == 1:
        found.add(Form.BROADCAST)
    if network.transmitters == network.users == network.streams.count:
        if (network.streams.transmitter == numbers(network.users, network.H)).all():
            found.add(Form.INTERFERENCE)
            if network.antennas == network.receive_antennas == 1:
                found.add(Form.POWER_CONTROL)
    return found


def features(network: Network) -> set[Feature]:
    """The features of a network that a method must be able to handle."""
    found = {Feature.RECEIVE_ANTENNAS} if network.receive_antennas > 1 else set()
    if network.streams.user is None:
        return found | ({Feature.SENSING} if network.streams.count > network.users else set())
    if (network.streams.user < 0).any():
        found.add(Feature.SENSING)
    return found | {Feature.SEVERAL_STREAMS}  # or an order of its own, which a method has to look at just the same


@dataclass(frozen=True)
class Capability:
    """One kind of question a method answers: a utility, the network forms, and which constraints.

    Types are matched exactly: of a subclass a method knows nothing. Every constraint of a problem must be among
    `needs`, `needs_one_of` and `allows`, all of `needs` present, and at least one of `needs_one_of` where it names any.
    The network may have features among `handles` only.
    """

    utility: type[Utility]
    forms: tuple[Form, ...]
    needs: tuple[type[Constraint], ...] = ()
    needs_one_of: tuple[type[Constraint], ...] = ()
    allows: tuple[type[Constraint], ...] = ()
    handles: tuple[Feature, ...] = ()

    def accepts(self, problem: Problem, network: Network) -> bool:
        """Whether the question is of this kind."""
        kinds = {type(constraint) for constraint in problem.subject_to}
        return (
            type(problem.maximise) is self.utility
            and set(self.needs) <= kinds <= {*self.needs, *self.needs_one_of, *self.allows}
            and (not self.needs_one_of or bool(kinds & set(self.needs_one_of)))
            and features(network) <= set(self.handles)
            and bool(forms(network) & set(self.forms))
        )


def describe(problem: Problem, network: Network) -> str:
    """A question in words, for messages."""
    limits = ", ".join(type(constraint).__name__ for constraint in problem.subject_to) or "no constraint"
    kinds = "/".join(sorted(form.value for form in forms(network)))
    unusual = " and ".join(sorted(feature.value for feature in features(network)))
    users = f"{network.users} users" + (f" with {unusual}" if unusual else "")
    return f"{type(problem.maximise).__name__} with {limits} on a {kinds} network of {users}"
