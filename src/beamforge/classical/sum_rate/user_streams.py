"""Users with several antennas on one transmitter: their channels, and their streams in a fixed layout of slots.

Methods compute with L slots for streams of each of the K users, in the order of the users. A stream of the network
beyond the L of its user, or without data, gets a zero beam; slots without a stream of the network remain empty.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.constraints import TotalPower
from beamforge.core.network import Network, numbers, own, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.utilities import SumRate


class UserStreams(NamedTuple):
    """Channels [B, R, N] of R = K M antennas and their Gram matrix [B, R, R] in units of noise over power, weights
    [B, K], power [B]; `slots` [B, K, L]: whether a slot has a stream; `slot` [B, D]: the slot of a stream, or K L.
    """

    H: Tensor
    gram: Tensor
    weights: Tensor
    power: Tensor
    slots: Tensor
    slot: Tensor

    @classmethod
    def of(cls, problem: Problem, observation: Observation) -> UserStreams:
        """A weighted sum rate under a total power, in double precision: the Gram matrix squares the channels."""
        assert isinstance(problem.maximise, SumRate)
        network, power = observation.network, problem.get(TotalPower).limit.double()
        noise = network.noise.double().repeat_interleave(network.receive_antennas, -1)
        H = network.channel.to(torch.complex128) * (power.unsqueeze(-1) / noise).sqrt().unsqueeze(-1)
        return cls(H, H @ H.mH, problem.maximise.weights.double(), power, *slots_of(network))

    def beams(self, X: Tensor) -> Tensor:
        """The beams of the network [B, N, D] from ``H^H X``, scaled to the power; zero for streams without a slot."""
        W = self.H.mH @ self.columns(X)
        spent = squared_magnitude(W).sum((-2, -1))
        return W * (self.power / torch.where(spent > 0, spent, 1)).sqrt()[:, None, None]

    @property
    def wanted(self) -> Tensor:
        """Boolean [B, K, L]: slots with a stream of a user whose weight is positive."""
        return self.slots & (self.weights > 0).unsqueeze(-1)

    def columns(self, X: Tensor) -> Tensor:
        """Columns [B, n, D] of the network's streams from those of the slots [B, n, K L]; zero without a slot."""
        X = torch.nn.functional.pad(X, (0, 1))
        return X.gather(-1, self.slot.unsqueeze(-2).expand(*X.shape[:-1], -1))

    def in_slots(self, A: Tensor) -> Tensor:
        """The reverse of `columns`: from the network's streams [B, n, D] to the slots [B, n, K L]."""
        into = self.slot.unsqueeze(-2).expand_as(A)
        count = self.slots[0].numel()
        return A.new_zeros(*A.shape[:-1], count + 1).scatter(-1, into, A)[..., :count]

    def blocks(self, A: Tensor) -> Tensor:
        """Amplitudes of the slots of user k at user k [B, K, M, L], from A [B, R, K L]."""
        return diagonal_blocks(A, self.slots.shape[1])


def slots_of(network: Network) -> tuple[Tensor, Tensor]:
    """`slots` [B, K, L] and `slot` [B, D] of the streams of a network."""
    K, L = network.users, min(network.receive_antennas, network.antennas)
    data = network.streams.data_of(K)
    number = ((data.cumsum(-1) - 1) * data).sum(-2)  # index of a stream among those of its user
    user = (numbers(K, network.H).unsqueeze(-1) * data).sum(-2)
    slot = torch.where(data.any(-2) & (number < L), user * L + number, K * L)
    return data.sum(-1, keepdim=True) > numbers(L, network.H), slot


def block_diagonal(blocks: Tensor) -> Tensor:
    """[B, K M, K L] with the blocks [B, K, M, L] on its diagonal."""
    whole = torch.diag_embed(blocks.movedim(1, -1), dim1=1, dim2=3)
    return whole.flatten(1, 2).flatten(2, 3)


def diagonal_blocks(A: Tensor, count: int) -> Tensor:
    """The `count` blocks [B, K, m, n] on the diagonal of [B, K m, K n]."""
    return torch.diagonal(A.unflatten(-1, (count, -1)).unflatten(1, (count, -1)), dim1=1, dim2=3).movedim(-1, 1)


def of_power_one(gram: Tensor, X: Tensor) -> Tensor:
    """X scaled such that the beams ``H^H X`` have total power one; zero if they have none."""
    D = gram @ X
    spent = (X.real * D.real + X.imag * D.imag).sum((-2, -1))
    return X * torch.where(spent > 0, spent, torch.inf).rsqrt()[:, None, None]


def eigenvectors(S: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues and eigenvectors of Hermitian matrices, with derivatives also for equal eigenvalues.

    By perturbation, ``dU = U Y`` with ``Y_ij = (U^H dS U)_ij / (value_j - value_i)``, and 0 for equal eigenvalues,
    where any basis is valid. A matrix that is not finite gives NaN; other matrices of the batch are not affected.

    >>> S = torch.eye(2, dtype=torch.complex128).requires_grad_()
    >>> (slope,) = torch.autograd.grad(eigenvectors(S)[1].real.sum(), S)
    >>> bool(slope.isfinite().all())
    True
    """
    finite = torch.isfinite(S).flatten(-2).all(-1)[..., None, None]
    with torch.no_grad():
        values, U = torch.linalg.eigh(torch.where(finite, S, 0))
        values, U = values.masked_fill(~finite[..., 0], torch.nan), U.masked_fill(~finite, torch.nan)
    if not (torch.is_grad_enabled() and S.requires_grad):
        return values, U
    rotated = U.mH @ S @ U
    gap = values.unsqueeze(-2) - values.unsqueeze(-1)
    apart = gap.abs() > 64 * torch.finfo(gap.dtype).eps * values.abs().amax(-1)[..., None, None]
    Y = (rotated - rotated.detach()) * torch.where(apart, gap, torch.inf).reciprocal()
    return own(rotated).real, U + U @ Y
