"""A permutation-equivariant layer, with powers, rates and angles of users and antennas as tokens."""

from __future__ import annotations

from torch import Tensor, nn

from beamforge.learned.l2o import invariants
from beamforge.learned.l2o.ascent import Received
from beamforge.learned.l2o.attention import AxisNetwork
from beamforge.learned.l2o.masks import Masks


class InvariantLayer(nn.Module):
    """Attention among users and among antennas, for gains of the rows and columns of auxiliary channel and beams.

    With outputs a, b, c of the users and d, e of the antennas, which are zero before training::

        G_kn <- G_kn exp(f_k + a_k + d_n),     W_nk <- W_nk exp(b_k + e_n),     f_k = log(l_k |h_k|^2 / |G_k|^2) / 2

    and ``exp(c_k)`` is the step length of the ascent for beam k. The term f gives ``G_k = sqrt(l_k) h_k`` up to a
    common scale, where l_k is the price of interference at user k: before training, a layer does not change the beams,
    and the first ascent step after it is a WMMSE step. The layer is permutation equivariant in users and antennas, and
    its weights do not depend on their numbers.
    """

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.users = AxisNetwork(invariants.USERS, invariants.USER_PAIRS, width, heads, depth, 3)
        self.antennas = AxisNetwork(invariants.ANTENNAS, invariants.ANTENNA_PAIRS, width, heads, depth, 2)

    def forward(
        self, H: Tensor, auxiliary: Tensor, W: Tensor, weights: Tensor, masks: Masks
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Auxiliary channel [B, K, N] and beams [B, N, K] after the layer, and step lengths [B, K] of the ascent."""
        seen = Received.of(H, W)
        features = invariants.of_users(H, auxiliary, W, seen, weights, masks)
        a, b, c = self.users(features, invariants.between_users(H, seen), masks.users)
        d, e = self.antennas(invariants.of_antennas(H, W, masks), invariants.between_antennas(H, W), masks.antennas)
        follow = (features[..., 0] - features[..., 1]) / 2
        auxiliary = auxiliary * ((follow + a).unsqueeze(-1) + d.unsqueeze(-2)).exp()
        return auxiliary, W * (b.unsqueeze(-2) + e.unsqueeze(-1)).exp(), c.exp()
