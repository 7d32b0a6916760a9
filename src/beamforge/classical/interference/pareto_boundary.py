"""Pareto boundary of the rate region of an interference channel: complete for two users, along rays for more.

With two users every point of the boundary has beams ``w_k = sqrt(P_k) unit(x_k w_MRT + (1 - x_k) w_ZF)`` with x in
[0, 1]^2, between maximum signal power and zero interference.

Source: E. Jorswieck, E. Larsson, D. Danev, "Complete characterization of the Pareto boundary for the MISO interference
channel", IEEE Trans. Signal Process. 56 (2008), Corollary 1. For more users, the maxima of ``min_k r_k / a_k`` over all
rays a are the boundary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from beamforge.classical.duality.power_limited import PowerLimitedMaxMin
from beamforge.classical.structure import unit
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import PerTransmitterPower
from beamforge.core.network import Network, spectral_efficiency, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.core.solver import Solver
from beamforge.core.utilities import MinRate, SumRate

GRID, NEAR = 41, 9
"""Points per axis of the initial grid of x, and of the grids of the refinement."""

PLACES, ZOOMS = 4, 45
"""Number of refined points, and of refinements, each of which multiplies the grid spacing by 0.6."""


ROUNDS, HALVES = 14, 50
"""Refinements of the grid of x_1, each by a factor of 10, and bisections of x_2, in the maximum of the minimum rate."""


@dataclass(frozen=True)
class TwoUsers:
    """Two base stations and their users, noise one: beams and rates as functions of x.

    zf, mrt  complex [B, 2, N]: directions w_ZF and w_MRT of each base station, in phase with its own channel.
    own      [B, 2, 2]: amplitude at the own user with w_ZF and with w_MRT at one watt.
    cross    [B, 2]: amplitude at the other user with w_MRT at one watt.
    power    [B, 2]: power limits in watts.
    """

    zf: Tensor
    mrt: Tensor
    own: Tensor
    cross: Tensor
    power: Tensor

    @classmethod
    def of(cls, H: Tensor, power: Tensor) -> TwoUsers:
        """From channels H [B, 2, 2, N] in units of the noise and power limits [B, 2] in watts."""
        mine = torch.stack([H[:, 0, 0], H[:, 1, 1]], 1).conj()
        other = unit(torch.stack([H[:, 0, 1], H[:, 1, 0]], 1).unsqueeze(-2).mH).squeeze(-1)
        left = mine - other * (other.conj() * mine).sum(-1, keepdim=True)
        small = squared_magnitude(left).sum(-1) <= 1e-20 * squared_magnitude(mine).sum(-1)
        left = left.masked_fill(small.unsqueeze(-1), 0)
        zf, mrt = (unit(v.unsqueeze(-1)).squeeze(-1) for v in (left, mine))
        cross = torch.stack([H[:, 0, 1], H[:, 1, 0]], 1)
        own = torch.stack([(mine.conj() * v).sum(-1).real for v in (zf, mrt)], -1)
        leak = squared_magnitude((cross * mrt).sum(-1)).sqrt()
        return cls(zf, mrt, own, leak, power)

    def scale(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients [..., 2] of w_ZF and w_MRT at x [B, n, 2]; if w_ZF does not exist, x scales w_MRT instead."""
        inner = self.own[..., 0] / torch.where(self.own[..., 1] > 0, self.own[..., 1], 1)  # w_ZF^H w_MRT
        none = (self.own[..., 0] <= 0).unsqueeze(1)
        size = (x.square() + (1 - x).square() + 2 * x * (1 - x) * inner.unsqueeze(1)).sqrt()
        size = torch.where(none, 1, size)
        return torch.where(none, 0, 1 - x) / size, x / size

    def rates(self, x: Tensor) -> Tensor:
        """Rates [B, n, 2] at points x [B, n, 2]."""
        zf, mrt = self.scale(x)
        power = self.power.unsqueeze(1)
        signal = power * (zf * self.own[:, None, :, 0] + mrt * self.own[:, None, :, 1]).square()
        leak = power * (mrt * self.cross.unsqueeze(1)).square()
        return spectral_efficiency(signal / (1 + leak.flip(-1)))

    def beams(self, x: Tensor) -> Tensor:
        """Beams [B, n, N, 2] at points x [B, n, 2]."""
        zf, mrt = (each.unsqueeze(-1) for each in self.scale(x))
        W = zf * self.zf.unsqueeze(1) + mrt * self.mrt.unsqueeze(1)
        return (self.power.sqrt()[:, None, :, None] * W).mT

    def best(self, utility: Callable[[Tensor], Tensor]) -> Tensor:
        """Maximiser x [B, 2] of a utility [B, n] of rates [B, n, 2], by a grid search with refinement."""
        t = torch.linspace(0, 1, GRID, dtype=self.power.dtype, device=self.power.device) ** 2
        grid = torch.cartesian_prod(t, t).expand(len(self.power), -1, -1)
        value = utility(self.rates(grid)).unflatten(-1, (GRID, GRID))
        around = torch.nn.functional.max_pool2d(value.unsqueeze(1), 3, 1, 1).squeeze(1)
        peaks = torch.where(value >= around, value, -torch.inf).flatten(1)
        peaks[:, 0] = torch.where(torch.isfinite(peaks).any(-1), peaks[:, 0], 0)
        best = peaks.topk(PLACES, -1).indices
        x = torch.take_along_dim(grid, best.unsqueeze(-1), 1)
        near = torch.linspace(-1, 1, NEAR, dtype=t.dtype, device=t.device)
        offsets = torch.cartesian_prod(near, near)
        for zoom in range(ZOOMS):
            tried = (x.unsqueeze(2) + 0.1 * 0.6**zoom * offsets).clamp(0, 1)
            value = utility(self.rates(tried.flatten(1, 2))).unflatten(1, tried.shape[1:3])
            x = torch.take_along_dim(tried, value.argmax(-1)[..., None, None], 2).squeeze(2)
        final = utility(self.rates(x)).argmax(-1)
        return torch.take_along_dim(x, final[:, None, None], 1).squeeze(1)

    def fairest(self, values: Callable[[Tensor], Tensor]) -> Tensor:
        """Maximiser x [B, 2] of the minimum of two `values` [B, n, 2], increasing functions of the rates [B, n, 2].

        The rate of user 1 increases with x_1 and decreases with x_2, that of user 2 vice versa: for each x_1, bisection
        finds the x_2 where the values are equal. The result is unimodal in x_1, since the beams that reach a level form
        a convex set.
        """
        near = torch.linspace(-1, 1, GRID, dtype=self.power.dtype, device=self.power.device)
        middle, width = torch.full_like(self.power[:, :1], 0.5), 0.5
        for _ in range(ROUNDS):
            first = (middle + width * near).clamp(0, 1)
            low, high = torch.zeros_like(first), torch.ones_like(first)
            for _ in range(HALVES):
                second = (low + high) / 2
                value = values(self.rates(torch.stack([first, second], -1)))
                behind = value[..., 0] > value[..., 1]  # user 2 is
                low, high = torch.where(behind, second, low), torch.where(behind, high, second)
            ends = [torch.stack([first, end], -1) for end in (low, high)]
            least = torch.stack([values(self.rates(end)).amin(-1) for end in ends]).amax(0)
            place = least.argmax(-1, keepdim=True)
            middle, width = first.gather(-1, place), width / 10
        both = torch.stack([end.gather(1, place.unsqueeze(-1).expand(-1, -1, 2)).squeeze(1) for end in ends], 1)
        final = values(self.rates(both)).amin(-1).argmax(-1)
        return torch.take_along_dim(both, final[:, None, None], 1).squeeze(1)


