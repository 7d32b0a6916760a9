"""Costs of all candidates of an RF chain by one Newton step, at a cost of O(K^2) each.

A candidate adds one dimension to the span of the other codewords, so its Gram matrix is a rank-one update of one that
all candidates share, and the receivers at the present powers follow by the matrix inversion lemma.
"""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.core.network import squared_magnitude
from beamforge.learned.hybrid.uplink import Links, Question, shifts


def screened(shared: Question, u: Tensor, q: Tensor) -> Links:
    """Links of all candidates with the receivers that are optimal at uplink powers q [K, B]; batch dimension B * C.

    shared  channels behind the codewords that stay, [K, K, B].
    u       what a candidate adds: its Gram matrix is ``gram + u u^H``, u [B, K, C].
    """
    levels, targets = shared.levels, shared.targets
    K, C = len(q), u.shape[-1]
    gram = shared.gram.permute(2, 0, 1)
    eye = torch.eye(K, dtype=q.dtype, device=q.device)
    shift = shifts(shared, q).mT  # [B, k]
    t = (1 - eye) * (q * levels.interfering).sqrt().mT.unsqueeze(1)  # [B, k, i]
    G = gram.unsqueeze(1)
    M = t.unsqueeze(-1) * t.unsqueeze(-2) * G + eye * shift[..., None, None]
    inverse = torch.linalg.inv_ex(M)[0]  # eigenvalues at least `shift`: no worse than the factors that follow
    P = t.unsqueeze(-1) * t.unsqueeze(-2) * inverse  # [B, k, i, j]
    column = gram.mT.unsqueeze(-1)  # v_i^H v_k as [B, k, i, 1]
    X = eye.unsqueeze(-1) - P @ column
    GP = G @ P
    near = (G @ X).squeeze(-1)  # v_i^H u_k without the candidate
    maps = torch.cat([eye - GP, P, P @ GP, X.mH, near.unsqueeze(-2).conj() @ P], -2)  # [B, k, 3 K + 2, K]
    moved = (maps.flatten(1, 2) @ u).unflatten(1, (K, -1))
    Fu, Pu, Nu, delta, cross = moved.split([K, K, K, 1, 1], 2)
    v = u.unsqueeze(1)
    beta = delta.squeeze(2).conj() / (1 + (v.conj() * Pu).sum(2).real)  # [B, k, C]
    size = squared_magnitude(beta)
    norm = (X.mH @ near.unsqueeze(-1)).real.squeeze(-1) - 2 * (beta * cross.squeeze(2)).real
    norm = norm + size * ((v.conj() * Nu).sum(2).real + 1)
    power = squared_magnitude(near.unsqueeze(-1) + beta.unsqueeze(2) * Fu)
    power = (power / torch.where(norm > 0, norm, 1).unsqueeze(2)).permute(1, 2, 0, 3).flatten(2)  # [k, i, B * C]

    def wide(level: Tensor) -> Tensor:
        return level.repeat_interleave(C, -1)

    own = wide(levels.wanted / targets) * power.diagonal(dim1=0, dim2=1).mT + wide(levels.wanted_floor / targets)
    crossed = wide(levels.interfering) * power + wide(levels.interfering_floor)
    return Links(own, crossed * (1 - eye).unsqueeze(-1))
