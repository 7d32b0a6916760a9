"""The global optimum of the weighted sum rate of a broadcast network with few users, by branch and bound.

By uplink-downlink duality the rates that beams of total power P reach are those of the uplink with powers q on the
simplex ``q >= 0, sum q = P`` and the optimal receivers. So the search has K - 1 dimensions, and each rate is a
difference of two concave functions::

    rate_k(q) = log det M(q) - log det M_k(q),    M = I + sum_j q_j h_j h_j^H,    M_k = M without user k

The simplex is split into smaller ones (cells). In a cell, ``-log det M_k`` is below the interpolation of its values at
the corners, and ``rate_k`` is below ``log(1 + q_k s_k)``, s_k the gain of user k at the least interference in the cell.
For each user the bound that is lower at the centroid is used. The sum is concave; its maximum bounds the rate in the
cell. The error decreases with the square of the cell size, unlike that of boxes of rates, the textbook's cells.

Source: the problem and the search by cells are those of E. Björnson, E. Jorswieck, "Optimal Resource Allocation in
Coordinated Multi-Cell Systems" (2013), Sec. 2.2.3; splitting simplices with d.c. bounds follows R. Horst, H. Tuy,
"Global Optimization" (1996), Sec. 10. Their combination in the uplink powers is ours.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.bounds import capacity, compact, double, log_det, outward
from beamforge.classical.duality.uplink import Uplink
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.core import batching
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.errors import ConfigError
from beamforge.core.network import Network, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.core.utilities import SumRate
from beamforge.optim.simplex import Maximum, simplex_maximum

SIDE_BY_SIDE = {1: 4096, 2: 512, 3: 64, 4: 8, 5: 1}
"""Instances searched at once, by number of users, such that open cells need much less than a gigabyte."""

NEGLIGIBLE = 1e-11
"""Distance from the bound, bit/s/Hz, that is of the size of rounding and counts as zero."""

CHUNK = 8192
"""Number of cells that are bounded at once."""


class BranchAndBound(Solver):
    """Beams whose weighted sum rate is within `gap` of the global optimum, and the bound that proves it.

    gap        relative distance of the bound from the rate at which an instance has converged.
    max_cells  cells that an instance may use; then it stops with its current bound and the status `MAX_ITERATIONS`.

    One iteration splits all open cells of all instances in two. ``info`` has ``bound`` [...], which no linear beams
    exceed, and ``cells`` [...]; the trace is the best rate so far. It serves at most five users: a square network at
    20 dB takes some thousand cells with four users and a hundred thousand with five.

    >>> from beamforge.core.constraints import TotalPower
    >>> network = Network.broadcast(torch.tensor([[1.0 + 0j, 0.0], [0.8, 0.6]], dtype=torch.complex128), noise=0.1)
    >>> solution = BranchAndBound().solve(Problem(SumRate(), (TotalPower(1.0),)), network)
    >>> rate = network.rate(solution.W).sum()
    >>> bool(rate <= solution.info["bound"] <= 1.0001 * rate)
    True
    """

    capabilities = (Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower,)),)
    scope = f"at most {max(SIDE_BY_SIDE)} users"

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
        small = network.users in SIDE_BY_SIDE
        return small and super().supports(problem, network)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        dtype = observation.network.H.dtype
        problem, observation, start = double((problem, observation, start))
        assert isinstance(problem.maximise, SumRate)
        network, goal = observation.network, problem.maximise
        with torch.no_grad():
            W = ReducedWMMSE(starts=4).solve_batch(problem, observation, start, generator).W
            rate = torch.nan_to_num(problem.value(network, W), nan=-torch.inf)
            question = (network, problem.get(TotalPower).limit, goal.weights, rate * math.log(2))
            parts = torch.arange(len(rate), device=rate.device).split(SIDE_BY_SIDE[network.users])
            found = joined([self.search(*batching.take(question, part)) for part in parts])
            W = batching.where(problem.value(network, found.W) > rate, found.W, W)
        polish = ReducedWMMSE(tolerance=1e-13, gradient="implicit")  # also gives the derivatives of the optimum
        polished = polish.solve_batch(problem, observation, W, generator).W
        W = batching.where(problem.value(network, polished) >= problem.value(network, W) * (1 - 1e-12), polished, W)
        rate = problem.value(network, W).detach()
        bound = (found.bound / math.log(2)).maximum(rate)
        closed = bound <= rate * (1 + self.gap) + NEGLIGIBLE
        status = torch.where(closed, int(Status.CONVERGED), int(Status.MAX_ITERATIONS))
        ended = torch.arange(found.trace.shape[-1], device=rate.device) >= found.rounds.unsqueeze(-1)
        trace = torch.where(ended, rate.unsqueeze(-1), found.trace / math.log(2)).to(dtype.to_real())
        info = {"bound": outward(bound, 1, trace.dtype), "cells": found.cells}
        return Solution(W.to(dtype), status, found.rounds, trace, info)

    def search(self, network: Network, power: Tensor, weights: Tensor, rate: Tensor) -> SearchResult:
        """The search for some instances from rates [B], nats, that are known to be achievable."""
        search = Search(network, power, weights, rate)
        trace = [search.rate]
        while len(search.cells.owner):
            search.round(self.gap, self.max_cells)
            trace.append(search.rate)
        return SearchResult(search.beams(network), search.bound, search.rounds, search.count, torch.stack(trace, -1))


class SearchResult(NamedTuple):
    """Beams of the best point, bound [B] and trace [B, rounds + 1] in nats, numbers of rounds and cells [B]."""

    W: Tensor
    bound: Tensor
    rounds: Tensor
    cells: Tensor
    trace: Tensor


def joined(parts: list[SearchResult]) -> SearchResult:
    """Parts of a batch as one; traces are extended to the longest by their last values."""
    length = max(part.trace.shape[-1] for part in parts)
    index = torch.arange(length, device=parts[0].trace.device)
    extended = [part._replace(trace=part.trace[:, index.clamp_max(part.trace.shape[-1] - 1)]) for part in parts]
    return batching.tree_map(lambda *leaves: torch.cat(leaves), *extended)


class SearchData(NamedTuple):
    """Channels at full power in units of the noise: rows [n, K, r], Gram matrix [n, K, K], and weights [n, K]."""

    rows: Tensor
    gram: Tensor
    weights: Tensor


class SearchCells(NamedTuple):
    """Cells: n simplices in the shares of the power, of any instances.

    owner   [n] index of the instance.
    corner  [n, K, K] row i is corner i.
    level   [n, K, K] ``log det M_k`` at corner i, [., i, k].
    slope   [n, K, K] gradient of ``sum_k a_k log det M_k`` at corner i.
    bound   [n] upper bound on the weighted sum rate in the cell, nats.
    inside  [n, K] the point of the cell where the relaxed rate is highest.
    """

    owner: Tensor
    corner: Tensor
    level: Tensor
    slope: Tensor
    bound: Tensor
    inside: Tensor


class Search:
    """State of the branch and bound: open cells of a batch of instances, and the best point and bounds of each."""

    def __init__(self, network: Network, power: Tensor, weights: Tensor, rate: Tensor) -> None:
        H = network.whitened().channel * power.sqrt()[:, None, None]
        B, K = weights.shape
        self.power = power
        self.data = SearchData(compact(H), H @ H.mH, weights)
        self.rate = rate
        self.best = torch.full_like(weights, 1 / K)
        self.highest = torch.full_like(rate, -torch.inf)  # rate at the best point
        self.closed = torch.full_like(rate, -torch.inf)  # the highest bound among closed cells
        self.count = torch.ones_like(rate, dtype=torch.long)
        self.rounds = torch.zeros_like(self.count)
        owner = torch.arange(B, device=rate.device)
        corner = torch.eye(K, dtype=weights.dtype, device=weights.device).expand(B, K, K)
        every = owner.repeat_interleave(K)
        _, level, slope = self.evaluate(every, corner.flatten(0, 1))
        above = capacity(H, torch.ones_like(rate), weights) * math.log(2)
        cells = SearchCells(owner, corner, level.reshape(B, K, K), slope.reshape(B, K, K), above, self.best)
        self.cells = self.relax(cells, torch.zeros_like(rate))
        self.evaluate(owner, self.cells.inside)

    @property
    def bound(self) -> Tensor:
        """Upper bound [B] on the weighted sum rate, nats; it never increases from one round to the next."""
        return self.closed.scatter_reduce(0, self.cells.owner, self.cells.bound, "amax").maximum(self.rate)

    def beams(self, network: Network) -> Tensor:
        """W [B, N, K] that reach in the downlink the SINRs of the best point in the uplink."""
        uplink = Uplink.of(network)
        x = self.best * self.power.unsqueeze(-1) * uplink.gain
        return uplink.beams(x, uplink.receive(x)[0])

    def round(self, gap: float, max_cells: int) -> None:
        """Close the cells whose bound exceeds the best rate by at most the share `gap`, and split the others in two."""
        goal = self.rate * (1 + gap) + 0.5 * NEGLIGIBLE
        owner, bound = self.cells.owner, self.cells.bound
        promising = bound > goal[owner]
        wanted = torch.zeros_like(self.count).index_add(0, owner, 2 * promising.long())
        spent = self.count + wanted > max_cells
        open_ = promising & ~spent[owner]
        self.closed = self.closed.scatter_reduce(0, owner[~open_], bound[~open_], "amax")
        self.cells = batching.take(self.cells, open_)
        wanted = wanted.masked_fill(spent, 0)
        self.count = self.count + wanted
        self.rounds = self.rounds + (wanted > 0)
        if len(self.cells.owner):
            self.cells = self.relax(self.cut(self.cells), 0.1 * (gap * self.rate + 0.5 * NEGLIGIBLE))
            self.evaluate(self.cells.owner, self.cells.inside)

    def cut(self, cells: SearchCells) -> SearchCells:
        """Split each cell in two, across the edge with the largest interpolation error, nearer to its steeper end."""
        n, K = cells.inside.shape
        each = torch.arange(n, device=cells.owner.device)
        along = torch.einsum("nil,nijl->nij", cells.slope, cells.corner.unsqueeze(1) - cells.corner.unsqueeze(2))
        edge = (along + along.mT).flatten(1).argmax(-1)  # change of the slope along the edge
        i, j = edge // K, edge % K
        value = (cells.level * self.data.weights[cells.owner].unsqueeze(1)).sum(-1)
        first, last = along[each, i, j], -along[each, j, i]
        share = ((value[each, j] - value[each, i] - last) / (first - last)).nan_to_num(0.5).clamp(0.15, 0.85)
        middle = torch.lerp(cells.corner[each, i], cells.corner[each, j], share.unsqueeze(-1))
        _, level, slope = self.evaluate(cells.owner, middle)
        halves = []
        for end in (i, j):
            corner = cells.corner.index_put((each, end), middle)
            new = cells._replace(corner=corner, level=cells.level.index_put((each, end), level))
            halves.append(new._replace(slope=cells.slope.index_put((each, end), slope)))
        return batching.tree_map(lambda one, other: torch.cat([one, other]), *halves)

    def relax(self, cells: SearchCells, tolerance: Tensor) -> SearchCells:
        """The cells with new bounds: within `tolerance` [B] of the relaxed maxima, not above the previous bounds."""
        parts = [
            self.relax_part(SearchCells(*part), tolerance)
            for part in zip(*(leaf.split(CHUNK) for leaf in cells), strict=True)
        ]
        bound, x = (torch.cat(leaf) for leaf in zip(*parts, strict=True))
        inside = (x.unsqueeze(-1) * cells.corner).sum(-2)
        return cells._replace(bound=torch.fmin(bound, cells.bound), inside=inside)

    def relax_part(self, cells: SearchCells, tolerance: Tensor) -> Maximum:
        """The relaxed maxima of some cells, in barycentric coordinates."""
        rows, gram, weights = batching.take(self.data, cells.owner)
        centre = cells.corner.mean(1)
        least = receivers_in_cell(rows, gram, cells.corner.amin(1)).gain
        interpolated = log_det(rows, centre)[0].unsqueeze(-1) - cells.level.mean(1)
        joint = weights * (interpolated <= torch.log1p(centre * least))
        data = Relaxed(
            rows, cells.corner, joint.sum(-1), (cells.level * joint.unsqueeze(1)).sum(-1), weights - joint, least
        )
        start = torch.full_like(centre, 1 / centre.shape[-1])
        return simplex_maximum(relaxed_rate, data, start, tolerance[cells.owner])

    def evaluate(self, owner: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rate [n], levels and their weighted slope [n, K] at points q [n, K]; updates the best points."""
        rows, gram, weights = batching.take(self.data, owner)
        there = receivers_in_cell(rows, gram, q)
        rate = (weights * there.rate).sum(-1)
        best = self.highest.scatter_reduce(0, owner, torch.nan_to_num(rate, nan=-torch.inf), "amax")
        record = (rate == best[owner]) & (rate > self.highest[owner])
        self.best = self.best.index_put((owner[record],), q[record])
        self.highest, self.rate = best, self.rate.maximum(best)
        return rate, there.level, (weights.unsqueeze(-1) * there.slope).sum(-2)


