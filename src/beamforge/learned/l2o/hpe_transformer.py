"""HPE transformer: attention over users, with the structure of optimal beams as decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from beamforge.core.network import own
from beamforge.learned.l2o import invariants
from beamforge.learned.l2o.ascent import Received
from beamforge.learned.l2o.attention import AxisNetwork
from beamforge.learned.l2o.direct import Direct
from beamforge.learned.l2o.masks import Masks


class HPETransformer(Direct):
    """Weighted sum rate by ``w_k = (I + sum_j l_j h_j h_j^H)^-1 t_k h_k`` with l and t from an encoder.

    The encoder is a stack of attention blocks over users; the published method is for multicast groups, each of which
    is one user here. Before training ``l = 1/K`` and ``t = 1/|w_k|``, which is regularised zero forcing. Any numbers of
    users and antennas are supported.

    Source: Y. Li, Y.-F. Liu, "HPE transformer: learning to optimize multi-group multicast beamforming under nonconvex
    QoS constraints", IEEE Trans. Commun. 72 (2024).
    """

    model = "hpe-transformer"

    def network(self, **form: Any) -> nn.Module:
        return Encoder(**form)


class Encoder(nn.Module):
    """Multipliers of the users, and the resulting beams."""

    def __init__(self, layers: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.users = AxisNetwork(invariants.USERS, invariants.USER_PAIRS, width, heads, depth, 2, layers)

    def forward(self, H: Tensor, W: Tensor, weights: Tensor, masks: Masks) -> Tensor:
        """Beams [B, N, K]."""
        seen = Received.of(H, W)
        features = invariants.of_users(H, H, W, seen, weights, masks)
        price, gain = self.users(features, invariants.between_users(H, seen), masks.users)
        prices = torch.where(masks.users, price.exp(), 0) / masks.active().unsqueeze(-1)
        M = H.mH @ (prices.unsqueeze(-1) * H)
        level = 1 + 4 * torch.finfo(weights.dtype).eps * own(M).real
        factor = torch.linalg.cholesky_ex(M + torch.diag_embed(level.to(M.dtype))).L
        beams = torch.cholesky_solve(H.mH, factor)
        size = torch.view_as_real(beams).square().sum((-3, -1))
        return beams * (gain.exp() * torch.where(size > 0, size, 1).rsqrt()).unsqueeze(-2)
