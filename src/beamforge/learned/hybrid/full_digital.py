"""Fully digital beams under an outage constraint for learned virtual channels: a bound on hybrid beams."""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.core.hybrid import distinct
from beamforge.learned.hybrid.estimates import Estimates
from beamforge.learned.hybrid.virtual_hybrid import Built, VirtualHybrid, digital, levels_of


class FullDigitalGCN(VirtualHybrid):
    """Least power of beams with as many RF chains as antennas and a mean outage (the paper's U-FDBF-GCN).

    Virtual channels and settings are those of `HybridGCN`. Beams in the span of the codebook are allowed, all beams for
    a codebook with N independent columns. The optimal beams are combinations of the channel estimates, so they are
    solved for in that span.

    >>> from beamforge.core.named_problems import build_problem
    >>> from beamforge.scenarios.csi import PilotCSI
    >>> from beamforge.scenarios.upa import UPA
    >>> instance = PilotCSI(UPA(users=2)).sample(3)
    >>> problem = build_problem("hybrid-min-power", {**instance.context, "outage": 0.1})
    >>> FullDigitalGCN(checkpoint="random").solve(problem, instance).W.shape
    torch.Size([3, 32, 2])

    Source: the hybrid beamforming paper, Section 5.1.3.
    """

    model = "fulldigital-gcn"

    def __init__(
        self,
        checkpoint: str = "shipped",
        outage: float = 0.1,
        constraint: str = "annealed",
        width: int = 16,
        layers: int = 3,
        degree: int = 2,
    ) -> None:
        super().__init__(checkpoint, outage, constraint, width, layers, degree)

    def build(self, seen: Estimates, share: float = 1.0) -> Built:
        basis = torch.linalg.qr(within(seen.H, seen.codebook).mH)[0]
        return Built(basis, None, digital(seen, levels_of(self.network, seen).relaxed(share), basis))


def within(H: Tensor, codebook: Tensor) -> Tensor:
    """Channels [B, K, N] projected onto the span of the codebook [B, N, C]."""
    book = distinct(codebook)
    if (torch.linalg.matrix_rank(book) == H.shape[-1]).all():
        return H
    return (book @ (torch.linalg.pinv(book) @ H.mH)).mH
