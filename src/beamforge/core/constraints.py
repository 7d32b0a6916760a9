"""What must hold. Each constraint states by how much beams break it, as a share of its limit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from beamforge.core.errors import ShapeError
from beamforge.core.network import Network, per_instance, squared_magnitude
from beamforge.core.terms import Entry, Term, number

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
    largest = rate.detach().amax(-1, keepdim=True)
    share = rate / torch.where(largest > 0, largest, 1)  # squares of 1e-23 are not float32
    index = share.sum(-1).square() / (rate.shape[-1] * share.square().sum(-1).clamp_min(1))
    return torch.where(largest.squeeze(-1) == 0, 1, index)


@dataclass(frozen=True)
class Jain(Constraint):
    """Jain's index of the rates, `jain_index`, against a limit in (1/K, 1]; `ShapeError` for one outside.

    The index of a single user is 1, and so is its limit.
    """

    limit: Entry = number()

    def bind(self: Bound, network: Network) -> Bound:
        limit, users = per_instance("jain", self.limit, network.H, ()), network.users
        wrong = ~((limit > 1 / users) & (limit < 1) | (limit == 1))
        if wrong.any():
            expected = f"above 1/K = {1 / users:.4g} and at most 1 for {users} users" if users > 1 else "1 for one user"
            raise ShapeError(f"jain must be {expected}, got {limit[wrong][0].item():g}")
        return replace(self, limit=limit)

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
