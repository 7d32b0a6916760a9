"""What must hold. Each constraint states by how much beams break it, as a share of its limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from beamforge.errors import ShapeError
from beamforge.network import Network, squared_magnitude
from beamforge.terms import Entry, Term, number

Bound = TypeVar("Bound", bound="Jain")


@dataclass(frozen=True)
class Constraint(Term):
    """`violation(network, W)` [...]: the largest excess over a limit divided by the limit; at most 0 where it holds."""

    def violation(self, network: Network, W: Tensor) -> Tensor:
        """Relative violation of the beams W [..., N, D], [...]."""
        raise NotImplementedError


@dataclass(frozen=True)
class MeanConstraint(Constraint):
    """A constraint on a whole batch: it holds where the mean of `violation` over the instances is at most 0.

    An instance alone neither meets nor breaks it, so it has no say in whether an instance is feasible.
    """


@dataclass(frozen=True)
class TotalPower(Constraint):
    """``sum_d |w_d|^2 <= limit`` watts, over all transmitters together."""

    limit: Entry = number()

    def violation(self, network: Network, W: Tensor) -> Tensor:
        return network.transmit_power(W).sum(-1) / self.limit - 1


@dataclass(frozen=True)
class PerTransmitterPower(Constraint):
    """``sum_{d: serving[d] = t} |w_d|^2 <= limit_t`` watts for every transmitter t."""

    limit: Entry = number("transmitters")

    def violation(self, network: Network, W: Tensor) -> Tensor:
        return (network.transmit_power(W) / self.limit - 1).amax(-1)


@dataclass(frozen=True)
class PerAntennaPower(Constraint):
    """``sum_{d: serving[d] = t} |W_nd|^2 <= limit_tn`` watts for every antenna n of every transmitter t."""

    limit: Entry = number("transmitters", "antennas")

    def violation(self, network: Network, W: Tensor) -> Tensor:
        return (network.antenna_power(W) / self.limit - 1).amax((-2, -1))


@dataclass(frozen=True)
class EqualPower(Constraint):
    """``|w_d|^2 = limit / D`` watts for each of the D beams: the power is given, and only directions are chosen.

    More than a share and less than it both break the constraint, but a user without a channel may have no beam.
    """

    limit: Entry = number()

    def violation(self, network: Network, W: Tensor) -> Tensor:
        share = (self.limit / network.streams).unsqueeze(-1)
        excess = squared_magnitude(W).sum(-2) / share - 1
        deaf = network.H.eq(0).all(-1).all(-2)
        needless = functional.pad(deaf, (0, network.streams - network.users)) & (excess == -1)
        return torch.where(needless, 0, excess.abs()).amax(-1)


@dataclass(frozen=True)
class SinrAtLeast(Constraint):
    """``SINR_k >= target_k`` (linear) for every user."""

    target: Entry = number("users")

    def violation(self, network: Network, W: Tensor) -> Tensor:
        return (1 - network.sinr(W) / self.target).amax(-1)


def jain_index(rate: Tensor) -> Tensor:
    """Jain's fairness index ``(sum_k r_k)^2 / (K sum_k r_k^2)`` over the last dimension; 1 where all are zero.

    >>> jain_index(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    tensor(0.5000)
    """
    square = rate.square().sum(-1) * rate.shape[-1]
    return torch.where(square > 0, rate.sum(-1).square() / square.where(square > 0, torch.ones_like(square)), 1.0)


@dataclass(frozen=True)
class Jain(Constraint):
    """Jain's index of the rates, `jain_index`, against a limit in (1/K, 1]; `ShapeError` for one outside."""

    limit: Entry = number()

    def bind(self: Bound, network: Network) -> Bound:
        bound = super().bind(network)
        wrong = ~((bound.limit > 1 / network.users) & (bound.limit <= 1))
        if wrong.any():
            expected = f"above 1/K = {1 / network.users:.4g} and at most 1"
            raise ShapeError(f"jain must be {expected} for {network.users} users, got {bound.limit[wrong][0].item():g}")
        return bound

    def violation(self, network: Network, W: Tensor) -> Tensor:
        return 1 - jain_index(network.rate(W)) / self.limit


@dataclass(frozen=True)
class JainAtLeast(Jain):
    """``J >= limit`` for every instance by itself."""


@dataclass(frozen=True)
class MeanJainAtLeast(Jain, MeanConstraint):
    """``mean(J) >= limit`` over the instances of a batch.

    Source: the fairness-controlled beamforming paper's Eq. 11.
    """
