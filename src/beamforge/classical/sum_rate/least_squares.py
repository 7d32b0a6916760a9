"""Beams of least weighted squared error within power limits: the beam update of WMMSE.

For transmitters t with ``F_t = diag(sqrt q) H_t`` [K, N] and gains c_k of the streams they serve ::

    minimise  sum_k |F_t(k) w_k - c_k e_k|^2    subject to    sum_{u in group g} power_u <= limit_g

where the units u are antennas, or transmitters if no antenna is limited. With Lagrange multipliers (prices) of the
units' powers ::

    W_t = (F_t^H F_t + diag(price))^-1 F_t^H diag(c)

Source: Q. Shi, M. Razaviyayn, Z.-Q. Luo, C. He, "An iteratively weighted MMSE approach to distributed sum-utility
maximization for a MIMO interfering broadcast channel", IEEE Trans. Signal Process. 59 (2011), Eqs. 15 to 18, for one
limit per transmitter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.classical.sum_rate.power_duals import (
    Limits,
    PowerDuals,
    PowerResponse,
    ResponseTo,
    barrier,
    projected_newton,
    separate_newton,
)
from beamforge.core.network import squared_magnitude


class LeastSquares:
    """The problem of this module for F complex [B, T, K, N] and c [B, T, K], zero for streams that t does not send.

    It is solved in K dimensions (users) if K < N and no antenna is limited, else in N dimensions (antennas).
    """

    def __init__(self, F: Tensor, c: Tensor, limits: Limits) -> None:
        _, T, K, N = F.shape
        self.F, self.limits = F, limits
        self.whole = limits.groups.shape[-1] == T
        self.by_user = self.whole and K < N
        gains = torch.diag_embed(c).to(F.dtype)
        G = F if self.by_user else F.mH
        self.gram, self.right = G @ G.mH, gains if self.by_user else F.mH @ gains
        size = squared_magnitude(F.detach()).sum(-1).amax(-1)
        self.ridge = torch.where(size > 0, 4 * torch.finfo(size.dtype).eps * size, 1)  # [B, T], rounding of the Gram

    def solve(self, worth: Tensor) -> Tensor:
        """Optimal columns [B, T, N, K]; `worth` [B, T] is an initial guess of each transmitter's price times its power.

        The prices are found without gradients. Then one differentiable Newton step is applied; its value is zero up to
        rounding, and it gives the exact gradients of the solution.
        """
        B, T = self.F.shape[:2]
        found = self.duals(worth)
        factor = self.factor(self.limits.spread(found.prices))
        Y = torch.cholesky_solve(self.right, factor)
        load = self.limits.load(self.powers(self.lift(Y)))
        shift = self.limits.spread(found.corrected(load, self.limits.bound)).reshape(B, T, -1, 1)
        return self.lift(Y - torch.cholesky_solve(shift * Y, factor))

    @torch.no_grad()
    def duals(self, worth: Tensor) -> PowerDuals:
        """Optimal prices of the limits, from the same guess as in `solve`."""
        N = self.F.shape[-1]
        if self.whole:
            newton = separate_newton if self.limits.separate else projected_newton
            return newton(self.spectral(), self.limits, self.limits.load(worth) / self.limits.bound)
        share = (worth / N).repeat_interleave(N, -1)
        least = self.limits.load(self.ridge.repeat_interleave(N, -1))
        return barrier(self.by_antenna, self.limits, self.limits.load(share) / self.limits.bound, least)

    def factor(self, prices: Tensor) -> Tensor:
        """Cholesky factor of ``gram + diag(prices)`` for prices [B, U] of the units."""
        B, T, n = self.gram.shape[:3]
        level = prices.reshape(B, T, -1) + self.ridge.unsqueeze(-1)
        return torch.linalg.cholesky_ex(self.gram + torch.diag_embed(level.expand(B, T, n)))[0]

    def lift(self, Y: Tensor) -> Tensor:
        """Beams [B, T, N, K] from the coordinates of the solution."""
        return self.F.mH @ Y if self.by_user else Y

    def powers(self, V: Tensor) -> Tensor:
        """Power of every unit [B, U] for columns V [B, T, N, K]."""
        rows = squared_magnitude(V).sum(-1)
        return rows.sum(-1) if self.whole else rows.flatten(1)

    def by_antenna(self, prices: Tensor) -> PowerResponse:
        """The response to prices [B, T N] of the antennas."""
        inverse = torch.cholesky_inverse(self.factor(prices))
        V = inverse @ self.right
        slope = 2 * (inverse * (V @ V.mH).conj()).real
        value = (self.right.conj() * V).real.sum((-3, -2, -1))
        return PowerResponse(value, self.powers(V), blocks(slope))

    def spectral(self) -> ResponseTo:
        """The response to prices [B, T] of the transmitters, elementwise after one eigendecomposition."""
        finite = torch.isfinite(torch.view_as_real(self.gram)).all(-1).all(-1).all(-1)[..., None, None]
        values, vectors = torch.linalg.eigh(torch.where(finite, self.gram, 0))  # eigh raises if one entry is NaN
        values = values.clamp_min(0)
        energy = squared_magnitude(vectors.mH @ self.right).sum(-1)
        energy = energy * values if self.by_user else energy

        def at(prices: Tensor) -> PowerResponse:
            inverse = (values + (prices + self.ridge).unsqueeze(-1)).reciprocal()
            first = energy * inverse
            second = first * inverse
            slope = torch.diag_embed(2 * (second * inverse).sum(-1))
            return PowerResponse(first.sum((-2, -1)), second.sum(-1), slope)

        return at


def blocks(matrices: Tensor) -> Tensor:
    """Block-diagonal [B, T n, T n] of [B, T, n, n]."""
    B, T, n, _ = matrices.shape
    if T == 1:
        return matrices.squeeze(1)
    eye = torch.eye(T, dtype=matrices.dtype, device=matrices.device)
    return torch.einsum("btij,ts->btisj", matrices, eye).reshape(B, T * n, T * n)
