"""Weighted sum rate of users with several antennas, on one transmitter, by reduced WMMSE.

As with single antennas the beams are ``W = H^H X``, with H the rows of all receive antennas, and the power limit is
absorbed into the noise. What remains is an iteration on X [R, D] for R receive antennas and D streams, without a search
for a multiplier.

Source: Zhao, Lu, Shi, Luo, "Rethinking WMMSE: Can Its Complexity Scale Linearly With the Number of BS Antennas?",
arXiv 2205.06225, Table I. The form of the step without the inverse of an error matrix, and the starts, are ours.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from beamforge.classical.structure import loaded_inverse
from beamforge.classical.sum_rate.block_diagonalisation import (
    RegularisedBlockDiagonalisation,
    chosen,
    offered,
    regularised,
)
from beamforge.classical.sum_rate.reduced_wmmse import HEAT, SMALL
from beamforge.classical.sum_rate.user_streams import UserStreams, block_diagonal, eigenvectors, of_power_one
from beamforge.core.network import own, plus_identity, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.optim.iterate import Outcome, better, together
from beamforge.optim.starts import SeveralStarts

MARGIN = 1e-6
"""Relative gain of the rate that a later start needs to be chosen."""


class ReducedMimoWMMSE(SeveralStarts):
    """One transmitter, total power; K users of M antennas, R = K M; O(R^2 N) once and O(R^3) per iteration.

    User k receives its own streams with amplitudes ``S_k`` and all others with ``I_k``. With ``R_k = I_k I_k^H + s2 I``
    and ``J_k = I + S_k^H R_k^-1 S_k = T_k T_k^H`` (so that its rate is ``log2 det J_k``) the step is ::

        B_k = sqrt(a_k) R_k^-1 S_k T_k^-H,    X = B (B^H H H^H B + |B|^2 I)^-1 blockdiag(sqrt(a_k) T_k^H)

    in units where noise and power are one, B block-diagonal, and ``W = H^H X`` scaled to the power. The weighted sum
    rate never decreases in plain iterations; an extrapolation that would lower it is rejected.

    A user has at most min(M, N) streams with power. At the end they are rotated such that linear receivers separate
    them without loss, in descending order of gain. Streams without benefit get almost no power; streams without data
    get none.

    Local optima differ in the streams that are on. So several different starts are run to their ends, and each instance
    keeps its best: regularised block diagonalisation, with its best number of streams; heavily regularised zero forcing
    on the users' dominant directions, annealed by four iterations with an increased multiplier; the same with more
    regularisation, not annealed; regularised block diagonalisation of all streams, annealed; then random beams,
    annealed.

    starts  how many of these; a `start` given to `solve` replaces them all.
    """

    capabilities = RegularisedBlockDiagonalisation.capabilities

    def __init__(
        self, tolerance: float = 1e-8, max_iterations: int = 1000, acceleration: str = "squarem", starts: int = 4
    ) -> None:
        super().__init__(tolerance, max_iterations, acceleration, starts, "unrolled")

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        solution = super().solve_batch(problem, observation, start, generator)
        return replace(solution, W=solution.W.to(observation.network.H.dtype))

    def prepare(self, problem: Problem, observation: Observation) -> UserStreams:
        return UserStreams.of(problem, observation)

    def init(self, data: UserStreams, start: Tensor | None, generator: torch.Generator | None) -> Iterator[Tensor]:
        if start is not None:
            yield respond(data, data.in_slots(data.H @ start.to(data.H.dtype)) * data.power.rsqrt()[:, None, None])[0]
            return
        generator = generator or torch.Generator(data.gram.device).manual_seed(0)
        for number in range(self.starts):
            if number == 0:
                yield best_number_of_streams(data)
            elif number == 1:
                yield annealed(data, on_dominant_directions(data, 30))
            elif number == 2:
                yield on_dominant_directions(data, 100)
            elif number == 3:
                yield annealed(data, regularised(data, offered(data)))
            else:
                yield annealed(data, random_beams(data, generator))

    def climb(self, data: UserStreams, start: Tensor | None, generator: torch.Generator | None) -> Outcome:
        """Run every start to its end; keep the best of each instance."""
        states = list(self.init(data, start, generator))
        outcomes = together(self, data, states, data.gram.numel() <= SMALL)
        return functools.reduce(functools.partial(better, margin=MARGIN), outcomes)

    def step(self, data: UserStreams, state: Tensor) -> tuple[Tensor, Tensor]:
        return respond(data, data.gram @ state)

    def beams(self, data: UserStreams, state: Tensor) -> Tensor:
        X = of_power_one(data.gram, state)
        return data.beams(X @ block_diagonal(separated(data, data.gram @ X)))

    def admissible(self, data: UserStreams, state: Tensor) -> Tensor:
        return of_power_one(data.gram, state)


# --- starts ----------------------------------------------------------------------------------------------------------
def best_number_of_streams(data: UserStreams) -> Tensor:
    """X of regularised block diagonalisation with the number of streams of the best rate, of decreasing numbers."""
    served = chosen(data)
    X = regularised(data, served)
    _, rate = respond(data, data.gram @ X)
    most = min(data.slots[0].numel(), data.H.shape[-1])
    while (most := most - max(1, most // 8)) > 0:
        served = served.best(most)
        fewer = regularised(data, served)
        _, found = respond(data, data.gram @ fewer)
        X = torch.where((found > rate)[:, None, None], fewer, X)
        rate = torch.maximum(found, rate)
    return X


def on_dominant_directions(data: UserStreams, ridge: float) -> Tensor:
    """X of regularised zero forcing on the users' dominant directions, with `ridge` times the usual ridge."""
    K, L = data.slots.shape[1:]
    heard = data.H.unflatten(1, (K, -1))
    _, U = eigenvectors(-(heard @ heard.mH))
    P = block_diagonal(U[..., :L] * data.wanted.unsqueeze(-2))
    gram = P.mH @ data.gram @ P
    X = P @ loaded_inverse(gram, ridge * K * L + 4 * torch.finfo(data.weights.dtype).eps * own(gram).real)
    return of_power_one(data.gram, X)


