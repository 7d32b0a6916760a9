"""The greedy choice of codewords for virtual channels of any covariances.

Receivers are improved by a power iteration for each Newton step on the uplink powers; whatever the receivers, the
powers with which they meet the targets are upper bounds on the least ones. All tensors of candidates end in the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.learned.hybrid.elimination import eliminated
from beamforge.learned.hybrid.sweep import INDEPENDENT, Chosen, first_codewords, repeated
from beamforge.learned.hybrid.uplink import LEAST_SHIFT, RANGE, Links, powers
from beamforge.learned.hybrid.virtual_channels import Virtual

MOST = 24
"""Most codewords that are tried."""

STEPS, FIRST_STEPS = 3, 24
"""Newton steps for the candidates of an RF chain, and for the codewords at the start."""


class Statistics(NamedTuple):
    """Covariances R [B, K, N, N], and the codewords that users receive at all.

    kept   the C codewords [B, C] with the largest ``max_k c^H R_k c / tr R_k``: the others add nothing.
    unit   these codewords c of norm one [B, N, C].
    seen   ``R c`` [B, K, N, C].
    gain   ``c^H R c`` [B, K, C].
    """

    R: Tensor
    kept: Tensor
    unit: Tensor
    seen: Tensor
    gain: Tensor

    @classmethod
    def of(cls, R: Tensor, codebook: Tensor) -> Statistics:
        """Of covariances and a codebook [B, N, C]."""
        norm = torch.linalg.vector_norm(codebook, dim=-2, keepdim=True)
        unit = codebook / torch.where(norm > 0, norm, 1)
        gain = (unit.conj().unsqueeze(1) * (R @ unit.unsqueeze(1))).sum(-2).real
        total = R.diagonal(dim1=-2, dim2=-1).real.sum(-1, keepdim=True)
        share = (gain / torch.where(total > 0, total, 1)).amax(1)
        index = share.topk(min(MOST, share.shape[-1]), sorted=False).indices.sort(-1).values
        unit = torch.take_along_dim(unit, index.unsqueeze(1), -1)
        return cls(R, index, unit, R @ unit.unsqueeze(1), torch.take_along_dim(gain, index.unsqueeze(1), -1))

    def original(self, codewords: Tensor) -> Tensor:
        """The numbers of codewords [B, M] in the whole codebook."""
        return torch.take_along_dim(self.kept, codewords, -1)


class Behind(NamedTuple):
    """Covariances behind orthonormal analog beams, G [M, M, K, n], and the present receivers u [M, K, n] there."""

    G: Tensor
    u: Tensor


def step(seen: Behind, levels: Virtual, targets: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One power iteration ``u <- Q^-1 wanted u`` and one Newton step on q [K, n]; u, q, and whether targets are met.

    Where these receivers cannot meet the targets, q is raised as in a fixed-point iteration in log q.
    """
    K, M = len(q), len(seen.G)
    eye, others = (torch.eye(size, dtype=q.dtype, device=q.device) for size in (M, K))
    others = 1 - others
    shift = (1 + others @ (q * levels.interfering_floor)).clamp_min(LEAST_SHIFT)
    weights = (others.unsqueeze(-1) * (q * levels.interfering)).to(seen.G.dtype)  # [k, j, n]
    Q = torch.einsum("xyjn,kjn->xykn", seen.G, weights) + eye[:, :, None, None] * shift
    heard = levels.wanted * through(seen.G, seen.u) + levels.wanted_floor * seen.u
    u, _ = eliminated(Q.flatten(2), heard.flatten(1))
    u = u.unflatten(-1, q.shape)
    size = torch.linalg.vector_norm(u, dim=0)
    u = u / torch.where(size > 0, size, 1)
    found = received(seen.G, u, levels, targets)
    least, met = powers(found)
    usable = torch.where(found.own > 0, found.own, 1)
    needed = (1 + (found.crossed * q).sum(1)) / usable
    grown = q * (2 * (needed / q).log()).clamp(-3.0, 3.0).exp()
    return u, torch.where(met, least, grown).clamp(*RANGE), met


