"""Monostatic sensing with the transmitted signal: steering vectors, sensing SNRs, constraints and utilities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from beamforge.core.beams import Beams
from beamforge.core.constraints import Lower
from beamforge.core.errors import ShapeError
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.terms import Entry, Term, number
from beamforge.core.utilities import Utility

Bound = TypeVar("Bound", bound="Targets")


def steering(angles: Tensor, antennas: int) -> Tensor:
    """``a(theta)_n = exp(j pi n sin theta) / sqrt(N)``, n = 0..N-1: complex [..., N, M] for angles [..., M] in radians.

    Unit-norm steering vectors of a uniform linear array with half-wavelength spacing.

    >>> steering(torch.tensor([0.0]), 4).squeeze(-1)
    tensor([0.5000+0.j, 0.5000+0.j, 0.5000+0.j, 0.5000+0.j])
    """
    n = torch.arange(antennas, dtype=angles.dtype, device=angles.device).unsqueeze(-1)
    phase = math.pi * n * angles.sin().unsqueeze(-2)
    return torch.polar(torch.full_like(phase, antennas**-0.5), phase)


@dataclass(frozen=True)
class Targets(Term):
    """M point targets of a monostatic radar at the transmitter.

    Target m at angle ``theta_m`` has the channel ``G_m = b_m a(theta_m) a(theta_m)^H``. Data and sensing streams both
    contribute to its sensing SNR ``|b_m|^2 |a(theta_m)^H W|^2 / noise``.

    angle  [..., M] radians in [-pi/2, pi/2].
    gain   complex [..., M], b.
    noise  watts at the sensing receiver.

    Source: the masked-transformer paper's Eqs. 26 and 27, with steering vectors of norm one.
    """

    angle: Entry = number("targets", domain="real")
    gain: Entry = number("targets", domain="complex")
    noise: Entry = number(default=0.01)

    def bind(self: Bound, network: Network) -> Bound:
        """Bind as any term; raises `ShapeError` for several transmitters, no target, or an angle beyond ±pi/2."""
        if network.transmitters > 1:
            raise ShapeError(f"sensing requires one transmitter, got {network.transmitters}")
        bound = super().bind(network)
        if bound.angle.shape[-1] == 0:
            raise ShapeError("target_angles must name at least one target, got none")
        if (wrong := bound.angle.abs() > math.pi / 2 + 1e-6).any():
            raise ShapeError(f"target_angles must be radians in [-pi/2, pi/2], got {bound.angle[wrong][0].item():g}")
        return bound

    def unit_channels(self, antennas: int) -> Tensor:
        """``c_m = b_m a(theta_m) / sqrt(noise)``, complex [..., N, M]: the sensing SNR is ``|c_m^H W|^2``."""
        scale = self.gain.abs() * self.noise.rsqrt().unsqueeze(-1)
        return steering(self.angle, antennas) * scale.unsqueeze(-2)

    def sensing_snr(self, W: Tensor) -> Tensor:
        """Sensing SNR [..., M], linear, of beams W [..., N, D]."""
        return (self.unit_channels(W.shape[-2]).mH @ W).abs().square().sum(-1)

    def figures(self, instance: Instance, beams: Beams) -> Mapping[str, Tensor]:
        return {"sensing_snr": self.sensing_snr(beams.W)}


@dataclass(frozen=True)
class SensingSnrAtLeast(Targets, Lower):
    """``|b_m|^2 |a(theta_m)^H W|^2 / noise >= level_m`` (linear) for every target m, over all streams.

    level  [..., M], or [..., 1] for the same level at all targets.

    Two such constraints merge into one for the targets of both.

    >>> network = Network.broadcast(torch.eye(2, dtype=torch.complex64), noise=1.0)
    >>> limit = SensingSnrAtLeast(angle=torch.tensor([0.0]), gain=torch.tensor([1 + 0j]), level=torch.tensor([3.0]))
    >>> limit.bind(network).violation(Instance.perfect(network), Beams(0.1 * torch.eye(2, dtype=torch.complex64)))
    tensor(0.6667)
    """

    level: Entry = number("targets", default=(1.0,))

    def violation(self, instance: Instance, beams: Beams) -> Tensor:
        return (1 - self.sensing_snr(beams.W) / self.level).amax(-1)

    def with_also(self: SensingSnrAtLeast, other: SensingSnrAtLeast) -> SensingSnrAtLeast:
        scale = (self.noise / other.noise).sqrt().unsqueeze(-1)
        return replace(
            self,
            angle=torch.cat([self.angle, other.angle], -1),
            gain=torch.cat([self.gain, other.gain * scale], -1),
            level=torch.cat([self.level, other.level], -1),
        )


@dataclass(frozen=True)
class RateAndSensing(Targets, Utility):
    """``sum_k a_k rate_k + weight sum_m log2(1 + sensing SNR_m)``, bit/s/Hz: communication plus sensing rates.

    Source: the masked-transformer paper, Section IV-B, after Demirhan and Alkhateeb.
    """

    weights: Entry = number("users", domain="non-negative", default=1.0)
    weight: Entry = number(domain="non-negative", default=1.0)

    def value(self, instance: Instance, beams: Beams) -> Tensor:
        rate = (self.weights * instance.truth.rate(beams.W)).sum(-1)
        return rate + self.weight * torch.log2(1 + self.sensing_snr(beams.W)).sum(-1)