def random_beams(data: UserStreams, generator: torch.Generator) -> Tensor:
    """X with independent Gaussian entries in the blocks of the users, the same for every instance."""
    K, L = data.slots.shape[1:]
    size = (K, data.gram.shape[-1] // K, L)
    blocks = torch.randn(size, dtype=data.gram.dtype, device=data.gram.device, generator=generator)
    return of_power_one(data.gram, block_diagonal(blocks * data.wanted.unsqueeze(-2)))


def annealed(data: UserStreams, X: Tensor) -> Tensor:
    """The state after iterations whose multiplier is increased by the shares `HEAT`."""
    for heat in HEAT:
        X, _ = respond(data, data.gram @ X, heat)
    return X


# --- the step --------------------------------------------------------------------------------------------------------
def respond(data: UserStreams, A: Tensor, heat: float = 0.0) -> tuple[Tensor, Tensor]:
    """X [B, R, K L] of power one after a step from received amplitudes A [B, R, K L], and the weighted sum rate [B].

    heat  share by which the multiplier ``|B|^2`` is increased.
    """
    Z, whitener = received(data, A)
    T, _ = torch.linalg.cholesky_ex(plus_identity(Z.mH @ Z))
    rate = 2 * torch.diagonal(T, dim1=-2, dim2=-1).real.log().sum(-1) / math.log(2)
    root = torch.where(data.weights > 0, data.weights, 1).sqrt() * (data.weights > 0)
    B = torch.linalg.solve_triangular(T, torch.linalg.solve_triangular(whitener.mH, Z, upper=True).mH, upper=False).mH
    B = block_diagonal(B * root[..., None, None])
    system = B.mH @ data.gram @ B
    size = own(system).real
    level = (1 + heat) * squared_magnitude(B).sum((-2, -1)).unsqueeze(-1) + 4 * torch.finfo(size.dtype).eps * size
    loaded = system + torch.diag_embed(torch.where(level > 0, level, 1)).to(system.dtype)
    inverse, _ = torch.linalg.cholesky_ex(loaded)
    X = B @ torch.cholesky_solve(block_diagonal(T.mH * root[..., None, None]), inverse)
    return of_power_one(data.gram, X), (data.weights * rate).sum(-1)


def received(data: UserStreams, A: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitudes [B, K, M, L] of the users' own streams, with whitened interference and noise, and the factor C.

    C is the Cholesky factor of ``R_k = sum_{j != k} A_kj A_kj^H + I``; the whitening filter is its inverse.
    """
    K, L = data.slots.shape[1:]
    heard = A.unflatten(-1, (K, L)).unflatten(1, (K, -1))  # [B, K, M, K, L]
    alone = torch.eye(K, dtype=torch.bool, device=A.device)[:, None, :, None]
    others = heard.masked_fill(alone, 0).flatten(-2)
    C, _ = torch.linalg.cholesky_ex(plus_identity(others @ others.mH))
    return torch.linalg.solve_triangular(C, data.blocks(A), upper=False), C


def separated(data: UserStreams, A: Tensor) -> Tensor:
    """Rotations [B, K, L, L] of users' streams that remove the interference among them, the strongest stream first."""
    Z, _ = received(data, A)
    return eigenvectors(-(Z.mH @ Z))[1]
