"""What is wished for. Each utility states its value in its own unit and whether more of it is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from beamforge.core.network import Network
from beamforge.core.terms import Entry, Term, number


@dataclass(frozen=True)
class Utility(Term):
    """`value(network, W)` [...] in `unit`; `sense` is +1 if more is better and -1 if less is."""

    sense: ClassVar[int] = 1
    unit: ClassVar[str] = "bit/s/Hz"

    def value(self, network: Network, W: Tensor) -> Tensor:
        """The utility of the beams W [..., N, D] in a network, [...]."""
        raise NotImplementedError


@dataclass(frozen=True)
class SumRate(Utility):
    """Weighted sum rate ``sum_k a_k log2(1 + SINR_k)``, bit/s/Hz."""

    weights: Entry = number("users", positive=False, default=1.0)

    def value(self, network: Network, W: Tensor) -> Tensor:
        return (self.weights * network.rate(W)).sum(-1)


@dataclass(frozen=True)
class MinRate(Utility):
    """Least weighted rate ``min_k a_k log2(1 + SINR_k)``, bit/s/Hz."""

    weights: Entry = number("users", positive=False, default=1.0)

    def value(self, network: Network, W: Tensor) -> Tensor:
        return (self.weights * network.rate(W)).amin(-1)


@dataclass(frozen=True)
class MinSinr(Utility):
    """Least balanced SINR ``min_k SINR_k / target_k``, a ratio."""

    unit: ClassVar[str] = "ratio"
    target: Entry = number("users", default=1.0)

    def value(self, network: Network, W: Tensor) -> Tensor:
        return (network.sinr(W) / self.target).amin(-1)


@dataclass(frozen=True)
class TransmitPower(Utility):
    """Total transmit power ``sum_d |w_d|^2``, watts; less is better."""

    sense: ClassVar[int] = -1
    unit: ClassVar[str] = "W"

    def value(self, network: Network, W: Tensor) -> Tensor:
        return network.transmit_power(W).sum(-1)
