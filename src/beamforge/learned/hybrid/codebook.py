"""The default codebook: oversampled DFT of the scenario's planar array."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dft(antennas: int, beams: int) -> Tensor:
    """``exp(2 pi j n b / beams) / sqrt(antennas)`` [antennas, beams], complex128."""
    n, b = torch.arange(antennas, dtype=torch.float64), torch.arange(beams, dtype=torch.float64)
    phase = 2 * math.pi * n[:, None] * b / beams
    return torch.polar(torch.full_like(phase, antennas**-0.5), phase)


def dft_codebook(columns: int = 8, rows: int = 4) -> Tensor:
    """Twice oversampled along the columns [columns * rows, 2 columns * rows]."""
    return torch.kron(dft(columns, 2 * columns).contiguous(), dft(rows, rows).contiguous())
