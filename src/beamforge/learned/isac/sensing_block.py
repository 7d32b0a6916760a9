"""Attention among targets, to the weights of their barriers and the gates of their sensing streams."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from beamforge.core.network import squared_magnitude
from beamforge.learned.isac.question import Question
from beamforge.learned.l2o.attention import AxisNetwork
from beamforge.learned.l2o.invariants import cosine, share

FEATURES, PAIRS = 10, 4
"""How many features there are of a target, and of a pair of them."""


class SensingBlock(nn.Module):
    """Targets look at each other, and stream m of F is that of target m (the paper's SB, Eq. 34).

    With a, g, z, c of the targets, all of them zero at first::

        v_m <- v_m exp(a_m),     F_nm <- F_nm exp(g_m + mean z / 2)

    and ``exp(c_m)`` is the length of the ascent steps for stream m. v are the weights of the barriers: sqrt(v_m) c_m
    are the rows of the auxiliary sensing channel, as sqrt(l_k) h_k are those of the users'. The mean of z moves power
    from data to sensing. Relabelled targets have relabelled answers.
    """

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.targets = AxisNetwork(FEATURES, PAIRS, width, heads, depth, 4)

    def forward(self, H: Tensor, asked: Question, pull: Tensor, W: Tensor, F: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of the barriers [B, M], streams [B, N, M], and lengths [B, M] of ascent steps.

        H  the channels of the question, which state the precision.
        """
        pairs = between_targets(asked, F)
        a, g, z, c = self.targets(of_targets(asked, pull, W, F), pairs, asked.targets)
        split = z.sum(-1, keepdim=True) / asked.targets.sum(-1, keepdim=True).clamp_min(1)
        return pull * a.exp(), F * (g + split / 2).exp().unsqueeze(-2), c.exp()


def of_targets(asked: Question, pull: Tensor, W: Tensor, F: Tensor) -> Tensor:
    """Features [B, M, 10] on logarithmic scales, zero for masked targets.

    Sensing SNR by all streams, by data alone and by its own stream; margin over the bound; the most that all the power
    could give; share of the stream in the sensing power; what users hear of it, plain and priced; weight of the
    barrier; power of sensing over that of data.
    """
    data, total = asked.sensed(W), asked.sensed(torch.cat([W, F], -1))
    leaked = squared_magnitude(asked.H @ F)  # [B, K, M]
    prices = asked.received(W, F).prices(asked.weights).unsqueeze(-1)
    power = squared_magnitude(F).sum(-2)
    count = asked.targets.sum(-1, keepdim=True).to(power)
    ratio = (power.sum(-1) + 1e-6) / (squared_magnitude(W).sum((-2, -1)) + 1e-6)
    features = [
        total.log1p(),
        data.log1p(),
        squared_magnitude((asked.C.conj() * F).sum(-2)).log1p(),
        torch.asinh(10 * (total - 1)),
        squared_magnitude(asked.C).sum(-2).log1p(),
        share(power, count.clamp_min(1)),
        leaked.sum(-2).log1p(),
        (prices * leaked).sum(-2).log1p(),
        pull.clamp_min(1e-12).log(),
        ratio.log().unsqueeze(-1).expand_as(power),
    ]
    return torch.where(asked.targets.unsqueeze(-1), torch.stack(features, -1), 0)


def between_targets(asked: Question, F: Tensor) -> Tensor:
    """Features [B, M, M, 4] of a target and another: their angle, the stream of each at the other, if they are one."""
    seen = squared_magnitude(asked.C.mH @ F).log1p()
    same = torch.eye(seen.shape[-1], dtype=seen.dtype, device=seen.device).expand_as(seen)
    return torch.stack([cosine(asked.C.mH @ asked.C), seen, seen.mT, same], -1)
