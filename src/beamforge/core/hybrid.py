"""The terms of hybrid beamforming: analog codebooks, outage over a batch, and the power of digital beams."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from beamforge.core.beams import Beams
from beamforge.core.constraints import Constraint, MeanConstraint
from beamforge.core.errors import ShapeError
from beamforge.core.evaluate import TOLERANCE
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.terms import Entry, number
from beamforge.core.utilities import Utility

Bound = TypeVar("Bound", bound="Constraint")

SAME = {torch.complex64: 1e-5, torch.complex128: 1e-10}
"""Two codewords whose correlation is 1 up to this are the same analog beam, by precision."""


def dft_codebook(*antennas: int, oversampling: tuple[int, ...] = ()) -> Tensor:
    """Beams of a uniform linear or planar array, complex128 [N, C] with columns of norm one.

    On an axis with n antennas and oversampling o, codeword c is ``e^{j 2 pi m c / (o n)} / sqrt(n)``, c = 0..o n - 1;
    the codebook of several axes is the Kronecker product, first axis first. Oversampling is 1 by default.

    >>> dft_codebook(8, 4, oversampling=(2, 1)).shape
    torch.Size([32, 64])
    """
    found = torch.ones(1, 1, dtype=torch.complex128, device="cpu")
    for axis, n in enumerate(antennas):
        beams = n * (oversampling[axis] if oversampling else 1)
        turns = torch.outer(*(torch.arange(length, device="cpu") for length in (n, beams))).double() / beams
        phases = torch.polar(torch.full_like(turns, n**-0.5), 2 * math.pi * turns)
        found = torch.kron(found, phases)
    return found


@dataclass(frozen=True)
class AnalogCodebook(Constraint):
    """Beams are hybrid, ``W = A B diag(sqrt p)``, and each analog beam, a column of A, is a codeword.

    The violation is the largest relative distance of a column of A from the nearest codeword. Beams without factors are
    held to the span of the codebook instead.

    codebook  complex [..., N, C], one analog beam a column; by default the DFT of N antennas.

    Raises `ShapeError` for several transmitters, a zero column, or two columns that are the same beam.
    """

    codebook: Entry = number("antennas", "codewords", domain="complex", default=None)

    def bind(self: AnalogCodebook, network: Network) -> AnalogCodebook:
        if network.transmitters > 1:
            raise ShapeError(f"hybrid beams require one transmitter, got {network.transmitters}")
        if self.codebook is None:
            return replace(self, codebook=dft_codebook(network.antennas).to(network.H)).bind(network)
        bound = super().bind(network)
        check_codewords(distinct(bound.codebook))
        return bound

    def violation(self, instance: Instance, beams: Beams) -> Tensor:
        codebook = self.codebook
        if beams.factors is None:
            known = distinct(codebook)
            outside = beams.W - known @ (torch.linalg.pinv(known) @ beams.W)
            return relative(outside, beams.W).amax(-1)
        A = beams.factors.analog
        nearest = torch.stack([relative(codebook - A[..., m : m + 1], codebook).amin(-1) for m in range(A.shape[-1])])
        return nearest.amax(0).maximum(relative(beams.W - beams.factors.W, beams.W).amax(-1))


def relative(difference: Tensor, whole: Tensor) -> Tensor:
    """Norms of columns, relative to those of `whole` (where these are not zero)."""
    size = torch.linalg.vector_norm(whole, dim=-2)
    return torch.linalg.vector_norm(difference, dim=-2) / torch.where(size > 0, size, 1)


def distinct(codebook: Tensor) -> Tensor:
    """The codebook [..., N, C] without batch dimensions that only repeat it (these become 1)."""
    for dim in range(codebook.ndim - 2):
        if codebook.stride(dim) == 0 and codebook.shape[dim]:
            codebook = codebook.narrow(dim, 0, 1)
    return codebook


def check_codewords(codebook: Tensor) -> None:
    """Raise `ShapeError` for a column that is zero, or for two columns that are equal up to a factor."""
    size = torch.linalg.vector_norm(codebook, dim=-2)
    if (size == 0).any():
        column = int((size == 0).nonzero()[0, -1])
        raise ShapeError(f"codebook must have no zero columns, got one in column {column}: leave it out")
    unit = codebook / size.unsqueeze(-2)
    alike = (unit.mH @ unit).abs() > 1 - SAME[codebook.dtype]
    alike = alike.triu(1)
    if alike.any():
        *_, one, other = alike.nonzero()[0].tolist()
        came = f"the same in columns {one} and {other}"
        raise ShapeError(f"codebook must have different beams in its columns, got {came}: leave one out")


@dataclass(frozen=True)
class MeanSinrOutage(MeanConstraint):
    """``mean_k P(SINR_k < target_k) <= probability``, with the probability over the instances of a batch.

    A user is in outage if its SINR on the true channels is below its target by more than rounding (1e-4 of the target
    in float32, 1e-7 in float64). The figure ``outage`` [...] is the share of an instance's users in outage, and the
    constraint holds if its mean over the batch is at most `probability`.

    Source: the hybrid beamforming paper's Eq. 10.
    """

    probability: Entry = number()
    target: Entry = number("users", default=1.0, domain="non-negative")

    def bind(self: MeanSinrOutage, network: Network) -> MeanSinrOutage:
        bound = super().bind(network)
        if (wrong := bound.probability >= 1).any():
            raise ShapeError(f"outage must be a probability below 1, got {bound.probability[wrong][0].item():g}")
        return bound

    def outage(self, instance: Instance, beams: Beams) -> Tensor:
        """Share [...] of the users with a target that miss it."""
        sinr = instance.truth.sinr(beams.W)
        missed = ~(sinr >= self.target * (1 - TOLERANCE[sinr.dtype]))
        return missed.to(sinr.dtype).sum(-1) / (self.target > 0).sum(-1).clamp_min(1)

    def violation(self, instance: Instance, beams: Beams) -> Tensor:
        return self.outage(instance, beams) / self.probability - 1

    def figures(self, instance: Instance, beams: Beams) -> Mapping[str, Tensor]:
        return {"outage": self.outage(instance, beams)}


@dataclass(frozen=True)
class BasebandPower(Utility):
    """Power of the digital beams ``sum_k p_k |b_k|^2``, watts, to be minimised; NaN for beams without factors."""

    sense: ClassVar[int] = -1
    unit: ClassVar[str] = "W"

    def value(self, instance: Instance, beams: Beams) -> Tensor:
        if beams.factors is None:
            return torch.full_like(beams.W.real[..., 0, 0], torch.nan)
        B = beams.factors.digital
        return (beams.factors.power * (B.real.square() + B.imag.square()).sum(-2)).sum(-1)
