"""Users with several antennas on one transmitter: their channels, and streams in a slot for each of a user's antennas.

Methods compute with L streams for every one of K users, in the order of the users. Streams of the network that are
more than a user has antennas, or carry no data, get beams of zeros; slots that the network has no stream for stay empty.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.structure import lifted_inverse
from beamforge.core.constraints import TotalPower
from beamforge.core.network import Network, numbers, own, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.utilities import SumRate


class UserStreams(NamedTuple):
    """Channels [B, R, N] of R = K M antennas and their Gram matrix [B, R, R] in units of noise over power, weights
    [B, K], power [B]; `slots` [B, K, L]: which there is a stream for; `slot` [B, D] of each stream, K L for none.
    """

    H: Tensor
    gram: Tensor
    weights: Tensor
    power: Tensor
    slots: Tensor
    slot: Tensor

    @classmethod
    def of(cls, problem: Problem, observation: Observation) -> UserStreams:
        """A weighted sum rate under a total power."""
        assert isinstance(problem.maximise, SumRate)
        network, power = observation.network, problem.get(TotalPower).limit
        H = network.whitened().channel * power.sqrt()[:, None, None]
        return cls(H, H @ H.mH, problem.maximise.weights, power, *slots_of(network))

    def columns(self, X: Tensor) -> Tensor:
        """Of columns [B, n, K L] those of the network's streams [B, n, D], zeros where there is none."""
        X = torch.nn.functional.pad(X, (0, 1))
        return X.gather(-1, self.slot.unsqueeze(-2).expand(*X.shape[:-1], -1))

    def in_slots(self, A: Tensor) -> Tensor:
        """The reverse: columns [B, n, D] of the network's streams as [B, n, K L]."""
        into = self.slot.unsqueeze(-2).expand_as(A)
        count = self.slots[0].numel()
        return A.new_zeros(*A.shape[:-1], count + 1).scatter(-1, into, A)[..., :count]

    def blocks(self, A: Tensor) -> Tensor:
        """What user k hears of its own slots [B, K, M, L], of A [B, R, K L]."""
        K, L = self.slots.shape[1:]
        return torch.diagonal(A.unflatten(-1, (K, L)).unflatten(1, (K, -1)), dim1=1, dim2=3).movedim(-1, 1)


def slots_of(network: Network) -> tuple[Tensor, Tensor]:
    """`slots` [B, K, L] and `slot` [B, D] of the streams of a network."""
    K, L = network.users, min(network.receive_antennas, network.antennas)
    data = network.streams.data_of(K)
    number = ((data.cumsum(-1) - 1) * data).sum(-2)  # of a stream among those of its user
    user = (numbers(K, network.H).unsqueeze(-1) * data).sum(-2)
    slot = torch.where(data.any(-2) & (number < L), user * L + number, K * L)
    return data.sum(-1, keepdim=True) > numbers(L, network.H), slot


def block_diagonal(blocks: Tensor) -> Tensor:
    """[B, K M, K L] with the blocks [B, K, M, L] on its diagonal."""
    whole = torch.diag_embed(blocks.movedim(1, -1), dim1=1, dim2=3)
    return whole.flatten(1, 2).flatten(2, 3)


def of_power_one(gram: Tensor, X: Tensor) -> Tensor:
    """X whose beams ``H^H X`` have power one altogether; zero where they have none."""
    D = gram @ X
    spent = (X.real * D.real + X.imag * D.imag).sum((-2, -1))
    return X * torch.where(spent > 0, spent, torch.inf).rsqrt()[:, None, None]


