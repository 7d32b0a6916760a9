"""Acceleration of a fixed-point iteration ``x <- f(x)``, for each instance separately: SQUAREM, Anderson, Nesterov.

An acceleration gets pairs (x, f(x)) and proposes the next x. `iterate` safeguards it: a proposal that lowers the merit
is replaced by f(x) of the last accepted point, and the memory of that instance is cleared.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from beamforge.core import batching


class Acceleration(Protocol):
    """A rule for the next point; its memory is a tree of [B, ...] tensors, of which finished instances are dropped."""

    def start(self, x: Tensor) -> NamedTuple:
        """Memory before the first evaluation, x real [B, n]."""

    def propose(self, memory: NamedTuple, x: Tensor, fx: Tensor) -> tuple[NamedTuple, Tensor]:
        """New memory and the next point [B, n]."""


class SquaremMemory(NamedTuple):
    """The previous point and its image [B, n], and whether they are valid [B]."""

    x: Tensor
    fx: Tensor
    primed: Tensor


class Squarem(Acceleration):
    """Squared polynomial extrapolation: one extrapolation after every two evaluations of f.

    ``r = f(x) - x``, ``v = f(f(x)) - f(x) - r``, ``a = -max(1, |r|/|v|)``, next ``x - 2 a r + a^2 v``.

    Source: R. Varadhan, C. Roland, "Simple and globally convergent methods for accelerating the convergence of any EM
    algorithm", Scand. J. Statist. 35 (2008), scheme S3.
    """

    def start(self, x: Tensor) -> SquaremMemory:
        return SquaremMemory(x, x, torch.zeros(x.shape[0], dtype=torch.bool, device=x.device))

    def propose(self, memory: NamedTuple, x: Tensor, fx: Tensor) -> tuple[SquaremMemory, Tensor]:
        assert isinstance(memory, SquaremMemory)
        r, v = memory.fx - memory.x, (fx - x) - (memory.fx - memory.x)
        least = torch.finfo(x.dtype).tiny
        ratio = r.square().sum(-1) / torch.where(memory.primed, v.square().sum(-1), 1).clamp_min(least)
        length = -ratio.clamp(1, 1e12).sqrt().unsqueeze(-1)
        leap = memory.x - 2 * length * r + length.square() * v
        primed = memory.primed
        point = torch.where(primed.unsqueeze(-1), leap, fx)
        return SquaremMemory(x, fx, ~primed), point


class AndersonMemory(NamedTuple):
    """The last m points and residuals [B, m, n], newest last, and how many of them are valid [B]."""

    x: Tensor
    residual: Tensor
    filled: Tensor


class Anderson(Acceleration):
    """Anderson mixing (type II): the affine combination of the last images with the least residual.

    With residuals ``g_i = f(x_i) - x_i``: minimise ``|sum a_i g_i|`` over ``sum a_i = 1``, next ``sum a_i f(x_i)``.

    Source: H. Walker, P. Ni, "Anderson acceleration for fixed-point iterations", SIAM J. Numer. Anal. 49 (2011),
    Eq. 1.4.
    """

    def __init__(self, memory: int = 5) -> None:
        self.memory = memory

    def start(self, x: Tensor) -> AndersonMemory:
        history = x.new_zeros(x.shape[0], self.memory, x.shape[1])
        return AndersonMemory(history, history, torch.zeros(x.shape[0], dtype=torch.long, device=x.device))

    def propose(self, memory: NamedTuple, x: Tensor, fx: Tensor) -> tuple[AndersonMemory, Tensor]:
        assert isinstance(memory, AndersonMemory)
        points = torch.cat([memory.x[:, 1:], x.unsqueeze(1)], 1)
        residuals = torch.cat([memory.residual[:, 1:], (fx - x).unsqueeze(1)], 1)
        filled = (memory.filled + 1).clamp_max(self.memory)
        age = torch.arange(self.memory - 1, -1, -1, device=x.device)
        valid = (age < filled.unsqueeze(-1)).to(x.dtype).unsqueeze(-1)
        newest = residuals[:, -1:]
        differences = (residuals - newest)[:, :-1] * valid[:, :-1]
        normal = differences @ differences.mT
        size = torch.diagonal(normal, dim1=-2, dim2=-1).amax(-1)
        ridge = torch.where(size > 0, 4 * torch.finfo(x.dtype).eps * size, 1)[:, None].expand(-1, self.memory - 1)
        right = -(differences @ newest.mT)
        weights, _ = torch.linalg.solve_ex(normal + torch.diag_embed(ridge), right)
        images = points + residuals
        leap = images[:, -1] + (weights.mT @ ((images - images[:, -1:])[:, :-1] * valid[:, :-1])).squeeze(1)
        leap = torch.where(torch.isfinite(leap).all(-1, keepdim=True), leap, fx)
        return AndersonMemory(points, residuals, filled), leap


class NesterovMemory(NamedTuple):
    """The previous image [B, n], and the momentum parameter t [B]."""

    fx: Tensor
    t: Tensor


class Nesterov(Acceleration):
    """Nesterov extrapolation: next ``f(x) + (t - 1)/t' (f(x) - f(x_prev))`` with ``t' = (1 + sqrt(1 + 4 t^2))/2``.

    The safeguard of `iterate` restarts it whenever the merit falls (adaptive restart).

    Source: A. Beck, M. Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse problems", SIAM
    J. Imaging Sci. 2 (2009), Eqs. 4.1 to 4.3; B. O'Donoghue, E. Candès, Found. Comput. Math. 15 (2015), section 3.2.
    """

    def start(self, x: Tensor) -> NesterovMemory:
        return NesterovMemory(x, torch.ones_like(x[:, 0]))

    def propose(self, memory: NamedTuple, x: Tensor, fx: Tensor) -> tuple[NesterovMemory, Tensor]:
        assert isinstance(memory, NesterovMemory)
        following = (1 + (1 + 4 * memory.t.square()).sqrt()) / 2
        momentum = ((memory.t - 1) / following).unsqueeze(-1)
        return NesterovMemory(fx, following), fx + momentum * (fx - memory.fx)


def forget(acceleration: Acceleration, memory: NamedTuple, x: Tensor, which: Tensor) -> NamedTuple:
    """`memory` where the instances `which` [B] have their initial memory."""
    return batching.where(which, acceleration.start(x), memory)


ACCELERATIONS: dict[str, type[Acceleration] | None] = {
    "none": None,
    "squarem": Squarem,
    "anderson": Anderson,
    "nesterov": Nesterov,
}
"""Accelerations by the value of the setting `acceleration`."""
