"""Dual of least power and balanced SINRs under power limits of antennas, transmitters or the total: its Hessian.

Every limit l has a multiplier (price) m_l >= 0. The power of antenna n of transmitter t is weighted by
``b + sum_l m_l E_l,tn / P_l``; then the uplink solves the problem as without limits. What remains is a concave
maximisation over the few prices; its gradient is the used share f_l of each limit (less one). Its second derivatives
have a closed form, so prices and slacks s are found by a primal-dual interior-point method: ``f_l + s_l = 1``,
``m_l s_l = mu -> 0``.

Source: W. Yu, T. Lan, "Transmitter optimization for the multi-antenna downlink with per-antenna power constraints",
IEEE Trans. Signal Process. 55 (2007) (the dual); the second-order method is ours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.duality.uplink import Uplink
from beamforge.classical.power_limits import limit_groups
from beamforge.core.network import Network, squared_magnitude
from beamforge.core.problem import Problem


class Curvature(NamedTuple):
    """The used shares f [B, L] of the limits, their derivatives with respect to prices [B, L, L] and the common level
    [B, L], and the derivative of the uplink's total power with respect to the level [B]."""

    used: Tensor
    over_price: Tensor
    over_level: Tensor
    power_over_level: Tensor


def limit_rows(problem: Problem, network: Network) -> Tensor:
    """Rows ``E_l / P_l`` [B, L, T, N]: their products with the antenna powers are the used shares, at most one."""
    groups, bounds = limit_groups(problem, network.transmitters, network.antennas)
    return groups.double() / bounds.double()[:, :, None, None]


def curvature(uplink: Uplink, weight: Tensor, rows: Tensor, x: Tensor, target: Tensor, slope: Tensor) -> Curvature:
    """Second derivatives of the least weighted power, at balanced uplink powers x [B, K].

    weight [B, T, N] weights antenna powers, target [B, K] are the SINRs at x, slope [B, K] is d log SINR / d level.
    With A_k the covariance of interference and noise of user k, ``d_k = c_k^H A_k^-1 c_k`` and ``u_k = A_k^-1 c_k /
    d_k``, the derivative of ``1 / d_k`` is ``u_k^H dA u_k`` and the second derivative
    ``-2 u_k^H dA (A_k^-1 - d_k u_k u_k^H) dA u_k``; ``q_k = target_k / d_k``.
    """
    on = x > 0
    q = uplink.watts(x)
    B, K = x.shape
    pick = uplink.transmitter
    H = uplink.H.expand(B, *uplink.H.shape[1:])
    C = torch.take_along_dim(H, pick[:, :, None, None], 1).conj()  # [B, K(stream), K(user), N]: columns c
    R = (rows / weight.unsqueeze(1)).transpose(1, 2)  # [B, T, L, N]: dA in the weighted coordinates
    R = torch.take_along_dim(R, pick[:, :, None, None], 1)  # [B, K, L, N]
    eye = torch.eye(K, dtype=torch.bool, device=x.device)
    root = torch.where(eye, 0, q.unsqueeze(1).expand(B, K, K)).sqrt()
    V = C * root.unsqueeze(-1)  # [B, k, j, N]
    A = torch.diag_embed(torch.ones_like(V[:, :, 0])) + V.mT @ V.conj()
    own = torch.diagonal(C, dim1=1, dim2=2).mT  # [B, K, N]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex(A)[0])
    a = (inverse @ own.unsqueeze(-1)).squeeze(-1)
    d = (own.conj() * a).sum(-1).real
    safe = torch.where(on, d, 1)
    u = torch.where(on.unsqueeze(-1), a / safe.unsqueeze(-1), 0)
    response = (V.conj() * u.unsqueeze(2)).sum(-1)  # [B, k, j]
    J = safe.unsqueeze(-1) * squared_magnitude(response)
    direct = torch.einsum("bkln,bkn->bkl", R, squared_magnitude(u))  # u^H dA_l u
    system = torch.eye(K, dtype=x.dtype, device=x.device) - J
    t = torch.linalg.solve_ex(system.mT, q.unsqueeze(-1))[0].squeeze(-1)  # pi_k q_k
    force = torch.where(on, t * safe, 0)  # pi_k target_k, because target_k = q_k d_k
    used = torch.einsum("bk,bkl->bl", force, direct)
    right = torch.cat([safe.unsqueeze(-1) * direct, torch.where(on, slope, 0).unsqueeze(-1)], -1)
    X = torch.linalg.solve_ex(system, right)[0]  # derivatives of log q with respect to prices and level, [B, K, L + 1]
    Y = torch.cat([V * response.unsqueeze(-1), R * u.unsqueeze(2)], 2)  # [B, k, K + L, N]: dA u
    project = inverse - safe[..., None, None] * u.unsqueeze(-1) * u.unsqueeze(-2).conj()
    hessian = -2 * torch.einsum("bk,bkmn->bmn", force, (Y.conj() @ project @ Y.mT).real)  # [B, K + L, K + L]
    L = rows.shape[1]
    unit = torch.cat([torch.eye(L, dtype=x.dtype, device=x.device), x.new_zeros(L, 1)], -1).expand(B, L, L + 1)
    D = torch.cat([X, unit], 1)  # [B, K + L, L + 1]
    second = D.mT @ hessian @ D
    mixed = torch.cat(
        [(J.mT @ (slope * t).unsqueeze(-1)).squeeze(-1), torch.einsum("bk,bkl->bl", slope * force, direct)], -1
    )
    over_level = second[:, :L, L] + (D.mT @ mixed.unsqueeze(-1)).squeeze(-1)[:, :L]
    return Curvature(used, second[:, :L, :L], over_level, (torch.where(on, slope, 0) * t).sum(-1))