def through(G: Tensor, u: Tensor) -> Tensor:
    """``G_k u_k`` [M, K, n]."""
    return (G * u).sum(1)


def quadratics(G: Tensor, u: Tensor) -> Tensor:
    """``u_k^H G_j u_k`` [k, j, n]."""
    return torch.stack(
        [(u[:, k].conj().unsqueeze(1) * (G * u[:, k : k + 1]).sum(1)).sum(0).real for k in range(u.shape[1])]
    )


def received(G: Tensor, u: Tensor, levels: Virtual, targets: Tensor) -> Links:
    """The links of receivers u of norm one."""
    power = quadratics(G, u)
    own = (levels.wanted * power.diagonal(dim1=0, dim2=1).mT + levels.wanted_floor) / targets
    crossed = levels.interfering * power + levels.interfering_floor
    others = 1 - torch.eye(len(own), dtype=own.dtype, device=own.device)
    return Links(own, crossed * others.unsqueeze(-1))


def first(known: Statistics, codewords: Tensor) -> tuple[Tensor, Behind]:
    """An orthonormal basis U [B, N, M] of codewords, and what is behind it; receivers point to the strongest gains."""
    U = torch.linalg.qr(torch.take_along_dim(known.unit, codewords.unsqueeze(1), -1))[0]
    G = (U.mH.unsqueeze(1) @ known.R @ U.unsqueeze(1)).permute(2, 3, 1, 0)
    u = torch.linalg.eigh(G.permute(3, 2, 0, 1))[1][..., -1]
    return U, Behind(G, u.permute(2, 1, 0))


class Candidates(NamedTuple):
    """The candidates of an RF chain: directions d [B, N, C] that they add to the basis U [B, N, M - 1] of the others,
    whether they add one [B, C], and what is behind both [.., B * C]."""

    U: Tensor
    added: Tensor
    independent: Tensor
    behind: Behind


def candidates(known: Statistics, codewords: Tensor, chain: int, receivers: Tensor) -> Candidates:
    """The candidates for a chain, with present receivers [B, N, K] as a start."""
    kept = torch.cat([codewords[:, :chain], codewords[:, chain + 1 :]], -1)
    U = torch.linalg.qr(torch.take_along_dim(known.unit, kept.unsqueeze(1), -1))[0]
    B, K, _, C = known.seen.shape
    along = U.mH @ known.unit  # [B, M-1, C]
    left = torch.linalg.vector_norm(known.unit - U @ along, dim=1).square()
    independent = left > INDEPENDENT
    scale = torch.where(independent, left, torch.inf).rsqrt()
    added = (known.unit - U @ along) * scale.unsqueeze(1)
    G0 = U.mH.unsqueeze(1) @ known.R @ U.unsqueeze(1)  # [B, K, M-1, M-1]
    b = U.mH.unsqueeze(1) @ known.seen  # U^H R c
    a = along.unsqueeze(1)
    side = (b - G0 @ a) * scale[:, None, None]
    corner = known.gain - 2 * (a.conj() * b).sum(2).real + (a.conj() * (G0 @ a)).sum(2).real
    corner = corner * scale.square().unsqueeze(1)
    M = U.shape[-1] + 1
    G = known.R.new_empty(M, M, K, B, C)
    G[:-1, :-1] = G0.permute(2, 3, 1, 0).unsqueeze(-1)
    G[:-1, -1] = side.permute(2, 1, 0, 3)
    G[-1, :-1] = side.conj().permute(2, 1, 0, 3)
    G[-1, -1] = corner.permute(1, 0, 2).to(G.dtype)
    u = known.R.new_empty(M, K, B, C)
    u[:-1] = (U.mH @ receivers).permute(1, 2, 0).unsqueeze(-1)
    u[-1] = (added.mH @ receivers).permute(2, 0, 1)
    return Candidates(U, added, independent, Behind(G.flatten(-2), u.flatten(-2)))