class Received(NamedTuple):
    """The uplink at powers q: ``log(1 + SINR_k)``, gain ``SINR_k / q_k`` and ``log det M_k`` [n, K], and the gradients
    of ``log det M_k`` [n, k, l]."""

    rate: Tensor
    gain: Tensor
    level: Tensor
    slope: Tensor


def receivers_in_cell(rows: Tensor, gram: Tensor, q: Tensor) -> Received:
    """``SINR_k = 1/S_kk - 1``, ``S = (I + Q^1/2 H H^H Q^1/2)^-1``; and ``gain = E_kk / S_kk``, ``E = H M^-1 H^H``."""
    itself = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    root = q.sqrt()
    factor, _ = torch.linalg.cholesky_ex(root.unsqueeze(-1) * gram * root.unsqueeze(-2) + itself)
    error = torch.diagonal(torch.cholesky_inverse(factor), dim1=-2, dim2=-1).real
    total = 2 * torch.diagonal(factor, dim1=-2, dim2=-1).real.log().sum(-1, keepdim=True)
    seen = log_det(rows, q)[1]
    own = torch.diagonal(seen, dim1=-2, dim2=-1).real
    slope = own.unsqueeze(-2) + (q / error).unsqueeze(-1) * squared_magnitude(seen)
    return Received(-error.log(), own / error, total + error.log(), slope * (1 - itself))