class ParetoBoundary(Solver):
    """Global optimum of the weighted sum rate or the minimum weighted rate for two users, on the Pareto boundary.

    The sum rate is maximised by a grid search over x with refinement, the minimum rate by bisection, in double
    precision. If the channels to both users are parallel, x is the amplitude of the base station instead.

    >>> from beamforge.scenarios.interference import Interference
    >>> instance = Interference(cells=2, antennas=2).sample(count=1, dtype=torch.complex128)
    >>> problem = Problem(MinRate(), (PerTransmitterPower(10.0),))
    >>> both = (kind().solve(problem, instance).W for kind in (ParetoBoundary, PowerLimitedMaxMin))
    >>> rates = [instance.truth.rate(W).amin().item() for W in both]
    >>> abs(rates[0] - rates[1]) < 1e-6
    True
    """

    capabilities = tuple(
        Capability(goal, (Form.INTERFERENCE,), needs=(PerTransmitterPower,)) for goal in (SumRate, MinRate)
    )
    differentiable = False
    tried_on = (2, 4)
    scope = "two users"

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        return super().supports(problem, network) and network.users == 2

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        goal, H = problem.maximise, observation.network.whitened().H
        assert isinstance(goal, (SumRate, MinRate))
        weights = goal.weights.double().unsqueeze(1)
        least = isinstance(goal, MinRate)
        scene = TwoUsers.of(H.to(torch.complex128), problem.get(PerTransmitterPower).limit.double())

        if least:
            x = scene.fairest(lambda rates: weights * rates)
        else:
            x = scene.best(lambda rates: (weights * rates).sum(-1))
        W = scene.beams(x.unsqueeze(1)).squeeze(1)
        return Solution.closed_form(W.to(H.dtype))


