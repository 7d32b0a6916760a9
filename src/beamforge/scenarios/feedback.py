"""Imperfect channel knowledge: channels of a planar array, fed back as a few quantised DFT beams."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from beamforge.core.hybrid import dft_codebook
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.scenarios.base import Scenario, complex_normal, require, require_positive, uniform
from beamforge.scenarios.upa import UPA

AMPLITUDES = (0.0, *(2 ** (-i / 2) for i in range(6, -1, -1)))
"""The eight amplitudes of a beam relative to the strongest one: 0 and 2^(-i/2), i = 6..0 (3GPP TS 38.214, Table
5.2.2.2.3-2)."""

PHASES = 8
"""Phases of a beam relative to the strongest one: 8-PSK."""

OVERSAMPLING = 4
"""Rotations of the orthogonal DFT beams on each axis of the array."""


@dataclass(frozen=True)
class FeedbackCSI(Scenario):
    """Channels fed back as L quantised DFT beams (`dft_feedback`), in the spirit of 3GPP Type II feedback.

    L is the same for all users of an instance, uniform on `beams_low`..`beams_high`. With ``samples = S`` the
    covariance in the context is ``1/S sum_s g_s g_s^H`` over the feedback g_s of S earlier channels of the same
    directions, in place of the true one.

    ``truth`` and context are those of `channels`. The observation has the channels that were fed back; its ``context``
    also has ``csi_quality`` [B] (`feedback_bits`) and ``covariance`` [B, K, N, N].

    Source: the hybrid beamforming paper, Section 5.1.4, reconstructed.

    >>> instance = FeedbackCSI(UPA(users=2, columns=4, rows=2), samples=3).sample(count=5)
    >>> sorted(instance.context)
    ['covariance', 'csi_quality', 'p_max', 'sinr_target']
    """

    channels: UPA = field(default_factory=UPA)
    beams_low: int = 2
    beams_high: int = 4
    samples: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "beams_low")
        require(self.samples >= 0, "samples", "at least 0", self.samples)
        ordered = self.beams_low <= self.beams_high <= self.antennas
        require(ordered, "beams_high", f"from beams_low to {self.antennas}, the antennas", self.beams_high)

    @property
    def users(self) -> int:
        """K, users of `channels`."""
        return self.channels.users

    @property
    def antennas(self) -> int:
        """N, antennas of `channels`."""
        return self.channels.antennas

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The draws of `channels` come first, so that the true channels are the same with and without feedback."""
        found = self.channels.draw(generator) | {"beams": uniform(generator)}
        past = complex_normal(generator, self.samples, self.users, self.channels.columns, self.channels.rows)
        return found | {"past": past}

    def build(self, draws: dict[str, Tensor]) -> Instance:
        instance = self.channels.build(draws)
        network = instance.truth
        count = self.beams_low + (draws["beams"] * (self.beams_high + 1 - self.beams_low)).long()
        size = (self.channels.columns, self.channels.rows)
        seen = dft_feedback(network.channel.conj(), count.unsqueeze(-1), *size)
        if self.samples:
            past = [self.channels.build({**draws, "fading": each}).truth.channel for each in draws["past"].unbind(1)]
            earlier = dft_feedback(torch.stack(past, 1).conj(), count[:, None, None], *size)
            R = torch.einsum("bskn,bskm->bknm", earlier, earlier.conj()) / self.samples
        else:
            R = self.channels.covariance(draws)
        bits = torch.tensor([feedback_bits(n, self.antennas) for n in range(self.beams_high + 1)], dtype=torch.float64)
        estimate = Network.broadcast(seen.conj().resolve_conj(), network.noise)
        return Instance.estimated(
            network, estimate, **{**instance.context, "csi_quality": bits[count], "covariance": R}
        )

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"channels": self.channels.describe()}


def dft_feedback(h: Tensor, beams: Tensor, columns: int, rows: int) -> Tensor:
    """Channels [..., N] from their feedback of L beams each.

    The DFT of the array is rotated by multiples of 1/4 beam on both axes. In each of the 16 orthogonal bases, the L
    largest coefficients are kept; the largest is exact, the others have one of eight `AMPLITUDES` and of eight phases
    relative to it. The basis with the smallest error ``|h - g|`` is fed back.

    h      complex [..., N], antenna n = column * rows + row.
    beams  L, integers that broadcast to [...].

    >>> h = dft_codebook(4, 2)[:, 3]
    >>> torch.allclose(dft_feedback(h, torch.tensor(1), 4, 2), h)
    True
    """
    best, error = torch.zeros_like(h), torch.full_like(h.real[..., 0], torch.inf)
    book = dft_codebook(columns, rows, oversampling=(OVERSAMPLING, OVERSAMPLING)).to(h)
    book = book.unflatten(1, (columns, OVERSAMPLING, rows, OVERSAMPLING))
    for across in range(OVERSAMPLING):
        for along in range(OVERSAMPLING):
            basis = book[:, :, across, :, along].flatten(1)
            found = quantised(h @ basis.conj(), beams) @ basis.mT
            off = torch.linalg.vector_norm(h - found, dim=-1)
            closer = off < error
            best, error = torch.where(closer.unsqueeze(-1), found, best), torch.where(closer, off, error)
    return best


def quantised(x: Tensor, count: Tensor) -> Tensor:
    """The `count` largest of coefficients [..., N], the others zero; quantised relative to the largest one."""
    size = x.abs()
    order = size.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    peak = x.gather(-1, size.argmax(-1, keepdim=True))
    ratio = x / torch.where(peak.abs() > 0, peak, 1)
    levels = torch.tensor(AMPLITUDES, dtype=size.dtype, device=x.device)
    amplitude = levels[(ratio.abs().unsqueeze(-1) - levels).abs().argmin(-1)]
    step = 2 * math.pi / PHASES
    found = torch.polar(amplitude, (ratio.angle() / step).round() * step) * peak
    return torch.where(order < count.unsqueeze(-1), found, 0)


def feedback_bits(beams: int, antennas: int) -> int:
    """Bits of the feedback: the basis, its beams, and amplitudes and phases of all but the strongest beam.

    >>> feedback_bits(4, 32)
    40
    """
    basis = 2 * math.log2(OVERSAMPLING) + math.ceil(math.log2(math.comb(antennas, beams)))
    strongest = math.ceil(math.log2(max(beams, 1)))
    each = math.log2(len(AMPLITUDES)) + math.log2(PHASES)
    return int(basis + strongest + max(beams - 1, 0) * each)