def eigenvectors(S: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of Hermitian matrices, with derivatives also where values are equal.

    By perturbation, ``dU = U Y`` with ``Y_ij = (U^H dS U)_ij / (value_j - value_i)``, and 0 between equal values, where
    any basis will do. A matrix that is not finite has values and vectors that are not, and its neighbours their own.

    >>> S = torch.eye(2, dtype=torch.complex128).requires_grad_()
    >>> (slope,) = torch.autograd.grad(eigenvectors(S)[1].real.sum(), S)
    >>> bool(slope.isfinite().all())
    True
    """
    sound = torch.isfinite(S).flatten(-2).all(-1)[..., None, None]
    with torch.no_grad():
        values, U = torch.linalg.eigh(torch.where(sound, S, 0))
        U = U.masked_fill(~sound, torch.nan)
    if not (torch.is_grad_enabled() and S.requires_grad):
        return values, U
    turned = U.mH @ S @ U
    gap = values.unsqueeze(-2) - values.unsqueeze(-1)
    apart = gap.abs() > 64 * torch.finfo(gap.dtype).eps * values.abs().amax(-1)[..., None, None]
    Y = (turned - turned.detach()) * torch.where(apart, gap, torch.inf).reciprocal()
    return own(turned).real, U + U @ Y


class Served(NamedTuple):
    """Which of the users' directions are served.

    directions  [B, K, M, L], orthonormal, by which the users listen; gram  [B, K L, K L] of the channels so heard.
    keep        boolean [B, K, L]: those that are served.
    """

    directions: Tensor
    gram: Tensor
    keep: Tensor

    @property
    def count(self) -> Tensor:
        """Real [B], how many are served, at least one."""
        return self.keep.sum((-2, -1)).clamp_min(1).to(self.gram.real.dtype)

    def best(self, most: int) -> Served:
        """The users' directions turned to those of regularised block diagonalisation, and of them the best `most`."""
        _, turn, gain = block_diagonalised(self)
        whole = block_diagonal(turn)
        gain = gain.masked_fill(~self.keep, 0).flatten(1)
        place = gain.argsort(-1, descending=True).argsort(-1)
        keep = ((place < most) & (gain > 0)).unflatten(-1, self.keep.shape[1:])
        return Served(self.directions @ turn, whole.mH @ self.gram @ whole, keep)


def block_diagonalised(served: Served) -> tuple[Tensor, Tensor, Tensor]:
    """X [B, K L, K L] of the beams of regularised block diagonalisation, turns [B, K, L, L] and gains [B, K, L].

    With ``B = (G + n I)^-1`` for n streams of power 1/n, and ``B_kk = U_k diag(b) U_k^H``, the beams of user k are the
    columns of ``B_:k U_k`` and its ratios of signal to leakage and noise ``1 / (n b) - 1``, the greatest first.
    """
    K, L = served.keep.shape[1:]
    mask = served.keep.flatten(1)
    gram = served.gram * (mask.unsqueeze(-1) & mask.unsqueeze(-2))
    n = served.count.unsqueeze(-1)
    X = lifted_inverse(gram, n + 4 * torch.finfo(n.dtype).eps * own(gram).real) * mask.unsqueeze(-1)
    own_block = torch.diagonal(X.unflatten(-1, (K, L)).unflatten(1, (K, L)), dim1=1, dim2=3).movedim(-1, 1)
    last = torch.where(served.keep, 0, 2 / n.unsqueeze(-1))  # behind all others, whose values are below 1/n
    b, turn = eigenvectors(own_block + torch.diag_embed(last).to(X.dtype))
    gain = (1 / (n.unsqueeze(-1) * b) - 1).clamp_min(0)
    return X @ block_diagonal(turn), turn, gain


def everything(data: UserStreams) -> Served:
    """Every user's antennas, before any choice; not those of users without a weight or a channel."""
    K, L = data.slots.shape[1:]
    M = data.gram.shape[-1] // K
    heard = data.H.unflatten(1, (K, M))
    if M > L:  # more antennas than a channel has rank
        _, U = eigenvectors(heard @ heard.mH)
        P = U[..., -L:]
    else:
        P = torch.eye(M, dtype=data.H.dtype, device=data.H.device).expand(*heard.shape[:2], M, M)
    whole = block_diagonal(P)
    gram = whole.mH @ data.gram @ whole
    keep = (data.weights > 0).unsqueeze(-1) & (own(gram).real > 0).unflatten(-1, (K, L))
    return Served(P, gram, keep)


def chosen(data: UserStreams) -> Served:
    """As many directions as the network has streams and the transmitter antennas, in a few rounds from all of them."""
    served = everything(data)
    K, L = data.slots.shape[1:]
    served = served.best(K * L)
    served = served._replace(keep=served.keep & data.slots)
    for most in levels(K * L, data.H.shape[-1]):
        served = served.best(most)
    return served


def levels(count: int, most: int) -> list[int]:
    """Falling numbers from below `count` to `most`, each a third closer.

    >>> levels(12, 8)
    [10, 9, 8]
    """
    found = []
    while count > most:
        count -= -(-(count - most) // 3)
        found.append(count)
    return found


def water_filled(gain: Tensor, weights: Tensor) -> Tensor:
    """Powers p [..., n] of sum one that maximise ``sum a log(1 + gain p)``; zero where nobody gains.

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


def signal(gram: Tensor, X: Tensor, turn: Tensor) -> Tensor:
    """``|u^H H w|^2`` [B, K, L] of every slot's own beam heard by its own direction."""
    K, L = turn.shape[1], turn.shape[-1]
    heard = torch.diagonal((gram @ X).unflatten(-1, (K, L)).unflatten(1, (K, L)), dim1=1, dim2=3).movedim(-1, 1)
    return squared_magnitude((turn.conj() * heard).sum(-2))
