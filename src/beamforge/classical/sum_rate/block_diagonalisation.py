"""Regularised block diagonalisation: the closed form for users with several antennas."""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.classical.structure import of_norm_one
from beamforge.classical.sum_rate.user_streams import (
    Served,
    UserStreams,
    block_diagonal,
    block_diagonalised,
    chosen,
    signal,
    water_filled,
)
from beamforge.core.capability import Capability, Feature, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.core.solver import Solver
from beamforge.core.utilities import SumRate


class RegularisedBlockDiagonalisation(Solver):
    """Regularised block diagonalisation: users' antennas work together, others hear little, and power is water-filled.

    With the channel H_k [M, N] of user k and those of all others H'_k, in units of the noise, the beams of user k are
    the directions of greatest signal to leakage and noise, for n streams of power P/n,

        ``W_k ∝ (H'_k^H H'_k + n/P I)^-1 H_k^H U_k``,   U_k the eigenvectors of ``H_k (H'_k^H H'_k + n/P I)^-1 H_k^H``

    which are the columns of ``H^H B_:k U_k`` with ``B = (H H^H + n/P I)^-1`` and U_k the eigenvectors of its block B_kk.
    Where there are more than N, only N streams are served: the users' weakest directions are dropped in rounds, each of
    which turns the others to what is left. Users of single antennas (several streams, or an order of their own) get
    regularised zero forcing with water-filled powers. Streams without data get no power.

    Source: V. Stankovic, M. Haardt, IEEE Trans. Wireless Commun. 7 (2008), Sec. III-B; that N streams are chosen, and
    the form in B, are ours.
    """

    capabilities = (
        Capability(
            SumRate,
            (Form.BROADCAST,),
            needs=(TotalPower,),
            handles=(Feature.RECEIVE_ANTENNAS, Feature.SEVERAL_STREAMS, Feature.SENSING),
        ),
    )


    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        data = UserStreams.of(problem, observation)
        W = data.columns(data.H.mH @ regularised(data, chosen(data)))
        return Solution.closed_form(W * data.power.sqrt()[:, None, None])


def regularised(data: UserStreams, served: Served) -> Tensor:
    """X [B, R, K L] of the water-filled beams ``H^H X`` of power one of what is served."""
    X, turn, gain = block_diagonalised(served)
    X = of_norm_one(served.gram, X)
    gain = signal(served.gram, X, turn) * (gain > 0)
    power = water_filled(gain.flatten(1), data.weights.repeat_interleave(gain.shape[-1], -1))
    return block_diagonal(served.directions) @ X * safe_root(power).unsqueeze(-2)


def safe_root(power: Tensor) -> Tensor:
    """Square root with derivative 0 at 0."""
    return torch.where(power > 0, power, 1).sqrt() * (power > 0)
