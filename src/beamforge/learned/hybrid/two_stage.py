"""Hybrid beams in two stages: statistics choose the analog beams, instantaneous channels the digital ones."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from beamforge.core.errors import ConfigError
from beamforge.learned.hybrid.covariance_sweep import Statistics, priced, swept
from beamforge.learned.hybrid.estimates import Estimates
from beamforge.learned.hybrid.graph_convolution import GraphNetwork
from beamforge.learned.hybrid.straight_through import selected
from beamforge.learned.hybrid.virtual_channels import Virtual, covariance_shift, virtual_channels
from beamforge.learned.hybrid.virtual_hybrid import Built, VirtualHybrid, digital, levels_of


class Hybrid2GCN(VirtualHybrid):
    """Least radiated power with a mean outage; codewords by covariances, digital beams by estimates (U-G-HBF-2GCN).

    The covariances R_k of the context are what changes slowly. Two graph networks give the virtual channels of the two
    stages: ``c_1 R_k + c_2 g_k I`` and ``c_3 R_k + c_4 g_k I`` with ``g_k = tr R_k / N`` for the greedy choice of
    codewords, and those of `HybridGCN` for the digital beams. Without covariances they are ``h_k h_k^H`` of the
    estimates.

    rf_chains    M, or as many as the codebook has independent codewords.
    selections   codewords tried to be replaced, one RF chain after the other.
    checkpoint   "shipped", "random" (untrained), or a file that `beamforge train` wrote.
    shared       one network for both stages, for random weights (the paper's U-G-HBF-GCN on statistics).
    outage       nominal outage of a training; otherwise the weights determine it.
    constraint   form of the outage constraint in a training: "annealed" or "quantile".
    width        of a random graph network; otherwise the weights determine it, as the next two.
    layers       of the same.
    degree       of the graph convolutions of the same.

    Raises `ConfigError` for a setting out of range, a checkpoint of other sizes or an outage below its own.

    >>> from beamforge.core.named_problems import build_problem
    >>> from beamforge.scenarios.csi import PilotCSI
    >>> from beamforge.scenarios.upa import UPA
    >>> instance = PilotCSI(UPA(users=2)).sample(3)
    >>> problem = build_problem("hybrid-min-power", {**instance.context, "outage": 0.1})
    >>> Hybrid2GCN(checkpoint="random").solve(problem, instance).factors.digital.shape
    torch.Size([3, 5, 2])

    Source: the hybrid beamforming paper, Section 5.5 (reconstructed).
    """

    model = "hybrid-2gcn"
    statistical: GraphNetwork
    networks: ClassVar[tuple[str, ...]] = ("network", "statistical")

    def __init__(
        self,
        rf_chains: int = 5,
        selections: int = 5,
        checkpoint: str = "shipped",
        shared: bool = False,
        outage: float = 0.1,
        constraint: str = "annealed",
        width: int = 16,
        layers: int = 3,
        degree: int = 2,
    ) -> None:
        if rf_chains < 1 or selections < 0:
            raise ConfigError(f"rf_chains must be at least 1 and selections at least 0, got {rf_chains}, {selections}")
        super().__init__(checkpoint, outage, constraint, width, layers, degree)
        self.rf_chains, self.selections, self.shared = rf_chains, selections, shared

    def build(self, seen: Estimates, share: float = 1.0) -> Built:
        R = seen.covariance
        if R is None:
            R = torch.einsum("bkn,bkm->bknm", seen.H.conj(), seen.H)
        network = self.network if self.shared else self.statistical
        gain = R.diagonal(dim1=-2, dim2=-1).real.mean(-1)
        levels = virtual_channels(network, covariance_shift(R), gain, seen.targets, seen.quality).relaxed(share)
        codewords, A = self.analog(seen, R, levels)
        return Built(A, codewords, digital(seen, levels_of(self.network, seen).relaxed(share), A))

    def analog(self, seen: Estimates, R: Tensor, levels: Virtual) -> tuple[Tensor, Tensor]:
        """Codewords [B, M] and A [B, N, M], in which the last codeword selected has a gradient."""
        known, chains = Statistics.of(R, seen.codebook), min(self.rf_chains, seen.chains)
        sides, targets = Virtual(*(each.mT for each in levels)), seen.targets.mT
        learns = self.selections > 0 and torch.is_grad_enabled() and levels.wanted.requires_grad
        fixed = Virtual(*(each.detach() for each in sides))
        chosen, receivers = swept(known, fixed, targets, chains, self.selections - learns)
        codewords = known.original(chosen.codewords)
        A = torch.take_along_dim(seen.codebook, codewords.unsqueeze(1), -1)
        if learns:
            chain = (self.selections - 1) % chains
            costs = priced(known, sides, targets, chosen, receivers, chain)
            words = torch.take_along_dim(seen.codebook, known.kept.unsqueeze(1), -1)
            column = selected(costs, words.mT).unsqueeze(-1)
            A = torch.where(torch.arange(chains, device=A.device) == chain, column, A)
        return codewords, A
