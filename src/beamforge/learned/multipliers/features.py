"""Inputs of the graph filter for a downlink: features and shifts from the Gram matrix, for any number of antennas."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.structure import loaded_inverse
from beamforge.classical.sum_rate.reduced_wmmse import WhitenedChannel, receivers
from beamforge.core.network import own, squared_magnitude

FEATURES = 10
SHIFTS = 3

RIDGE_FACTOR = 10.0
"""Ridge, in units of the usual ``K s2/P``, of the zero forcing whose multipliers the filter corrects."""

ROUNDING_MARGIN = 20.0
"""Margin by which the floor is raised, in units of the first-order effect of rounding."""


class Features(NamedTuple):
    """Features [B, K, 10], shifts [B, 3, K, K], and the floor [B]: the rate that the learned beams must reach.

    The floor is the weighted sum rate of plain regularised zero forcing, raised by a bound on its rounding error; it is
    infinite where rounding leaves no valid digit.
    """

    nodes: Tensor
    shifts: Tensor
    floor: Tensor


def observe(data: WhitenedChannel) -> Features:
    """Inputs of the filter for a batch, from one inverse ``R = (H H^H + K I)^-1``, with noise and power one.

    The shifts have a row for each user and a zero diagonal: the squared correlation of the channels; that of the rows
    of R; and the share of each other channel in user k's interference under heavily regularised zero forcing. The
    received powers of the beams ``H^H R`` follow from |R|^2 alone, since ``H H^H R = I - K R``.
    """
    K, gain = data.gram.shape[-1], own(data.gram).real
    eps, tiny = torch.finfo(gain.dtype).eps, torch.finfo(gain.dtype).tiny ** 0.5
    level = K + 4 * eps * gain  # the ridge and a margin for rounding
    inverse = loaded_inverse(data.gram, level)
    kept, square, far = own(inverse).real, squared_magnitude(data.gram), squared_magnitude(inverse)
    scale = torch.where(gain > 0, gain, torch.inf).reciprocal()
    across = square * scale.unsqueeze(-1)
    shifts = torch.stack(
        [
            across * scale.unsqueeze(-2),
            far / (kept.unsqueeze(-1) * kept.unsqueeze(-2)),
            across / (gain + RIDGE_FACTOR * K).unsqueeze(-1),
        ],
        1,
    )
    shifts.diagonal(dim1=-2, dim2=-1).zero_()
    left = (level * kept).clamp(tiny, 1)  # 1/(1 + SINR) of the dual uplink
    far = torch.diagonal_scatter(far, torch.zeros_like(gain), dim1=-2, dim2=-1)
    spent = kept * (1 - left) - (level.unsqueeze(-2) @ far).squeeze(-2)  # power of each beam
    share = torch.where(spent > 0, K * spent, torch.inf).reciprocal()
    forced, rate = receivers(
        data.weights, (1 - left).square() * share, level.square() * (far @ share.unsqueeze(-1)).squeeze(-1)
    )
    lost = gain.amax(-1) / K + (kept / torch.where(spent > 0, spent, 0)).amax(-1)
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
    return Features(nodes, shifts, (1 + ROUNDING_MARGIN * eps * lost) * rate)


def preference(data: WhitenedChannel) -> Tensor:
    """Weights of the rate divided by their mean [B, K], at least 1e-4."""
    tiny = torch.finfo(data.weights.dtype).tiny
    return (data.weights / data.weights.mean(-1, keepdim=True).clamp_min(tiny)).clamp_min(1e-4)
