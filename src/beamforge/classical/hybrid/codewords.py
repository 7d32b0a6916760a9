"""Analog beamformers of codewords: the first choice, and the channels seen through the others of a choice."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.hybrid import distinct

INDEPENDENT = 1e-8
"""Least share of a codeword's squared norm outside the span of others that makes it linearly independent of them."""


class Codewords(NamedTuple):
    """Channels and codewords by their inner products alone.

    heard    ``h_k^H a_c``, complex [B, K, C].
    overlap  ``a_c^H a_d``, complex [B, C, C], or [1, C, C] where instances share the codebook.
    """

    heard: Tensor
    overlap: Tensor

    @classmethod
    def of(cls, H: Tensor, codebook: Tensor) -> Codewords:
        """For channels [B, K, N] with rows h_k^H and a codebook [B, N, C] or [1, N, C]."""
        codebook = distinct(codebook)
        return cls(H @ codebook, codebook.mH @ codebook)

    def first(self, score: Tensor, chains: int) -> Tensor:
        """The `chains` linearly independent codewords of largest score [B, C], in this order: [B, M].

        Where fewer codewords are independent, the last ones depend on the others.
        """
        norm = self.overlap.diagonal(dim1=1, dim2=2).real
        left = norm.expand_as(score).clone()
        parts: list[Tensor] = []
        chosen: list[Tensor] = []
        every = torch.arange(len(score), device=score.device)
        book = self.overlap.expand(len(score), -1, -1)
        for _ in range(chains):
            allowed = torch.where(left > INDEPENDENT * norm, score, -torch.inf)
            pick = allowed.argmax(-1)
            chosen.append(pick)
            part = book[every, :, pick]  # a step of the pivoted Cholesky factorisation of the overlap
            for known in parts:
                part = part - known * known[every, pick].conj().unsqueeze(1)
            part = part / left[every, pick].clamp_min(torch.finfo(left.dtype).tiny).sqrt().unsqueeze(1)
            parts.append(part)
            left = left - part.real.square() - part.imag.square()
            left[every, pick] = 0
        return torch.stack(chosen, -1)

    def seen_without(self, chosen: Tensor, chain: int, *, radiated: bool) -> tuple[Tensor, Tensor]:
        """The Gram matrix C_0 [B, K, K] of the channels seen through all chosen codewords [B, M] but that of one
        chain, and the s_c [B, K, C] for which it is ``C_0 + s_c s_c^H`` with codeword c in its place.

        Radiated power (``D = A^H A``): ``C = H P H^H`` with P the projection on the codewords. Baseband power (``D =
        I``): ``C = H A A^H H^H``. s_c is NaN for a codeword that depends linearly on the others.
        """
        others = torch.cat([chosen[:, :chain], chosen[:, chain + 1 :]], 1)
        rows = torch.arange(len(self.overlap), device=chosen.device).reshape(-1, 1)
        between = self.overlap[rows.unsqueeze(2), others.unsqueeze(2), others.unsqueeze(1)]
        factor = torch.linalg.cholesky_ex(between)[0]
        along = torch.linalg.solve_triangular(factor, self.overlap[rows, others], upper=False)
        norm = self.overlap.diagonal(dim1=1, dim2=2).real
        left = norm - (along.real.square() + along.imag.square()).sum(1)
        left = torch.where(left > INDEPENDENT * norm, left, torch.nan).unsqueeze(1)
        through = self.heard.gather(2, others.unsqueeze(1).expand(-1, self.heard.shape[1], -1))
        if not radiated:
            return through @ through.mH, torch.where(left.isnan(), torch.nan, self.heard)
        seen = torch.linalg.solve_triangular(factor, through.mH, upper=False).mH
        return seen @ seen.mH, (self.heard - seen @ along) / left.sqrt()
