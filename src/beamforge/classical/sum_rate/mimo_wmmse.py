"""Weighted sum rate of users with several antennas, on one transmitter, by reduced WMMSE.

As with single antennas the beams are ``W = H^H X``, H the rows of all receive antennas, and the power limit is absorbed
into the noise: what remains is an iteration on X [R, D] for R receive antennas and D streams, without a multiplier.

Source: Zhao, Lu, Shi, Luo, "Rethinking WMMSE: Can Its Complexity Scale Linearly With the Number of BS Antennas?",
arXiv 2205.06225, Table I. The form of the step without the inverse of an error matrix, and the starts, are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.structure import unit
from beamforge.classical.sum_rate.reduced_wmmse import HEAT
from beamforge.core import batching
from beamforge.core.capability import Capability, Feature, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.errors import ConfigError
from beamforge.core.network import Network, raised, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.core.solver import Solver
from beamforge.core.utilities import SumRate
from beamforge.optim.iterate import IterativeSolver

HANDLES = (Feature.RECEIVE_ANTENNAS, Feature.SEVERAL_STREAMS, Feature.SENSING)
RIDGES = (10.0, 1.0, 30.0)
"""Of the starts, times the usual ridge, the number of streams."""


class Receivers(NamedTuple):
    """Data: channels [B, R, N] and their Gram matrix [B, R, R] in units of noise over power, weights [B, K], whose
    streams are whose [B, K, D], power [B]."""

    H: Tensor
    gram: Tensor
    weights: Tensor
    mine: Tensor
    power: Tensor

    @classmethod
    def of(cls, network: Network, power: Tensor, weights: Tensor) -> Receivers:
        """The data of a network with a total power limit [B]."""
        H = network.whitened().channel * power.sqrt()[:, None, None]
        return cls(H, H @ H.mH, weights, network.streams.data_of(network.users), power)


class ReducedMimoWMMSE(IterativeSolver):
    """One transmitter, sum power; K users of M antennas, D streams; O(R^2 N) once, R = K M, and O(K D^3) an iteration.

    User k hears its own streams as ``S_k`` and all others as ``I_k``. With ``R_k = I_k I_k^H + s2 I`` and
    ``J_k = I + S_k^H R_k^-1 S_k = T_k T_k^H`` (so that its rate is ``log2 det J_k``) the step is ::

        B_k = sqrt(a_k) R_k^-1 S_k T_k^-H,    X = B (B^H H H^H B + |B|^2 I)^-1 blockdiag(sqrt(a_k) T_k^H)

    in units where noise and power are one, and ``W = H^H X`` scaled to the power. The weighted sum rate never falls
    from one plain iteration to the next, and extrapolation is refused where it would. Streams that are not worth their
    power end without any; those that carry no data get none.

    starts  how many of: regularised zero forcing on the receivers' dominant directions with a raised ridge, annealed;
            the same with the strongest stream of every user alone; with the usual ridge; with a heavy one. All run
            side by side to their ends, and each instance keeps its best. A `start` replaces them all.
    """

    capabilities = (Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower,), handles=HANDLES),)

    def __init__(
        self, tolerance: float = 1e-7, max_iterations: int = 1000, acceleration: str = "squarem", starts: int = 4
    ) -> None:
        super().__init__(tolerance, max_iterations, acceleration, "unrolled")
        if starts < 1:
            raise ConfigError(f"starts must be at least 1, got {starts}")
        self.starts = starts

    def prepare(self, problem: Problem, observation: Observation) -> Receivers:
        assert isinstance(problem.maximise, SumRate)
        return Receivers.of(observation.network, problem.get(TotalPower).limit, problem.maximise.weights)

    def init(self, data: Receivers, start: Tensor | None, generator: torch.Generator | None) -> Iterator[Tensor]:
        if start is not None:
            yield scaled(data, respond(data, data.H @ start * data.power.rsqrt()[:, None, None])[0])
            return
        P, _ = dominant_directions(data)
        single = P * (rank_of_streams(data) == 0).unsqueeze(-2)
        for number in range(min(self.starts, 4)):
            X = from_directions(data, single if number == 1 else P, RIDGES[0] if number < 2 else RIDGES[number - 1])
            for heat in HEAT if number < 2 else ():
                X = scaled(data, respond(data, data.gram @ X, 1 + heat)[0])
            yield X

    def answer(self, data: Receivers, start: Tensor | None, generator: torch.Generator | None) -> Solution:
        """Every start to its end, side by side; the best of each instance."""
        states = [*self.init(data, start, generator)]
        many = batching.tree_map(lambda leaf: leaf.repeat(len(states), *(1,) * (leaf.ndim - 1)), data)
        outcome = self.run(many, torch.cat(states))
        count = len(data.power)
        best = outcome.merit.detach().reshape(len(states), count).nan_to_num(-torch.inf).argmax(0)
        found = batching.take(outcome, best * count + torch.arange(count, device=best.device))
        return Solution(self.beams(data, found.state), found.status, found.iterations, found.trace)

    def step(self, data: Receivers, state: Tensor) -> tuple[Tensor, Tensor]:
        X, rate = respond(data, data.gram @ scaled(data, state))
        return scaled(data, X), rate

    def beams(self, data: Receivers, state: Tensor) -> Tensor:
        return data.H.mH @ scaled(data, state) * data.power.sqrt()[:, None, None]


class MimoRZF(Solver):
    """Regularised zero forcing on the receivers' dominant directions, equal power for every stream that is served.

    User k listens with the left singular vectors ``u_kj`` of its channel, those of the largest singular values, one a
    stream. The rows ``u_kj^H H_k`` are then the channels of single-antenna users: ``W ∝ H_eff^H (H_eff H_eff^H +
    D s2/P I)^-1``. Of more streams than antennas those of the largest singular values are served.

    Source: C. Peel, B. Hochwald, A. Swindlehurst, IEEE Trans. Commun. 53 (2005), Eq. 5, on the channels of the
    receivers' singular vectors.
    """

    capabilities = (Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower,), handles=HANDLES),)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        assert isinstance(problem.maximise, SumRate)
        data = Receivers.of(observation.network, problem.get(TotalPower).limit, problem.maximise.weights)
        P, gain = dominant_directions(data)
        least = gain.sort(-1, descending=True).values[..., min(gain.shape[-1], data.H.shape[-1]) - 1]
        P = P * (gain >= least.unsqueeze(-1)).unsqueeze(-2)
        W = unit(data.H.mH @ from_directions(data, P, 1.0))
        sent = squared_magnitude(W).sum((-2, -1)).clamp_min(1)
        return Solution.closed_form(W * (data.power / sent).sqrt()[:, None, None])


def respond(data: Receivers, A: Tensor, ridge: float = 1.0) -> tuple[Tensor, Tensor]:
    """X [B, R, D] after a step from received amplitudes A [B, R, D] of beams within the power, and their rate [B].

    ridge  scales the multiplier ``|B|^2``.
    """
    K = data.mine.shape[1]
    mine = data.mine.unsqueeze(-2)
    heard = A.unflatten(1, (K, -1))
    S, others = heard.masked_fill(~mine, 0), heard.masked_fill(mine, 0)
    factor, _ = torch.linalg.cholesky_ex(raised(others @ others.mH))
    Z = torch.linalg.solve_triangular(factor, S, upper=False)
    T, _ = torch.linalg.cholesky_ex(raised(Z.mH @ Z))  # [B, K, D, D], the identity outside the user's own streams
    rate = 2 * torch.diagonal(T, dim1=-2, dim2=-1).real.log().sum(-1) / math.log(2)
    root = torch.where(data.weights > 0, data.weights, 1).sqrt() * (data.weights > 0)
    listened = torch.linalg.solve_triangular(factor.mH, Z, upper=True)  # R^-1 S
    B = torch.linalg.solve_triangular(T, listened.mH, upper=False).mH * root[..., None, None]
    B = B.flatten(1, 2)
    own_block = data.mine.unsqueeze(-1) & data.mine.unsqueeze(-2)
    gains = ((T.mH * root[..., None, None]) * own_block).sum(1)
    system = B.mH @ data.gram @ B
    size = torch.diagonal(system, dim1=-2, dim2=-1).real
    level = ridge * squared_magnitude(B).sum((-2, -1)).unsqueeze(-1) + 4 * torch.finfo(size.dtype).eps * size
    lifted = system + torch.diag_embed(torch.where(level > 0, level, 1)).to(system.dtype)
    inverse, _ = torch.linalg.cholesky_ex(lifted)
    return B @ torch.cholesky_solve(gains, inverse), (data.weights * rate).sum(-1)


def scaled(data: Receivers, X: Tensor) -> Tensor:
    """X whose beams ``H^H X`` have power one; zero where there is none."""
    D = data.gram @ X
    spent = (torch.view_as_real(X) * torch.view_as_real(D)).sum((-3, -2, -1))
    return X * torch.where(spent > 0, spent, torch.inf).rsqrt()[:, None, None]


def rank_of_streams(data: Receivers) -> Tensor:
    """Integer [B, D]: how many earlier streams the user of each stream has."""
    earlier = data.mine.cumsum(-1) - data.mine.int()
    return (earlier * data.mine).sum(1)


def dominant_directions(data: Receivers) -> tuple[Tensor, Tensor]:
    """P [B, R, D]: column d has the left singular vector by which its user listens to stream d, zero without data.

    And the squared singular values [B, D].
    """
    K = data.mine.shape[1]
    heard = data.H.unflatten(1, (K, -1))
    M = heard.shape[-2]
    gains, U = torch.linalg.eigh(heard @ heard.mH)  # ascending
    gains, U = gains.flip(-1), U.flip(-1)
    rank = rank_of_streams(data).remainder(M)
    columns = torch.gather(U, -1, rank[:, None, None, :].expand(-1, K, M, -1))
    gain = (torch.gather(gains, -1, rank.unsqueeze(1).expand(-1, K, -1)) * data.mine).sum(1)
    return (columns * data.mine.unsqueeze(-2)).flatten(1, 2), gain


def from_directions(data: Receivers, P: Tensor, ridge: float) -> Tensor:
    """X [B, R, D] of regularised zero forcing on the directions P, with `ridge` times the usual ``D s2/P``."""
    D = P.shape[-1]
    system = P.mH @ data.gram @ P
    size = torch.diagonal(system, dim1=-2, dim2=-1).real
    level = ridge * D + 4 * torch.finfo(size.dtype).eps * size
    factor, _ = torch.linalg.cholesky_ex(system + torch.diag_embed(level).to(system.dtype))
    return scaled(data, P @ torch.cholesky_inverse(factor))
