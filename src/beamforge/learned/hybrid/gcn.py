"""Hybrid beams under an outage constraint: codewords and digital beams for learned virtual channels.

Source: L. Schynol, M. Pesavento, "Hybrid downlink beamforming with outage constraints under imperfect CSI using
model-driven deep learning", 2026; equations are cited by their numbers there (reconstructed).
"""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.core.errors import ConfigError
from beamforge.learned.hybrid.estimates import Estimates
from beamforge.learned.hybrid.straight_through import selected
from beamforge.learned.hybrid.sweep import Chosen, Codebook, priced, swept
from beamforge.learned.hybrid.virtual_channels import Virtual
from beamforge.learned.hybrid.virtual_hybrid import Built, VirtualHybrid, digital, levels_of


class HybridGCN(VirtualHybrid):
    """Least radiated power of hybrid beams with a mean outage, from channel estimates (the paper's U-G-HBF-GCN).

    With the estimate ``h_k``, noise one and ``g_k = |h_k|^2 / N``, a graph network over the users gives four positive
    coefficients c of each user, and its virtual channels are

        wanted ``c_1 h_k h_k^H + c_2 g_k I``,   interfering ``c_3 h_k h_k^H + c_4 g_k I``.

    Codewords and digital beams have the least power that meets the SINR targets with these: a greedy sweep replaces one
    codeword after the other by the best one, all candidates at once, then the digital beams are solved exactly. Powers
    above the limit are scaled down to it. Where virtual targets cannot be met, c_2 and c_4 are halved, halved again and
    set to 0; an instance whose targets cannot be met on the estimates either is flagged infeasible.

    The network is trained for a nominal outage; a smaller one is refused. CSI quality (pilot power over noise) outside
    1..100 counts as the nearest end.

    rf_chains    M, or as many as the codebook has independent codewords.
    selections   codewords tried to be replaced, one RF chain after the other.
    checkpoint   "shipped", "random" (untrained), or a file that `beamforge train` wrote.
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
    >>> HybridGCN(checkpoint="random").solve(problem, instance).factors.digital.shape
    torch.Size([3, 5, 2])

    Source: Section 4, Eqs. 25 to 35.
    """

    model = "hybrid-gcn"

    def __init__(
        self,
        rf_chains: int = 5,
        selections: int = 10,
        checkpoint: str = "shipped",
        outage: float = 0.1,
        constraint: str = "annealed",
        width: int = 16,
        layers: int = 3,
        degree: int = 2,
    ) -> None:
        if rf_chains < 1 or selections < 0:
            raise ConfigError(f"rf_chains must be at least 1 and selections at least 0, got {rf_chains}, {selections}")
        super().__init__(checkpoint, outage, constraint, width, layers, degree)
        self.rf_chains, self.selections = rf_chains, selections

    def build(self, seen: Estimates, share: float = 1.0) -> Built:
        levels = levels_of(self.network, seen).relaxed(share)
        chosen, A = self.analog(seen, levels)
        return Built(A, chosen.codewords, digital(seen, levels, A, chosen.q.mT))

    def analog(self, seen: Estimates, levels: Virtual) -> tuple[Chosen, Tensor]:
        """Codewords, and A [B, N, M], in which the last codeword selected has a gradient where the levels have one."""
        book, chains = Codebook.of(seen.H, seen.codebook), min(self.rf_chains, seen.chains)
        sides, targets = Virtual(*(each.mT for each in levels)), seen.targets.mT
        learns = self.selections > 0 and torch.is_grad_enabled() and levels.wanted.requires_grad
        fixed = Virtual(*(each.detach() for each in sides))
        chosen = swept(book, fixed, targets, chains, self.selections - learns)
        A = torch.take_along_dim(seen.codebook, chosen.codewords.unsqueeze(1), -1)
        if learns:
            chain = (self.selections - 1) % chains
            costs = priced(book, sides, targets, chosen, chain)
            column = selected(costs, seen.codebook.mT).unsqueeze(-1)
            A = torch.where(torch.arange(chains, device=A.device) == chain, column, A)
        return chosen, A


class HybridFCN(HybridGCN):
    """`HybridGCN` without the graph: every user's coefficients depend on its own inputs alone (U-G-HBF-FCN).

    The settings are those of `HybridGCN`, with degree 0.

    >>> HybridFCN(checkpoint="random").network.layers[0].taps.__len__()
    1
    """

    model = "hybrid-fcn"

    def __init__(
        self,
        rf_chains: int = 5,
        selections: int = 10,
        checkpoint: str = "shipped",
        outage: float = 0.1,
        constraint: str = "annealed",
        width: int = 28,
        layers: int = 3,
    ) -> None:
        super().__init__(rf_chains, selections, checkpoint, outage, constraint, width, layers, degree=0)
