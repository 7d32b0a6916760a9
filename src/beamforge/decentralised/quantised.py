"""Quantised: messages of 4, 8 or 16 bits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from beamforge.core.errors import ConfigError
from beamforge.decentralised.backhaul import Backhaul, spread

BITS = (4, 8, 16)
"""Possible numbers of bits of a message."""


class Quantised:
    """Backhaul with quantised numbers: a sign and one of ``2^(bits-1) - 1`` magnitudes, or 0.

    backhaul     transmits the codes.
    bits         bits per number: 4, 8 or 16.
    low, high    smallest and largest magnitude. Magnitudes below ``low / 2`` become 0, those above `high` become
                 `high`.
    logarithmic  whether the ratio of successive magnitudes is constant; otherwise their difference is constant,
                 ``high / (2^(bits-1) - 1)``, and `low` is not used.

    The defaults suit received powers in units of the noise up to 50 dB. The quantiser is not differentiable.
    Raises `ConfigError` for other bits, and unless ``0 < low < high``.

    >>> from beamforge.decentralised.backhaul import SharedMemory
    >>> backhaul = Quantised(SharedMemory(), bits=4, low=1.0, high=64.0)
    >>> heard = backhaul.exchange(torch.tensor([[[0.0, 3.0], [-90.0, 0.0]]]))
    >>> heard.round(decimals=4), backhaul.bits
    (tensor([[[  0., -64.],
             [  4.,   0.]]]), 8)
    """

    def __init__(
        self, backhaul: Backhaul, bits: int, low: float = 1e-5, high: float = 1e5, logarithmic: bool = True
    ) -> None:
        if bits not in BITS:
            raise ConfigError(f"bits of a message must be {', '.join(map(str, BITS[:-1]))} or {BITS[-1]}, got {bits}")
        if not 0 < low < high < math.inf:
            raise ConfigError(f"bounds of a message must be 0 < low < high, got {low:g} and {high:g}")
        self.backhaul, self.each, self.low, self.high, self.logarithmic = backhaul, bits, low, high, logarithmic
        self.bits = 0

    @property
    def scalars(self) -> int:
        """Numbers sent so far by the underlying backhaul."""
        return self.backhaul.scalars

    def exchange(self, sent: Tensor, otherwise: Tensor | float = 0.0) -> Tensor:
        """Received numbers [B, S, K], quantised like `otherwise`; see `Backhaul.exchange`."""
        before, exact = self.scalars, sent.detach()
        codes = (self.packed(self.codes(value)) for value in (exact, spread(otherwise, exact)))
        heard = self.backhaul.exchange(*codes)
        self.bits += self.each * len(sent) * (self.scalars - before)
        return self.numbers(self.unpacked(heard, len(sent)), exact)

    def codes(self, x: Tensor) -> Tensor:
        """Integers from ``1 - 2^(bits-1)`` to ``2^(bits-1) - 1``; 0 for NaN."""
        most, size = 2 ** (self.each - 1) - 1, torch.nan_to_num(x).abs()
        if self.logarithmic:
            place = (size.clamp_min(self.low).log() - math.log(self.low)) * (
                (most - 1) / math.log(self.high / self.low)
            )
            code = torch.where(size < self.low / 2, 0, 1 + place.round())
        else:
            code = (size * (most / self.high)).round()
        return (code.clamp_max(most) * x.sign().nan_to_num()).to(torch.int16)

    def numbers(self, codes: Tensor, like: Tensor) -> Tensor:
        """Values of codes."""
        most, level = 2 ** (self.each - 1) - 1, codes.abs().to(like.dtype)
        if self.logarithmic:
            size = self.low * ((level - 1) * (math.log(self.high / self.low) / (most - 1))).exp()
            size = torch.where(level == 0, 0, size)
        else:
            size = level * (self.high / most)
        return size * codes.sign()

    def packed(self, codes: Tensor) -> Tensor:
        """Codes [B, S, K] in the smallest integer type; codes of 4 bits of two instances share a byte."""
        if self.each > 4:
            return codes if self.each == 16 else codes.to(torch.int8)
        even = torch.cat([codes, torch.zeros_like(codes[: len(codes) % 2])])
        return ((even[::2] & 15) * 16 + (even[1::2] & 15)).to(torch.uint8)

    def unpacked(self, packed: Tensor, count: int) -> Tensor:
        """Inverse of `packed` for `count` instances."""
        wide = packed.to(torch.int16)
        if self.each > 4:
            return wide
        both = torch.stack([wide // 16, wide % 16], 1).flatten(0, 1)[:count]
        return (both ^ 8) - 8
