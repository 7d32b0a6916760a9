"""The globally best weighted sum rate of a few links under one total power, with a proof: branch and bound.

The shares of the power lie on a simplex, which is cut into smaller ones. With interference and noise ``I_l`` and all
that is received ``T_l``, both linear in the shares, a rate ``log T_l - log I_l`` lies below ::

    log T_l(c) + (T_l - T_l(c)) / T_l(c) - log I_l        at the corners, and interpolated between them,
    log(1 + S_l(c)/I) + (S_l - S_l(c)) / (I + S_l(c))     with I the least interference there and S_l the signal,

c the centroid: a tangent of what is concave, the chord of what is convex. Both are linear, and so is the weighted sum
of the lower ones, so that its best corner bounds a whole cell. The error falls with the square of the size.

Source: branch and bound on simplices with d.c. bounds follows R. Horst, H. Tuy, "Global Optimization" (1996), Sec. 10.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.bounds import double, outward
from beamforge.classical.links.many_starts import ManyStarts
from beamforge.classical.links.wmmse import CAPABILITIES, LinkWMMSE, SharedPower
from beamforge.core import batching
from beamforge.core.errors import ConfigError
from beamforge.core.network import Network
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver

MOST = 6
"""Links at most: four take some hundred cells, six some ten thousand, eight millions."""

SIDE_BY_SIDE = 64
"""Instances searched at once."""

NEGLIGIBLE = 1e-11
"""A distance from the bound, bit/s/Hz, that counts as none: it is of the size of rounding."""


class LinkBranchAndBound(Solver):
    """Powers whose weighted sum rate is within `gap` of the best there is, and the bound that proves it.

    gap        relative distance of the bound from the rate at which an instance has converged.
    max_cells  cells an instance may look at; past them it stops with the bound it has, `MAX_ITERATIONS`.

    The search begins with the best of many local optima, and seldom finds better. ``info`` has ``bound`` [...], which
    no powers exceed, bit/s/Hz, and ``cells`` [...]. An iteration is one round in which all open cells are cut in two.

    >>> from beamforge.core.named_problems import build_problem
    >>> from beamforge.scenarios.power_control import ThreeLinks
    >>> instance = ThreeLinks().sample(1, dtype=torch.complex128)
    >>> problem = build_problem("sum-rate", instance.context)
    >>> solution = LinkBranchAndBound().solve(problem, instance)
    >>> rate = problem.value(instance.truth, solution.W)
    >>> bool(rate <= solution.info["bound"] <= 1.0001 * rate)
    True
    """

    capabilities = CAPABILITIES
    scope = f"with a proof up to {MOST} links"

    def __init__(self, gap: float = 1e-4, max_cells: int = 1_000_000) -> None:
        super().__init__()
        if not 1e-6 <= gap < 1:
            raise ConfigError(f"gap must be at least 1e-6 and below 1, got {gap:g}")
        if max_cells < 1:
            raise ConfigError(f"max_cells must be at least 1, got {max_cells}")
        self.gap = gap
        self.max_cells = max_cells

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        return network.users <= MOST and super().supports(problem, network)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        dtype = observation.network.H.dtype
        problem, observation, start = double((problem, observation, start))
        local = ManyStarts().solve_batch(problem, observation, start, generator)
        data = SharedPower.of(problem, observation.network)
        with torch.no_grad():
            rate = problem.value(observation.network, local.W).nan_to_num(-torch.inf)
            parts = torch.arange(len(rate), device=rate.device).split(SIDE_BY_SIDE)
            found = [self.search(batching.take(data, part), rate[part]) for part in parts]
            search = batching.tree_map(lambda *leaves: torch.cat(leaves), *found)
        W = local.W
        if (missed := search.rate > rate * (1 + 1e-9)).any():
            better = LinkWMMSE().solve_batch(problem, observation, data.beams(search.p), generator)
            W = batching.where(missed, better.W, W)
        rate = problem.value(observation.network, W).detach()
        bound = search.bound.maximum(rate)
        closed = bound <= rate * (1 + self.gap) + NEGLIGIBLE
        status = torch.where(closed, int(Status.CONVERGED), int(Status.MAX_ITERATIONS))
        info = {"bound": outward(bound, 1, dtype.to_real()), "cells": search.cells}
        return Solution(W.to(dtype), status, search.rounds, info=info)

    def search(self, data: SharedPower, rate: Tensor) -> SearchResult:
        """The search of some instances from rates [B] that are known to be reached, bit/s/Hz."""
        B, L = data.direct.shape
        owner = torch.arange(B, device=rate.device)
        corner = torch.eye(L, dtype=rate.dtype, device=rate.device).expand(B, L, L)
        point = torch.full_like(data.direct, 1 / L)
        closed = torch.full_like(rate, -torch.inf)
        cells = torch.zeros_like(owner)
        rounds = torch.zeros_like(owner)
        while len(owner):
            here = SharedPower(*batching.take(data, owner))
            bound, worst = relax(here, corner)
            centre = corner.mean(1)
            reached = here.rate(centre.unsqueeze(1)).squeeze(1)
            best = rate.scatter_reduce(0, owner, reached, "amax")
            record = (reached == best[owner]) & (reached > rate[owner])
            point = point.index_put((owner[record],), centre[record])
            rate = best
            cells = cells + torch.bincount(owner, minlength=B)
            hopeful = bound > rate[owner] * (1 + self.gap) + 0.5 * NEGLIGIBLE
            wanted = torch.bincount(owner[hopeful], minlength=B)
            spent = cells + 2 * wanted > self.max_cells
            kept = hopeful & ~spent[owner]
            closed = closed.scatter_reduce(0, owner[~kept], bound[~kept], "amax")
            rounds = rounds + ((wanted > 0) & ~spent)
            owner, corner, worst = owner[kept], corner[kept], worst[kept]
            corner, owner = torch.cat(halves(corner, worst)), owner.repeat(2)
        return SearchResult(point, rate, closed.maximum(rate), cells, rounds)


class SearchResult(NamedTuple):
    """The best point seen [B, L], the rate that is reached and its bound [B], cells looked at and rounds [B]."""

    p: Tensor
    rate: Tensor
    bound: Tensor
    cells: Tensor
    rounds: Tensor


def relax(data: SharedPower, corner: Tensor) -> tuple[Tensor, Tensor]:
    """The bound [n] of the rate in cells of corners [n, L, L] (rows are points), the edge [n] where it errs most."""
    noise = data.interference(corner)
    signal = corner * data.direct.unsqueeze(-2)
    total = noise + signal
    least = noise.amin(1, keepdim=True)
    centre_total, centre_signal = total.mean(1, keepdim=True), signal.mean(1, keepdim=True)
    log_noise, log_total = noise.log(), total.log()
    joint = centre_total.log() + (total - centre_total) / centre_total - log_noise
    alone = torch.log1p(centre_signal / least) + (signal - centre_signal) / (least + centre_signal)
    lower = joint.mean(1, keepdim=True) <= alone.mean(1, keepdim=True)
    weights = data.weights.unsqueeze(-2)
    bound = (weights * torch.where(lower, joint, alone)).sum(-1).amax(-1)
    error = weights.unsqueeze(1) * (sagitta(noise, log_noise) + sagitta(total, log_total))
    return bound / math.log(2), error.sum(-1).flatten(1).argmax(-1)


def sagitta(x: Tensor, log: Tensor) -> Tensor:
    """How far the log lies above its chord in the middle of every edge, [n, i, j, L], for positive x [n, L, L]."""
    middle = (x.unsqueeze(1) + x.unsqueeze(2)) / 2
    return middle.log() - (log.unsqueeze(1) + log.unsqueeze(2)) / 2


def halves(corner: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
    """Each cell as two, cut through the middle of an edge, i L + j for corners i and j."""
    each = torch.arange(len(edge), device=edge.device)
    i, j = edge // corner.shape[-1], edge % corner.shape[-1]
    middle = (corner[each, i] + corner[each, j]) / 2
    return corner.index_put((each, i), middle), corner.index_put((each, j), middle)
