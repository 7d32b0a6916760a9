"""The greedy choice of codewords for virtual channels, all candidates of an RF chain at once.

Source: G. Hegde, Y. Cheng, M. Pesavento, ICASSP 2017, Algorithm 2; the hybrid beamforming paper, Eqs. 14, 15 and 34.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.network import squared_magnitude
from beamforge.learned.hybrid.screening import screened
from beamforge.learned.hybrid.uplink import RANGE, Question, least_powers, links, newton_step, powers, receivers
from beamforge.learned.hybrid.virtual_channels import Virtual

INDEPENDENT = 1e-4
"""Least squared distance of a codeword of norm one to the span of the others of an instance."""

SHORTLIST, STEPS = 6, 2
"""Candidates that `screened` finds best, and the further Newton steps for these; all costs are upper bounds."""


class Chosen(NamedTuple):
    """Codewords [B, M], the uplink powers q [K, B] behind them, and whether these meet the targets [B]."""

    codewords: Tensor
    q: Tensor
    feasible: Tensor


class Codebook(NamedTuple):
    """Codewords of norm one: `heard` [B, K, C] are the channels ``h_k^H c``, `gram` [B, C, C] their inner products (a
    zero codeword is 0 in both); `norm` [B, K] is ``|h_k|^2``."""

    heard: Tensor
    gram: Tensor
    norm: Tensor

    @classmethod
    def of(cls, H: Tensor, codebook: Tensor) -> Codebook:
        """Of channels H [B, K, N] (rows h_k^H) and codewords [B, N, C]."""
        norm = torch.linalg.vector_norm(codebook, dim=-2, keepdim=True)
        unit = codebook / torch.where(norm > 0, norm, 1)
        return cls(H @ unit, unit.mH @ unit, squared_magnitude(H).sum(-1))


class Candidates(NamedTuple):
    """Channels behind the codewords of the other RF chains, and behind each candidate in addition.

    gram         Gram matrix of the channels behind the others [K, K, B].
    added        u [B, K, C]: with a candidate it is ``gram + u u^H``.
    independent  whether a candidate is linearly independent of the others [B, C].
    """

    gram: Tensor
    added: Tensor
    independent: Tensor

    def among(self, places: Tensor) -> Tensor:
        """Gram matrices [K, K, B * s] with the candidates in `places` [B, s]."""
        u = torch.take_along_dim(self.added, places.unsqueeze(1), -1).transpose(0, 1)
        return (self.gram.unsqueeze(-1) + u.unsqueeze(1) * u.conj().unsqueeze(0)).flatten(-2)


def first_codewords(gram: Tensor, score: Tensor, chains: int) -> Tensor:
    """The `chains` linearly independent codewords [B, M] of the largest scores [B, C].

    gram  inner products [B, C, C] of codewords of norm one; a zero codeword is 0 there.
    """
    left = gram.diagonal(dim1=-2, dim2=-1).real
    chosen: list[Tensor] = []
    basis: list[Tensor] = []  # inner products [B, C] of an orthonormal basis of the chosen codewords with all
    for _ in range(chains):
        place = torch.where(left > INDEPENDENT, score, -torch.inf).argmax(-1, keepdim=True)
        row = torch.take_along_dim(gram, place.unsqueeze(-1), 1).squeeze(1)
        for each in basis:
            row = row - torch.take_along_dim(each, place, -1).conj() * each
        row = row / torch.take_along_dim(left, place, -1).clamp_min(INDEPENDENT).sqrt()
        basis.append(row)
        left = left - squared_magnitude(row)
        chosen.append(place)
    return torch.cat(chosen, -1)


def start(book: Codebook, chains: int) -> Tensor:
    """The `chains` independent codewords a [B, M] with the largest ``sum_k |h_k^H a|^2 / |h_k|^2`` (Eq. 34)."""
    norm = torch.where(book.norm > 0, book.norm, 1).unsqueeze(-1)
    return first_codewords(book.gram, (squared_magnitude(book.heard) / norm).sum(1), chains)


def candidates(book: Codebook, kept: Tensor) -> Candidates:
    """What every codeword would do in place of the one that is not among the `kept` ones [B, M - 1]."""
    rows = torch.take_along_dim(book.gram, kept.unsqueeze(-1), 1)  # [B, M-1, C]
    among = torch.take_along_dim(rows, kept.unsqueeze(1), 2)
    factor = torch.linalg.cholesky_ex(among)[0]
    heard = torch.take_along_dim(book.heard, kept.unsqueeze(1), 2)  # [B, K, M-1]
    across = torch.linalg.solve_triangular(factor, rows, upper=False)
    behind = torch.linalg.solve_triangular(factor, heard.mH, upper=False)  # U^H h_k, [B, M-1, K]
    left = book.gram.diagonal(dim1=-2, dim2=-1).real - squared_magnitude(across).sum(1)
    independent = left > INDEPENDENT
    new = book.heard - behind.mH @ across
    new = new * torch.where(independent, left, torch.inf).rsqrt().unsqueeze(1)
    return Candidates((behind.mH @ behind).permute(1, 2, 0), new, independent)


def behind(book: Codebook, codewords: Tensor) -> Tensor:
    """Gram matrix [K, K, B] of the channels behind codewords [B, M]."""
    among = torch.take_along_dim(torch.take_along_dim(book.gram, codewords.unsqueeze(-1), 1), codewords.unsqueeze(1), 2)
    heard = torch.take_along_dim(book.heard, codewords.unsqueeze(1), 2)
    factor = torch.linalg.cholesky_ex(among)[0]
    seen = torch.linalg.solve_triangular(factor, heard.mH, upper=False)
    return (seen.mH @ seen).permute(1, 2, 0)


def repeated(levels: Virtual, times: int) -> Virtual:
    """Levels [K, B] as [K, B * times], for each of `times` candidates."""
    return Virtual(*(each.repeat_interleave(times, -1) for each in levels))


@torch.no_grad()
def swept(book: Codebook, levels: Virtual, targets: Tensor, chains: int, selections: int) -> Chosen:
    """Codewords after `selections` replacements, one RF chain after the other; the power never rises.

    levels   of the virtual channels, each [K, B].
    targets  [K, B].
    """
    codewords = start(book, chains)
    q, met = least_powers(Question(behind(book, codewords), levels, targets))
    for selection in range(selections):
        chain = selection % chains
        costs, found = tried(others(book, codewords, chain), levels, targets, q)
        cost, place = costs.min(-1, keepdim=True)
        now = torch.where(met, q.sum(0), torch.inf).unsqueeze(-1)
        better = (cost < now).squeeze(-1)
        codewords[:, chain] = torch.where(better, place.squeeze(-1), codewords[:, chain])
        q = torch.where(better, torch.take_along_dim(found, place.unsqueeze(0), -1).squeeze(-1), q)
        met = met | better
    return Chosen(codewords, q, met)


def others(book: Codebook, codewords: Tensor, chain: int) -> Candidates:
    """The candidates for a chain."""
    return candidates(book, torch.cat([codewords[:, :chain], codewords[:, chain + 1 :]], -1))


def tried(found: Candidates, levels: Virtual, targets: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Costs [B, C] and uplink powers [K, B, C] of all candidates, from those before, q [K, B]."""
    B, C = found.independent.shape
    q = q.clamp(*RANGE)
    step, met = powers(screened(Question(found.gram, levels, targets), found.added, q))
    step = step.unflatten(-1, (B, C))
    costs = torch.where(met.unflatten(-1, (B, C)) & found.independent, step.sum(0), torch.inf)
    places = costs.topk(min(SHORTLIST, C), largest=False).indices
    count = places.shape[-1]
    asked = Question(found.among(places), repeated(levels, count), targets.repeat_interleave(count, -1))
    near, where = torch.take_along_dim(step, places.unsqueeze(0), -1), places.unsqueeze(0).expand(len(q), -1, -1)
    near = torch.where(torch.isfinite(torch.take_along_dim(costs, places, -1)), near, q.unsqueeze(-1)).flatten(-2)
    for _ in range(STEPS):
        near, met = newton_step(asked, near.clamp(*RANGE))
    better = torch.where(met, near.sum(0), torch.inf).unflatten(-1, (B, count))
    better = torch.where(torch.take_along_dim(found.independent, places, -1), better, torch.inf)
    return costs.scatter(-1, places, better), step.scatter(-1, where, near.unflatten(-1, (B, count)))


def priced(book: Codebook, levels: Virtual, targets: Tensor, chosen: Chosen, chain: int) -> Tensor:
    """Costs [B, C] of all candidates for a chain, with derivatives by levels [K, B].

    The receivers are constants: they are optimal, so that the costs do not depend on them to first order.
    """
    B, C = book.heard.shape[::2]
    with torch.no_grad():
        known = Virtual(*(each.detach() for each in levels))
        found = others(book, chosen.codewords, chain)
        costs, step = tried(found, known, targets, chosen.q)
        gram = found.among(torch.arange(C, device=costs.device).expand(B, C))
        aims = targets.repeat_interleave(C, -1)
        X = receivers(Question(gram, repeated(known, C), aims), step.flatten(1).clamp(*RANGE))
    now, met = powers(links(Question(gram, repeated(levels, C), aims), X))
    usable = torch.isfinite(costs) & met.unflatten(-1, (B, C))
    return torch.where(usable, torch.where(met, now, 1).sum(0).unflatten(-1, (B, C)), torch.inf)
