"""Sensing block: attention among targets, for barrier weights and gains of the sensing streams."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from beamforge.core.network import squared_magnitude
from beamforge.learned.isac.isac_data import IsacData
from beamforge.learned.isac.power_split import NEGLIGIBLE
from beamforge.learned.l2o.attention import AxisNetwork
from beamforge.learned.l2o.invariants import cosine, share

FEATURES, PAIRS = 10, 4
"""Numbers of features of targets and of pairs of targets."""


class SensingBlock(nn.Module):
    """Attention among targets (the block SB of Eq. 34); sensing stream m belongs to target m.

    With outputs a, g, z, c of the targets, which are zero before training::

        v_m <- v_m exp(a_m),     F_nm <- F_nm exp(g_m + mean z / 2)

    where v are the barrier weights and ``exp(c_m)`` is the step length of the ascent for stream m. The rows
    ``sqrt(v_m) c_m`` are the auxiliary sensing channel G^(t) of the paper, and the mean of z over targets is the
    learned power split. The block is permutation equivariant in targets, and its weights do not depend on their number.
    """

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.targets = AxisNetwork(FEATURES, PAIRS, width, heads, depth, 4)

    def forward(
        self, H: Tensor, data: IsacData, penalty: Tensor, W: Tensor, F: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Barrier weights [B, M], sensing streams [B, N, M], and step lengths [B, M] after the block.

        H  channels [B, K, N], of which only the precision is used.
        """
        pairs = between_targets(data, F)
        a, g, z, c = self.targets(of_targets(data, penalty, W, F), pairs, data.targets)
        split = z.sum(-1, keepdim=True) / data.targets.sum(-1, keepdim=True).clamp_min(1)
        return penalty * a.exp(), F * (g + split / 2).exp().unsqueeze(-2), c.exp()


def of_targets(data: IsacData, penalty: Tensor, W: Tensor, F: Tensor) -> Tensor:
    """Features [B, M, 10] of targets on logarithmic scales, zero for masked targets.

    Relative sensing SNR due to all streams, to data beams and to the target's own stream; its margin; its largest value
    at full power; share of the stream in the sensing power; interference of the stream at the users, unweighted and
    weighted by prices; barrier weight; ratio of sensing to data power.
    """
    by_data, total = data.sensed(W), data.sensed(torch.cat([W, F], -1))
    leaked = squared_magnitude(data.H @ F)  # [B, K, M]
    prices = data.received(W, F).prices(data.weights).unsqueeze(-1)
    power = torch.where(data.targets, squared_magnitude(F).sum(-2) + NEGLIGIBLE, 0)
    count = data.targets.sum(-1, keepdim=True).to(power)
    ratio = (power.sum(-1) + NEGLIGIBLE) / (squared_magnitude(W).sum((-2, -1)) + NEGLIGIBLE)
    features = [
        total.log1p(),
        by_data.log1p(),
        squared_magnitude((data.C.conj() * F).sum(-2)).log1p(),
        torch.asinh(10 * (total - 1)),
        squared_magnitude(data.C).sum(-2).log1p(),
        share(power, count.clamp_min(1)),
        leaked.sum(-2).log1p(),
        (prices * leaked).sum(-2).log1p(),
        penalty.log(),
        ratio.log().unsqueeze(-1).expand_as(power),
    ]
    return torch.where(data.targets.unsqueeze(-1), torch.stack(features, -1), 0)


def between_targets(data: IsacData, F: Tensor) -> Tensor:
    """Features [B, M, M, 4] of targets m and j: squared cosine, SNRs due to the other's stream, and whether m = j."""
    seen = squared_magnitude(data.C.mH @ F).log1p()
    same = torch.eye(seen.shape[-1], dtype=seen.dtype, device=seen.device).expand_as(seen)
    return torch.stack([cosine(data.C.mH @ data.C), seen, seen.mT, same], -1)
