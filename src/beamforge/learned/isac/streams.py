"""Sensing streams towards the targets with balanced powers, and initial beams."""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.core.network import own, squared_magnitude
from beamforge.learned.isac.isac_data import IsacData
from beamforge.learned.isac.power_split import least_share, mixed
from beamforge.learned.l2o.ascent import lmmse, of_full_power

ROUNDS = 8
"""Iterations of the power balancing."""

SPARE = 1.2
"""Initial share of the sensing power relative to the least share that meets all targets."""


def steered(data: IsacData) -> Tensor:
    """Sensing streams F [B, N, M] of power one with directions c_m and balanced powers.

    With five targets and 16 antennas they meet all targets in 98 % of the instances where this is possible.
    """
    return balanced(data, data.C)


def balanced(data: IsacData, directions: Tensor) -> Tensor:
    """Streams [B, N, M] of power one in given directions, with powers that equalise the sensing SNRs.

    The fixed-point iteration is ``p_m <- p_m / SNR_m``, normalised to total power one.
    """
    size = squared_magnitude(directions).sum(-2, keepdim=True)
    F = of_full_power(directions / torch.where(size > 0, size, 1))
    for _ in range(ROUNDS):
        sensed = data.sensed(F).unsqueeze(-2)
        F = of_full_power(F * torch.where(sensed > 0, sensed, 1).rsqrt())
    return F


def initial(data: IsacData) -> tuple[Tensor, Tensor]:
    """W^(0) [B, N, K] by regularised zero forcing, and F^(0) [B, N, M] in the regularised null space of the users.

    Directions of F are ``(H^H H + K I)^-1 c_m``, which at high SNR tend to the projection of c_m onto the null space of
    H. In instances where such streams cannot meet all targets their directions are c_m.
    """
    H, C, W = data.H, data.C, lmmse(data.H, data.masks.users)
    gram = H @ H.mH
    level = data.masks.active().unsqueeze(-1) + 4 * torch.finfo(H.real.dtype).eps * own(gram).real
    factor = torch.linalg.cholesky_ex(gram + torch.diag_embed(level.to(gram.dtype))).L
    quiet, plain = balanced(data, C - H.mH @ torch.cholesky_solve(H @ C, factor)), steered(data)
    share, feasible = least_share(data.margins(W), data.margins(quiet))
    F = torch.where(feasible[:, None, None], quiet, plain)
    other, feasible_too = least_share(data.margins(W), data.margins(plain))
    share = torch.where(feasible, share, torch.where(feasible_too, other, 1))
    return mixed(W, F, (SPARE * share).clamp(0.02, 0.98))
