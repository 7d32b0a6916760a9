"""What a filter over users sees of a downlink: features and shifts from the Gram matrix, nothing of the antennas."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.structure import lifted_inverse
from beamforge.classical.wmmse import Cell, Multipliers, receivers
from beamforge.network import own, squared_magnitude

FEATURES = 10
SHIFTS = 3

HEAVY = 10.0
"""Times the usual ridge ``K s2/P``: the zero forcing whose multipliers are corrected."""


class Sight(NamedTuple):
    """Features [B, K, 10] and shifts [B, 3, K, K]; and plain regularised zero forcing, the floor under what is learned.

    forced  the multipliers that its beams ask for.     floor  its weighted sum rate [B].
    """

    nodes: Tensor
    shifts: Tensor
    forced: Multipliers
    floor: Tensor


def observe(data: Cell) -> Sight:
    """Look at a batch once, by one inverse: ``R = (H H^H + K I)^-1`` in units where noise and power are one.

    Shifts, one row for each user and nothing of itself: squared correlation of channels; of the rows of R; and the
    share that each other channel has in what heavily regularised zero forcing lets user k hear.
    """
    K, gain = data.gram.shape[-1], own(data.gram).real
    tiny = torch.finfo(gain.dtype).tiny ** 0.5
    level = K + 4 * torch.finfo(gain.dtype).eps * gain  # the ridge, and what rounding asks for on top
    inverse = lifted_inverse(data.gram, level)
    D = data.gram @ inverse
    spent = (inverse.real * D.real + inverse.imag * D.imag).sum(-2)  # by each beam
    forced, floor = receivers(data.weights, squared_magnitude(D) / torch.where(spent > 0, K * spent, 1).unsqueeze(-2))

    kept, square = own(inverse).real, squared_magnitude(data.gram)
    scale = torch.where(gain > 0, gain, torch.inf).reciprocal()
    across = square * scale.unsqueeze(-1)
    shifts = torch.stack(
        [
            across * scale.unsqueeze(-2),
            squared_magnitude(inverse) / (kept.unsqueeze(-1) * kept.unsqueeze(-2)),
            across / (gain + HEAVY * K).unsqueeze(-1),
        ],
        1,
    )
    shifts.diagonal(dim1=-2, dim2=-1).zero_()
    left = (level * kept).clamp(tiny, 1)  # 1/(1 + SINR) of the dual uplink
    nodes = torch.stack(
        [
            gain.clamp_min(tiny).log() / 5,
            (gain / K).clamp_min(tiny).log() / 5,
            shifts[:, 0].sum(-1),
            shifts[:, 0].square().sum(-1),
            shifts[:, 1].sum(-1),
            left,
            ((1 - left).clamp_min(tiny) / left).log() / 3,
            preference(data).log(),
            forced.gain.clamp_min(tiny).log(),
            forced.root.clamp_min(tiny).log(),
        ],
        -1,
    )
    return Sight(nodes, shifts, forced, floor)


def preference(data: Cell) -> Tensor:
    """Weights of the rate over their mean [B, K], never quite zero."""
    tiny = torch.finfo(data.weights.dtype).tiny
    return (data.weights / data.weights.mean(-1, keepdim=True).clamp_min(tiny)).clamp_min(1e-4)
