"""Capability: a kind of problem that a method serves; the forms and features of networks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from beamforge.core.constraints import Constraint
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.streams import numbers
from beamforge.core.utilities import Utility


class Form(Enum):
    """Forms of networks that methods are written for; a network can have several forms (see `forms`)."""

    BROADCAST = "broadcast"
    MULTICELL = "multicell"
    INTERFERENCE = "interference"
    POWER_CONTROL = "power-control"


class Feature(Enum):
    """What a network can have beyond one stream and one antenna for each user; `Capability.handles` lists them."""

    SENSING = "streams without data"
    SEVERAL_STREAMS = "several streams for a user"
    RECEIVE_ANTENNAS = "users with several antennas"


def forms(network: Network) -> set[Form]:
    """The forms of a network.

    Every network is MULTICELL. One transmitter is also BROADCAST; transmitters each of which serves the user of its
    number are also INTERFERENCE, and with single antennas POWER_CONTROL.
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
    return found | {Feature.SEVERAL_STREAMS}  # also for one stream per user in another order: methods must read `user`


@dataclass(frozen=True)
class Capability:
    """One kind of problem that a method serves: a utility, the network forms, and the constraints.

    Types are matched exactly: a subclass does not match. Every constraint of a problem must be in `needs`,
    `needs_one_of` or `allows`. All of `needs` must be present, and at least one of `needs_one_of` unless it is empty.
    The network may only have features that are in `handles`.
    """

    utility: type[Utility]
    forms: tuple[Form, ...]
    needs: tuple[type[Constraint], ...] = ()
    needs_one_of: tuple[type[Constraint], ...] = ()
    allows: tuple[type[Constraint], ...] = ()
    handles: tuple[Feature, ...] = ()

    def accepts(self, problem: Problem, network: Network) -> bool:
        """Whether the problem on this network is of this kind."""
        kinds = {type(constraint) for constraint in problem.subject_to}
        return (
            type(problem.maximise) is self.utility
            and set(self.needs) <= kinds <= {*self.needs, *self.needs_one_of, *self.allows}
            and (not self.needs_one_of or bool(kinds & set(self.needs_one_of)))
            and features(network) <= set(self.handles)
            and bool(forms(network) & set(self.forms))
        )


def describe(problem: Problem, network: Network) -> str:
    """A problem and its network in words, for messages."""
    limits = ", ".join(type(constraint).__name__ for constraint in problem.subject_to) or "no constraint"
    kinds = "/".join(sorted(form.value for form in forms(network)))
    unusual = " and ".join(sorted(feature.value for feature in features(network)))
    users = f"{network.users} users" + (f" with {unusual}" if unusual else "")
    return f"{type(problem.maximise).__name__} with {limits} on a {kinds} network of {users}"
