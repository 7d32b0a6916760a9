"""Utilities: the quantities that a problem maximises or minimises, each in its own unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from beamforge.core.beams import Beams
from beamforge.core.instance import Instance
from beamforge.core.terms import Entry, Term, number


@dataclass(frozen=True)
class Utility(Term):
    """A quantity to optimise: `value` in `unit`; `sense` is +1 to maximise it and -1 to minimise it."""

    sense: ClassVar[int] = 1
    unit: ClassVar[str] = "bit/s/Hz"

    def value(self, instance: Instance, beams: Beams) -> Tensor:
        """The utility [...] of beams W [..., N, D] on the instance's true network."""
        raise NotImplementedError


@dataclass(frozen=True)
class SumRate(Utility):
    """Weighted sum rate ``sum_k a_k rate_k``, bit/s/Hz."""

    weights: Entry = number("users", domain="non-negative", default=1.0)

    def value(self, instance: Instance, beams: Beams) -> Tensor:
        return (self.weights * instance.truth.rate(beams.W)).sum(-1)


@dataclass(frozen=True)
class MinRate(Utility):
    """Least weighted rate ``min_k a_k rate_k``, bit/s/Hz."""

    weights: Entry = number("users", domain="non-negative", default=1.0)

    def value(self, instance: Instance, beams: Beams) -> Tensor:
        return (self.weights * instance.truth.rate(beams.W)).amin(-1)


@dataclass(frozen=True)
class MinSinr(Utility):
    """Least SINR relative to its target, ``min_k SINR_k / target_k``; users with a target of 0 do not count."""

    unit: ClassVar[str] = "ratio"
    target: Entry = number("users", domain="non-negative", default=1.0)

    def value(self, instance: Instance, beams: Beams) -> Tensor:
        asked = self.target > 0
        ratio = instance.truth.sinr(beams.W) / torch.where(asked, self.target, 1)
        return torch.where(asked, ratio, torch.inf).amin(-1)


@dataclass(frozen=True)
class TransmitPower(Utility):
    """Total transmit power ``sum_d |w_d|^2``, watts, to be minimised."""

    sense: ClassVar[int] = -1
    unit: ClassVar[str] = "W"

    def value(self, instance: Instance, beams: Beams) -> Tensor:
        return instance.truth.transmit_power(beams.W).sum(-1)
