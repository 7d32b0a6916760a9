"""What must hold. Each constraint states by how much beams break it, as a share of its limit."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from beamforge.network import Network
from beamforge.terms import Entry, Term, number


@dataclass(frozen=True)
class Constraint(Term):
    """`violation(network, W)` [...]: the largest excess over a limit divided by the limit; at most 0 where it holds."""

    def violation(self, network: Network, W: Tensor) -> Tensor:
        """Relative violation of the beams W [..., N, D], [...]."""
        raise NotImplementedError


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
class SinrAtLeast(Constraint):
    """``SINR_k >= target_k`` (linear) for every user."""

    target: Entry = number("users")

    def violation(self, network: Network, W: Tensor) -> Tensor:
        return (1 - network.sinr(W) / self.target).amax(-1)
