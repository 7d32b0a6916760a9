"""Regularised block diagonalisation: the closed form for users with several antennas."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.structure import loaded_inverse, of_norm_one
from beamforge.classical.sum_rate.user_streams import UserStreams, block_diagonal, diagonal_blocks, eigenvectors
from beamforge.core.capability import Capability, Feature, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.network import own, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.core.solver import Solver
from beamforge.core.utilities import SumRate


class RegularisedBlockDiagonalisation(Solver):
    """Regularised block diagonalisation with water-filled powers, for users with several antennas.

    With the channel H_k [M, N] of user k and H'_k of all other users, in units of the noise, the beams of user k are
    the directions of greatest signal-to-leakage-and-noise ratio, for n streams of power P/n,

        W_k ∝ (H'_k^H H'_k + n/P I)^-1 H_k^H U_k,    U_k the eigenvectors of H_k (H'_k^H H'_k + n/P I)^-1 H_k^H

    They are computed as the columns of ``H^H B_:k U_k`` with ``B = (H H^H + n/P I)^-1`` and U_k the eigenvectors of its
    block B_kk.
    At most N streams are served: the weakest directions of the users are dropped in rounds, and the others are computed
    anew in each round. Users with single antennas (several streams, or streams in another order) get regularised zero
    forcing with water-filled powers. Streams without data get no power.

    Source: V. Stankovic, M. Haardt, "Generalized design of multi-user MIMO precoding matrices", IEEE Trans. Wireless
    Commun. 7 (2008), regularised block diagonalisation; the choice of streams, and the form in B, are ours.

    >>> from beamforge import Network
    >>> network = Network.broadcast(torch.eye(4, dtype=torch.complex128), noise=1.0, receive_antennas=2)
    >>> solution = RegularisedBlockDiagonalisation().solve(Problem(SumRate(), (TotalPower(4.0),)), network)
    >>> network.rate(solution.W).round(decimals=3)
    tensor([2., 2.], dtype=torch.float64)
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
        W = data.beams(regularised(data, chosen(data)))
        return Solution.closed_form(W.to(observation.network.H.dtype))


class Served(NamedTuple):
    """The receive directions of the users that are served.

    directions  [B, K, M, L], orthonormal receive directions of each user.
    gram        [B, K L, K L], Gram matrix of the channels projected on them.
    keep        boolean [B, K, L]: the directions that are served.
    """

    directions: Tensor
    gram: Tensor
    keep: Tensor

    @property
    def number(self) -> Tensor:
        """Number of served directions, real [B], at least one."""
        return self.keep.sum((-2, -1)).clamp_min(1).to(self.gram.real.dtype)

    def best(self, most: int) -> Served:
        """The directions rotated to those of regularised block diagonalisation; the best `most` of them are kept."""
        _, turn, gain = block_diagonalised(self)
        whole = block_diagonal(turn)
        gain = gain.masked_fill(~self.keep, 0).flatten(1)
        place = gain.argsort(-1, descending=True).argsort(-1)
        keep = ((place < most) & (gain > 0)).unflatten(-1, self.keep.shape[1:])
        return Served(self.directions @ turn, whole.mH @ self.gram @ whole, keep)


def block_diagonalised(served: Served) -> tuple[Tensor, Tensor, Tensor]:
    """X [B, K L, K L] of regularised block diagonalisation, rotations U_k [B, K, L, L] and gains [B, K, L].

    With ``B = (G + n I)^-1`` for n streams of power 1/n, and ``B_kk = U_k diag(b) U_k^H``, the beams of user k are the
    columns of ``B_:k U_k``, and their signal-to-leakage-and-noise ratios are ``1 / (n b) - 1``, in descending order.
    """
    K, mask = served.keep.shape[1], served.keep.flatten(1)
    gram = served.gram * (mask.unsqueeze(-1) & mask.unsqueeze(-2))
    n = served.number.unsqueeze(-1)
    X = loaded_inverse(gram, n + 4 * torch.finfo(n.dtype).eps * own(gram).real) * mask.unsqueeze(-1)
    last = torch.where(served.keep, 0, 2 / n.unsqueeze(-1))  # sorted last: all other values are below 1/n
    b, turn = eigenvectors(diagonal_blocks(X, K) + torch.diag_embed(last).to(X.dtype))
    gain = (1 / (n.unsqueeze(-1) * b) - 1).clamp_min(0)
    return X @ block_diagonal(turn), turn, gain


def offered(data: UserStreams) -> Served:
    """The best directions of each user, one for each of its streams; none for users without weight or channel."""
    K, L = data.slots.shape[1:]
    M = data.gram.shape[-1] // K
    heard = data.H.unflatten(1, (K, M))
    if M > L:  # more antennas than the rank of the channel
        _, U = eigenvectors(heard @ heard.mH)
        P = U[..., -L:]
    else:
        P = torch.eye(M, dtype=data.H.dtype, device=data.H.device).expand(*heard.shape[:2], M, M)
    whole = block_diagonal(P)
    gram = whole.mH @ data.gram @ whole
    keep = (data.weights > 0).unsqueeze(-1) & (own(gram).real > 0).unflatten(-1, (K, L))
    served = Served(P, gram, keep).best(K * L)
    return served._replace(keep=served.keep & data.slots)


def chosen(data: UserStreams) -> Served:
    """The best directions among those of `offered`, as many as the transmitter has antennas, in a few rounds."""
    served = offered(data)
    for most in levels(data.slots[0].numel(), data.H.shape[-1]):
        served = served.best(most)
    return served


def levels(count: int, most: int) -> list[int]:
    """Decreasing numbers from below `count` to `most`; each step reduces the distance to `most` by a third.

    >>> levels(12, 8)
    [10, 9, 8]
    """
    found = []
    while count > most:
        count -= -(-(count - most) // 3)
        found.append(count)
    return found


def regularised(data: UserStreams, served: Served) -> Tensor:
    """X [B, R, K L] of the beams ``H^H X`` for the served directions, with water-filled powers of sum one."""
    X, turn, gain = block_diagonalised(served)
    X = of_norm_one(served.gram, X)
    own_signal = (turn.conj() * diagonal_blocks(served.gram @ X, len(turn[0]))).sum(-2)
    gain = (squared_magnitude(own_signal) * (gain > 0)).flatten(1)
    power = water_filled(gain, data.weights.repeat_interleave(turn.shape[-1], -1))
    root = torch.where(power > 0, power, 1).sqrt() * (power > 0)
    return block_diagonal(served.directions) @ X * root.unsqueeze(-2)


def water_filled(gain: Tensor, weights: Tensor) -> Tensor:
    """Powers p [..., n] of sum one that maximise ``sum a log(1 + gain p)``; all zero if no entry has a gain.

    >>> water_filled(torch.tensor([4.0, 1.0, 0.0]), torch.ones(3)).round(decimals=3)
    tensor([0.8750, 0.1250, 0.0000])
    """
    able = (gain > 0) & (weights > 0)
    cost = torch.where(able, gain, 1).reciprocal()
    ratio = torch.where(able, cost / torch.where(able, weights, 1), torch.inf)
    order = ratio.argsort(-1)
    spent = (cost * able).gather(-1, order).cumsum(-1)
    share = (weights * able).gather(-1, order).cumsum(-1)
    level = torch.where(share > 0, (1 + spent) / torch.where(share > 0, share, 1), torch.inf).amin(-1, keepdim=True)
    return torch.where(able, weights * torch.where(level.isfinite(), level, 0) - cost, 0).clamp_min(0)
