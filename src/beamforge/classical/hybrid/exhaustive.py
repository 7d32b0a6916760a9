"""The optimal hybrid beams: all subsets of codewords, for small codebooks."""

from __future__ import annotations

import math
from itertools import combinations, islice

import torch
from torch import Tensor

from beamforge.classical.hybrid.codewords import Codewords
from beamforge.classical.hybrid.greedy import GreedyHybrid, HybridSolver, Selection
from beamforge.classical.hybrid.sweep import Race
from beamforge.core.errors import ConfigError

SUBSETS = 1 << 12
"""Subsets compared at once for each instance."""

INDEPENDENT = 1e-10
"""Least eigenvalue of the overlap of linearly independent codewords, as a share of the largest."""


class ExhaustiveHybrid(HybridSolver):
    """The subset of M codewords of least power, with optimal digital beams: the optimum over the codebook.

    Bounds on the powers (`Race`) decide which subsets are solved, but all C over M of them are compared; more than
    `max_subsets` are refused. Subsets of linearly dependent codewords are left out.

    >>> from beamforge.core.constraints import SinrAtLeast
    >>> from beamforge.core.hybrid import AnalogCodebook
    >>> from beamforge.core.network import Network
    >>> from beamforge.core.problem import Problem
    >>> from beamforge.core.utilities import TransmitPower
    >>> network = Network.broadcast(torch.eye(2, 6, dtype=torch.complex128), noise=1.0)
    >>> problem = Problem(TransmitPower(), (SinrAtLeast(3.0), AnalogCodebook(torch.eye(6, dtype=torch.complex128))))
    >>> ExhaustiveHybrid(rf_chains=2).solve(problem, network).factors.codeword
    tensor([0, 1])
    """

    capabilities = GreedyHybrid.capabilities

    def __init__(self, rf_chains: int = 5, max_subsets: int = 1_000_000) -> None:
        super().__init__(rf_chains)
        self.max_subsets = max_subsets

    def choose(self, H: Tensor, codebook: Tensor, targets: Tensor, *, radiated: bool) -> Selection:
        size = codebook.shape[-1]
        count = math.comb(size, self.rf_chains)
        if count > self.max_subsets:
            came = f"{count} of {size} codewords; use greedy-hybrid, fewer rf_chains or a smaller codebook"
            raise ConfigError(f"subsets must be at most max_subsets = {self.max_subsets}, got {came}")
        words = Codewords.of(H, codebook)
        norm = torch.linalg.vector_norm(H, dim=-1).square()
        q = 4 * targets / torch.where(norm > 0, norm, 1)
        codeword = torch.arange(self.rf_chains, device=H.device).repeat(len(H), 1)
        cost = torch.full_like(q[:, 0], torch.inf)
        subsets = combinations(range(size), self.rf_chains)
        while part := list(islice(subsets, SUBSETS)):
            chosen = torch.tensor(part, device=H.device)
            for rows in torch.arange(len(H), device=H.device).split(max(1, SUBSETS * 8 // len(part))):
                book = words.overlap if len(words.overlap) == 1 else words.overlap[rows]
                gram = grams(Codewords(words.heard[rows], book), chosen, radiated=radiated)
                numbers = torch.arange(len(rows) * len(part), device=H.device)
                found = Race(gram, targets[rows]).run(numbers, q[rows], cost[rows])
                better = found.cost < cost[rows]
                cost[rows] = torch.minimum(found.cost, cost[rows])
                q[rows] = torch.where(better.unsqueeze(1), found.q, q[rows])
                codeword[rows] = torch.where(better.unsqueeze(1), chosen[found.candidate], codeword[rows])
        return Selection(codeword, q, torch.full_like(codeword[:, 0], count), cost.unsqueeze(1))


def grams(words: Codewords, chosen: Tensor, *, radiated: bool) -> Tensor:
    """Gram matrices [B, n, K, K] of the channels seen through subsets [n, M]; NaN for dependent codewords."""
    through = words.heard[:, :, chosen].transpose(1, 2)  # [B, n, K, M]
    overlap = words.overlap[:, chosen.unsqueeze(2), chosen.unsqueeze(1)]
    values = torch.linalg.eigvalsh(overlap)
    independent = values[..., 0] > INDEPENDENT * values[..., -1]
    if radiated:
        eye = torch.eye(chosen.shape[1], dtype=overlap.dtype, device=overlap.device)
        factor = torch.linalg.cholesky_ex(torch.where(independent[..., None, None], overlap, eye))[0]
        through = torch.linalg.solve_triangular(factor, through.mH, upper=False).mH
    return torch.where(independent[..., None, None], through @ through.mH, torch.nan)
