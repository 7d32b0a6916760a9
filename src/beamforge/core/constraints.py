"""Constraints on beams. Each measures by how much beams violate it, relative to its limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from beamforge.core.beams import Beams
from beamforge.core.errors import ShapeError, UnsupportedProblem
from beamforge.core.instance import Instance
from beamforge.core.network import Network, per_instance, squared_magnitude
from beamforge.core.terms import Entry, Term, number

Bound = TypeVar("Bound", bound="Jain")
Same = TypeVar("Same", bound="Constraint")


@dataclass(frozen=True)
class Constraint(Term):
    """A condition on beams, with its `violation`: the largest excess over a limit, divided by the limit."""

    def violation(self, instance: Instance, beams: Beams) -> Tensor:
        """Relative violation [...] of beams W [..., N, D] on the instance's true network; at most 0 where it holds."""
        raise NotImplementedError

    def with_also(self: Same, other: Same) -> Same:
        """One constraint that is equivalent to this one and another (bound) one of its type together.

        Raises `UnsupportedProblem` if no constraint of this type is equivalent to both.
        """
        raise UnsupportedProblem(f"a problem must have one {type(self).__name__}, got several; keep the stricter one")


class Upper(Constraint):
    """A constraint whose numbers are upper limits: of two such constraints, the smaller limits apply."""

    def with_also(self: Same, other: Same) -> Same:
        return combined(self, other, torch.minimum)


class Lower(Constraint):
    """A constraint whose numbers are lower limits: of two such constraints, the larger limits apply."""

    def with_also(self: Same, other: Same) -> Same:
        return combined(self, other, torch.maximum)


def combined(one: Same, other: Same, of_both: Callable[[Tensor, Tensor], Tensor]) -> Same:
    """A constraint whose numbers are the entrywise minimum or maximum (`of_both`) of those of two constraints."""
    names = [item.name for item in dataclasses.fields(one)]
    return replace(one, **{name: of_both(getattr(one, name), getattr(other, name)) for name in names})


@dataclass(frozen=True)
class MeanConstraint(Constraint):
    """A constraint on a whole batch: it holds if the mean of `violation` over the instances is at most 0.

    A single instance neither meets nor violates it, so `Report.feasible` does not depend on it.
    """


@dataclass(frozen=True)
class ChanceConstraint(Constraint):
    """A limit on the probability of an event: ``P(event_k) <= probability_k`` for every user k.

    The probability is the share of `Instance.realisations` in which the event happens; without realisations it is 1 or
    0, as the event happens on the true network or not.
    """

    probability: Entry = number("users")

    def event(self, network: Network, W: Tensor) -> Tensor:
        """Boolean [..., K]: whether the event happens to each user of a network."""
        raise NotImplementedError

    def violation(self, instance: Instance, beams: Beams) -> Tensor:
        if instance.realisations is None:
            share = self.event(instance.truth, beams.W).to(self.probability.dtype)
        else:
            numbers = {item.name: getattr(self, item.name).unsqueeze(-2) for item in dataclasses.fields(self)}
            events = replace(self, **numbers).event(instance.realisations, beams.W.unsqueeze(-3))
            share = events.to(self.probability.dtype).mean(-2)
        return (share / self.probability - 1).amax(-1)


def excess(power: Tensor, limit: Tensor) -> Tensor:
    """``power / limit - 1``; where the limit is 0: 0 if the power is zero, else infinite."""
    none = torch.where(power > 0, torch.inf, 0)
    return torch.where(limit > 0, power / torch.where(limit > 0, limit, 1) - 1, none)


@dataclass(frozen=True)
class TotalPower(Upper):
    """``sum_d |w_d|^2 <= limit`` watts, over all transmitters together."""

    limit: Entry = number()

    def violation(self, instance: Instance, beams: Beams) -> Tensor:
        return instance.truth.transmit_power(beams.W).sum(-1) / self.limit - 1


@dataclass(frozen=True)
class PerTransmitterPower(Upper):
    """``sum of |w_d|^2 over the streams of transmitter t <= limit_t`` watts for every t; 0 turns transmitter t off."""

    limit: Entry = number("transmitters", domain="non-negative")

    def violation(self, instance: Instance, beams: Beams) -> Tensor:
        return excess(instance.truth.transmit_power(beams.W), self.limit).amax(-1)


