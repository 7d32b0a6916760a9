"""Sum rate of links with a limit each: the best of many local optima."""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.classical.links.limited_wmmse import LimitedLinks, LimitedLinkWMMSE, climb
from beamforge.classical.links.starts import handed_out

CLIMB = 100
"""Steps from every start, after which the best are known."""

FINALISTS = 16
"""Points that are followed to the end."""

DECADES = 4.0
"""Decades below their limits from which powers are drawn."""


class LimitedManyStarts(LimitedLinkWMMSE):
    """The best of many local optima under a limit a link: no certificate, but seldom beaten.

    Half of the starts are those of `LimitedLinkWMMSE`, the others draw the logarithm of every power; all are followed
    much further before the best are chosen, and more of these.

    starts  how many.
    """

    def __init__(self, starts: int = 400, tolerance: float = 1e-13, max_iterations: int = 5000) -> None:
        super().__init__(tolerance, max_iterations, "squarem", starts)

    def patterns(self, data: LimitedLinks, count: int, generator: torch.Generator | None) -> Tensor:
        half = (count + 1) // 2
        generator = generator or torch.Generator(data.direct.device).manual_seed(1)
        size = (count - half, data.direct.shape[-1])
        draws = torch.rand(size, generator=generator, dtype=torch.float64, device=generator.device).to(data.direct)
        shares = handed_out(data, 10 ** (-DECADES * draws))
        return torch.cat([super().patterns(data, half, generator), shares.sqrt()], 1)

    def leaders(self, data: LimitedLinks, v: Tensor) -> Tensor:
        return climb(data, v, CLIMB, FINALISTS)