class Relaxed(NamedTuple):
    """Data of the relaxed rate in a cell, ``sum_k joint_k (log det M - level_k) + alone_k log(1 + q_k gain_k)`` with
    interpolated levels: rows [n, K, r], corner [n, K, K], joint [n] and level [n, K] summed over users, alone and gain
    [n, K]."""

    rows: Tensor
    corner: Tensor
    joint: Tensor
    level: Tensor
    alone: Tensor
    gain: Tensor


def relaxed_rate(data: Relaxed, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The relaxed rate, its gradient and its curvature in barycentric coordinates x [n, K]."""
    q = (x.unsqueeze(-1) * data.corner).sum(-2)
    total, seen = log_det(data.rows, q)
    heard = 1 + q * data.gain
    value = data.joint * total - (x * data.level).sum(-1) + (data.alone * heard.log()).sum(-1)
    rise = data.joint.unsqueeze(-1) * torch.diagonal(seen, dim1=-2, dim2=-1).real + data.alone * data.gain / heard
    bend = data.joint[:, None, None] * squared_magnitude(seen)
    bend = bend + torch.diag_embed(data.alone * (data.gain / heard).square())
    gradient = (data.corner @ rise.unsqueeze(-1)).squeeze(-1) - data.level
    return value, gradient, data.corner @ bend @ data.corner.mT