@dataclass(frozen=True)
class PerAntennaPower(Upper):
    """``sum of |W_nd|^2 over the streams of transmitter t <= limit_tn`` watts for every antenna n of every t.

    A limit of 0 turns an antenna off.
    """

    limit: Entry = number("transmitters", "antennas", domain="non-negative")

    def violation(self, instance: Instance, beams: Beams) -> Tensor:
        return excess(instance.truth.antenna_power(beams.W), self.limit).amax((-2, -1))


@dataclass(frozen=True)
class EqualPower(Constraint):
    """``|w_d|^2 = limit / D`` watts for each of the D beams: only their directions are optimised.

    More or less power than that violates the constraint, except that a user without a channel may have no beam.
    """

    limit: Entry = number()

    def violation(self, instance: Instance, beams: Beams) -> Tensor:
        network = instance.truth
        share = (self.limit / network.streams.count).unsqueeze(-1)
        excess = squared_magnitude(beams.W).sum(-2) / share - 1
        blocked = network.H.eq(0).all(-1).all(-2)
        allowed = functional.pad(blocked, (0, network.streams.count - network.users)) & (excess == -1)
        return torch.where(allowed, 0, excess.abs()).amax(-1)


@dataclass(frozen=True)
class SinrAtLeast(Lower):
    """``SINR_k >= target_k`` (linear) for every user; a target of 0 asks for nothing."""

    target: Entry = number("users", domain="non-negative")

    def violation(self, instance: Instance, beams: Beams) -> Tensor:
        asked = self.target > 0
        met = instance.truth.sinr(beams.W) / torch.where(asked, self.target, 1)
        return torch.where(asked, 1 - met, -1).amax(-1)


@dataclass(frozen=True)
class SinrOutage(ChanceConstraint):
    """``P(SINR_k < target_k) <= probability_k`` for every user, over the realisations of an instance."""

    target: Entry = number("users", default=1.0)

    def event(self, network: Network, W: Tensor) -> Tensor:
        return network.sinr(W) < self.target


def jain_index(rate: Tensor) -> Tensor:
    """Jain's fairness index ``(sum_k r_k)^2 / (K sum_k r_k^2)`` over the last dimension; 1 where all are zero.

    >>> jain_index(torch.tensor([1.0, 1.0, 0.0, 0.0])).item()
    0.5
    """
    largest = rate.detach().amax(-1, keepdim=True)
    share = rate / torch.where(largest > 0, largest, 1)  # the square of a rate of 1e-23 underflows in float32
    index = share.sum(-1).square() / (rate.shape[-1] * share.square().sum(-1).clamp_min(1))
    return torch.where(largest.squeeze(-1) == 0, 1, index)


@dataclass(frozen=True)
class Jain(Lower):
    """Jain's index of the rates (`jain_index`) is at least a limit in (1/K, 1]; `ShapeError` for a limit outside.

    With a single user the index is 1, and the limit must be 1.
    """

    limit: Entry = number()

    def bind(self: Bound, network: Network) -> Bound:
        limit, users = per_instance("jain", self.limit, network.H, ()), network.users
        wrong = ~((limit > 1 / users) & (limit < 1) | (limit == 1))
        if wrong.any():
            expected = f"above 1/K = {1 / users:.4g} and at most 1 for {users} users" if users > 1 else "1 for one user"
            raise ShapeError(f"jain must be {expected}, got {limit[wrong][0].item():g}")
        return replace(self, limit=limit)

    def violation(self, instance: Instance, beams: Beams) -> Tensor:
        return 1 - jain_index(instance.truth.rate(beams.W)) / self.limit


@dataclass(frozen=True)
class JainAtLeast(Jain):
    """``J >= limit`` for each instance."""


@dataclass(frozen=True)
class MeanJainAtLeast(Jain, MeanConstraint):
    """``mean(J) >= limit`` over the instances of a batch.

    Source: the fairness-controlled beamforming paper's Eq. 11.
    """
