"""The cheapest of many analog beamformers for each instance, found by bounds on their powers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.hybrid.gram import least, newton_step

PROBLEMS = 1 << 15
"""Candidates compared at once, so that they fit in the cache of a processor."""

LEADERS = 4
"""Candidates with the least lower bounds, whose upper bounds exclude others while no power is known."""

MOST = 1e7
"""Powers beyond this multiple of those without interference count as infinite, since rounding decides about them."""


class Cheapest(NamedTuple):
    """For each instance: the cheapest candidate [B], its power [B] (infinite if none is feasible), and its uplink
    powers q [B, K]."""

    candidate: Tensor
    cost: Tensor
    q: Tensor


def sweep(base: Tensor, added: Tensor, targets: Tensor, q: Tensor, cost: Tensor) -> Cheapest:
    """The cheapest of C codewords of one RF chain, whose Gram matrices are ``C_0 + s_c s_c^H``.

    The inverse of ``I + diag(sqrt q) (C_0 + s_c s_c^H) diag(sqrt q)`` differs between codewords by a matrix of rank
    one, so a lower bound (`newton_step`) for every codeword takes K numbers each. Only codewords that it does not
    exclude are solved.

    base     C_0 complex [B, K, K], of the other chains.
    added    s complex [B, K, C]; NaN for a codeword that may not be chosen.
    targets  [B, K].
    q        uplink powers near those of the solution [B, K].
    cost     a known power [B], or infinity. Where no codeword has less, the result is any codeword or none.
    """
    each = max(1, PROBLEMS // max(1, added.shape[-1]))
    parts = zip(*(tensor.split(each) for tensor in (base, added, targets, q, cost)), strict=True)
    found = [_sweep(*part) for part in parts]
    return Cheapest(*(torch.cat(each) for each in zip(*found, strict=True)))


def _sweep(base: Tensor, added: Tensor, targets: Tensor, q: Tensor, cost: Tensor) -> Cheapest:
    batch, _, candidates = added.shape
    bound = lower_bounds(base, added, targets, q)
    race = Race(RankOne(base, added), targets)
    if torch.isinf(cost).any():
        leading = bound.topk(min(LEADERS, candidates), -1, largest=False).indices
        first = torch.arange(batch, device=q.device).unsqueeze(1) * candidates
        cost = torch.minimum(race.run((first + leading).flatten(), q, cost, max_iterations=1).cost, cost)
    rows = ((bound <= cost.unsqueeze(1)) & torch.isfinite(bound)).flatten().nonzero().squeeze(-1)
    return race.run(rows, q, cost)


def lower_bounds(base: Tensor, added: Tensor, targets: Tensor, q: Tensor) -> Tensor:
    """Lower bounds [B, C] on the powers of the codewords; infinite for a codeword of NaN."""
    root = q.sqrt()
    eye = torch.eye(q.shape[-1], dtype=base.dtype, device=q.device)
    shared = torch.linalg.inv_ex(root.unsqueeze(2) * base * root.unsqueeze(1) + eye)[0]
    scaled = root.unsqueeze(2) * added
    v = shared @ scaled
    grown = 1 + (v.real * scaled.real + v.imag * scaled.imag).sum(1, keepdim=True)
    own = shared.diagonal(dim1=1, dim2=2).real.unsqueeze(2) - (v.real.square() + v.imag.square()) / grown
    gain = base.diagonal(dim1=1, dim2=2).real.unsqueeze(2) + added.real.square() + added.imag.square()
    needed = (targets * q).unsqueeze(2) * own / (1 - own)
    return least(targets.unsqueeze(2) / gain, needed, q.unsqueeze(2), 1).nan_to_num(torch.inf, posinf=torch.inf)


class RankOne:
    """Gram matrices ``C_0 + s_c s_c^H`` [B, C, K, K], computed when they are taken by ``[instance, candidate]``."""

    def __init__(self, base: Tensor, added: Tensor) -> None:
        self.base, self.added, self.shape = base, added, (*added.shape[::2], *base.shape[1:])

    def __getitem__(self, place: tuple[Tensor, Tensor]) -> Tensor:
        instance, candidate = place
        s = self.added[instance, :, candidate]
        return self.base[instance] + s.unsqueeze(2) * s.conj().unsqueeze(1)


class Race:
    """Newton steps on candidates until the power of the cheapest one of each instance is known.

    gram     Gram matrices [B, C, K, K] of C candidates.
    targets  [B, K].
    """

    def __init__(self, gram: Tensor | RankOne, targets: Tensor) -> None:
        self.gram, self.targets = gram, targets

    def run(self, rows: Tensor, q: Tensor, best: Tensor, tolerance: float = 1e-5, max_iterations: int = 40) -> Cheapest:
        """The cheapest of the candidates `rows` (instance times C plus codeword), from uplink powers q [B, K].

        A candidate leaves the race when its power is known, when its lower bound exceeds the least upper bound of the
        instance, or when its powers diverge.

        best  known upper bounds [B].
        """
        candidates = self.gram.shape[1]
        if not len(rows):
            return Cheapest(torch.zeros_like(best, dtype=torch.long), torch.full_like(best, torch.inf), q)
        owner = rows // candidates
        C = self.gram[owner, rows % candidates]
        powers, goal = q[owner], self.targets[owner]
        gain = C.diagonal(dim1=1, dim2=2).real
        running = ((gain > 0) & torch.isfinite(gain)).all(1).nonzero().squeeze(-1)
        costs = torch.full_like(powers[:, 0], torch.inf)
        for _ in range(max_iterations):
            if not len(running):
                break
            of = owner[running]
            step = newton_step(C[running], goal[running], powers[running])
            upper = torch.where(step.reached, step.q.sum(1), torch.inf)
            costs[running], powers[running] = upper, step.q
            best = best.scatter_reduce(0, of, upper, "amin")
            converging = (step.q * gain[running] / goal[running]).amax(1) < MOST
            running = running[converging & (step.moved > tolerance) & (step.lower < best[of])]
        cheapest = torch.full_like(best, torch.inf).scatter_reduce(0, owner, costs, "amin")
        first = torch.full_like(best, len(rows), dtype=torch.long)
        place = torch.arange(len(rows), device=rows.device)
        winner = torch.isfinite(costs) & (costs == cheapest[owner])
        first = first.scatter_reduce(0, owner[winner], place[winner], "amin")
        known = first < len(rows)
        first = torch.where(known, first, 0)
        return Cheapest(
            torch.where(known, rows[first] % candidates, 0),
            cheapest,
            torch.where(known.unsqueeze(1), powers[first], q),
        )