def boundary(network: Network, power: Tensor | float, points: int = 61) -> tuple[Tensor, Tensor]:
    """Rates [B, points, 2] and beams [B, points, N, 2] on the Pareto boundary of two users, from user 1 to user 2.

    The points are the intersections of the boundary with rays at equally spaced angles; where one user can have a
    higher rate at no cost to the other, the point is beyond the ray. ``plot(*rates[0].T)`` draws the boundary.

    network  with one batch dimension.
    power    power limits in watts, a number or [B, 2].

    >>> from beamforge.scenarios.interference import Interference
    >>> rates, beams = boundary(Interference(cells=2, antennas=2).sample(count=1).truth, power=10.0, points=3)
    >>> rates.shape, beams.shape, (rates[0, 1, 0] - rates[0, 1, 1]).abs().item() < 1e-3
    (torch.Size([1, 3, 2]), torch.Size([1, 3, 2, 2]), True)
    """
    H = network.whitened().H
    limit = torch.as_tensor(power, dtype=torch.float64, device=H.device).expand(len(H), 2)
    rays = rays_of_two(points, H)
    scene = TwoUsers.of(H.to(torch.complex128).repeat_interleave(points, 0), limit.repeat_interleave(points, 0))
    each = rays.repeat(len(H), 1).unsqueeze(1)

    x = scene.fairest(lambda rates: torch.where(each > 0, rates / each.clamp_min(1e-300), torch.inf)).unsqueeze(1)
    rates, W = scene.rates(x).squeeze(1), scene.beams(x).squeeze(1)
    return rates.unflatten(0, (-1, points)).to(network.noise.dtype), W.unflatten(0, (-1, points)).to(H.dtype)


def rays_of_two(points: int, like: Tensor) -> Tensor:
    """Rays [points, 2] from one axis to the other, at equally spaced angles."""
    angle = torch.linspace(0, math.pi / 2, points, dtype=torch.float64, device=like.device)
    rays = torch.stack([angle.cos(), angle.sin()], -1)
    return torch.where(rays < 1e-9, 0, rays)


def along_rays(network: Network, power: Tensor | float, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Intersections of positive rays [R, K] with the boundary of K users: rates [B, R, K] and beams [B, R, N, K].

    Each is the exact maximum of ``min_k r_k / a_k`` by `PowerLimitedMaxMin`. `power` is watts, a number or [B, K].

    >>> from beamforge.scenarios.interference import Interference
    >>> rates, beams = along_rays(Interference(cells=3).sample(count=2).truth, 10.0, torch.tensor([[1.0, 2.0, 1.0]]))
    >>> torch.allclose(rates[..., 1], 2 * rates[..., 0], rtol=1e-3)
    True
    """
    B, R = len(network.H), len(rays)
    wide = Network.interference(network.H.repeat_interleave(R, 0), network.noise.repeat_interleave(R, 0))
    limit = torch.as_tensor(power, dtype=network.noise.dtype, device=rays.device).expand(B, network.users)
    weights = rays.to(network.noise).reciprocal().repeat(B, 1)
    problem = Problem(MinRate(weights), (PerTransmitterPower(limit.repeat_interleave(R, 0)),))
    W = PowerLimitedMaxMin().solve(problem, wide).W
    return wide.rate(W).unflatten(0, (B, R)), W.unflatten(0, (B, R))
