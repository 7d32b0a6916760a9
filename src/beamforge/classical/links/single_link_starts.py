"""Many short climbs to the weighted sum rate of links: every start is led by one link, every step is a stretched one.

Local optima differ in which links are switched off, and mostly in the link that leads; from a start that one link
leads, WMMSE finds those that go with it. Followed beyond where they lead, its steps switch links off much sooner.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from beamforge.classical.links.starts import spread
from beamforge.classical.links.wmmse import SharedPower, link_response
from beamforge.core.network import spectral_efficiency

OVER_RELAXATION = 3.0
"""Times that a step of WMMSE, in the logarithms of the powers, is gone on the way up."""

FLOOR = -60.0
"""Least logarithm of a share: such a link is off, and could come back."""


def single_link_starts(data: SharedPower, count: int) -> Tensor:
    """Shares [B, 1 + S, L]: equal ones, then those led by each of the S = min(count, L) links best when alone."""
    return spread(data, 1 + min(count, data.direct.shape[-1]))


def climb(data: SharedPower, p: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Shares [B, S, L] after some steps from p [B, S, L], and the rates [B, S, steps + 1] before, between and after.

    ``log p + 3 d`` with d what a step of WMMSE adds to the logarithms. Where the rate would fall, the plain step is
    taken instead, from the best point so far: so rates never fall.
    """
    z = held = fallback = logarithm(p)
    reached = torch.full_like(p[..., 0], -torch.inf)
    rates = []
    for _ in range(steps + 1):
        seen = link_response(data, z.exp())
        rate = (data.weights.unsqueeze(-2) * spectral_efficiency(seen.sinr)).sum(-1)
        rises = (rate >= reached).unsqueeze(-1)
        reached, held = torch.maximum(reached, rate), torch.where(rises, z, held)
        rates.append(reached)
        d = 2 * logarithm(seen.pull)
        z, fallback = (
            torch.where(rises, moved(z, OVER_RELAXATION * d), fallback),
            torch.where(rises, moved(z, d), fallback),
        )
    return held.exp(), torch.stack(rates, -1)


def logarithm(x: Tensor) -> Tensor:
    """Of non-negative numbers, within +-`FLOOR`."""
    return x.clamp(math.exp(FLOOR), math.exp(-FLOOR)).log()


def moved(z: Tensor, by: Tensor) -> Tensor:
    """Logarithms of shares [..., L] after a move: the shares sum to one again."""
    return torch.log_softmax(z + by, -1).clamp_min(FLOOR)