def tried(found: Candidates, levels: Virtual, targets: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Costs [B, C], uplink powers [K, B, C] and receivers [M, K, B, C] of all candidates; levels are [K, B]."""
    B, C = found.independent.shape
    many, aims = repeated(levels, C), targets.repeat_interleave(C, -1)
    seen, now, met = found.behind, q.clamp(*RANGE).repeat_interleave(C, -1), None
    for _ in range(STEPS):
        u, now, met = step(seen, many, aims, now)
        seen = Behind(seen.G, u)
    assert met is not None
    costs = torch.where(met.unflatten(-1, (B, C)) & found.independent, now.sum(0).unflatten(-1, (B, C)), torch.inf)
    return costs, now.unflatten(-1, (B, C)), seen.u.unflatten(-1, (B, C))


@torch.no_grad()
def swept(known: Statistics, levels: Virtual, targets: Tensor, chains: int, selections: int) -> tuple[Chosen, Tensor]:
    """Codewords after `selections` replacements, one RF chain after the other, and receivers [B, N, K]."""
    codewords = start(known, chains)
    U, seen = first(known, codewords)
    q = 2 * targets / (levels.wanted * quadratics(seen.G, seen.u).diagonal(dim1=0, dim2=1).mT + levels.wanted_floor)
    q = torch.where(torch.isfinite(q), q, 1).clamp(*RANGE)
    met = torch.zeros_like(q[0], dtype=torch.bool)
    for _ in range(FIRST_STEPS):
        u, q, met = step(seen, levels, targets, q)
        seen = Behind(seen.G, u)
    receivers = U @ seen.u.permute(2, 0, 1)
    for selection in range(selections):
        found = candidates(known, codewords, selection % chains, receivers)
        costs, powers_, u = tried(found, levels, targets, q)
        cost, place = costs.min(-1, keepdim=True)
        better = (cost < torch.where(met, q.sum(0), torch.inf).unsqueeze(-1)).squeeze(-1)
        codewords[:, selection % chains] = torch.where(better, place.squeeze(-1), codewords[:, selection % chains])
        q = torch.where(better, torch.take_along_dim(powers_, place.unsqueeze(0), -1).squeeze(-1), q)
        basis = torch.cat([found.U, torch.take_along_dim(found.added, place.unsqueeze(1), -1)], -1)
        u = torch.take_along_dim(u, place[None, None], -1).squeeze(-1)
        receivers = torch.where(better[:, None, None], basis @ u.permute(2, 0, 1), receivers)
        met = met | better
    return Chosen(codewords, q, met), receivers


def start(known: Statistics, chains: int) -> Tensor:
    """The `chains` linearly independent codewords a [B, M] with the largest ``sum_k a^H R_k a / tr R_k`` (Eq. 34)."""
    total = known.R.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    score = (known.gain / torch.where(total > 0, total, 1).unsqueeze(-1)).sum(1)
    return first_codewords(known.unit.mH @ known.unit, score, chains)


def priced(
    known: Statistics, levels: Virtual, targets: Tensor, chosen: Chosen, receivers: Tensor, chain: int
) -> Tensor:
    """Costs [B, C] of all candidates for a chain, with derivatives by levels [K, B]; receivers are constants."""
    C = known.unit.shape[-1]
    aims, many = targets.repeat_interleave(C, -1), repeated(levels, C)
    with torch.no_grad():
        found = candidates(known, chosen.codewords, chain, receivers)
        costs, _, u = tried(found, Virtual(*(each.detach() for each in levels)), targets, chosen.q)
    now, met = powers(received(found.behind.G, u.flatten(-2), many, aims))
    usable = torch.isfinite(costs) & met.unflatten(-1, costs.shape)
    return torch.where(usable, torch.where(met, now, 1).sum(0).unflatten(-1, costs.shape), torch.inf)
