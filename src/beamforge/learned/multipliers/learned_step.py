"""Learned steps: a WMMSE step whose length is predicted for each user."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from beamforge.classical.sum_rate.reduced_wmmse import Multipliers, WhitenedChannel
from beamforge.core.network import own
from beamforge.learned.graph_filter import Round
from beamforge.learned.multipliers.features import preference

FEATURES = 8
SHIFTS = 3

LIMIT = 6.0
"""Largest change of a multiplier in one step, in nats."""

OFF_SHARE = 1e-9
"""Root, as a share of the 2-norm of all, below which a user is switched off."""


class LearnedStep(nn.Module):
    """``log q' = log q + (1 + a_k) d_k + b_k |d|`` for both multipliers q of each user; d is the WMMSE step of log q.

    One round of a graph filter predicts a and b from d, the multipliers and the interference between users at the
    current beams. The change vanishes with d, so fixed points of WMMSE remain fixed points, and a user that a WMMSE
    step switches off stays off. At initialisation a is one half and b is zero.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(FEATURES, width)
        self.round = Round(width, SHIFTS)
        self.leave = nn.Linear(width, 4)
        nn.init.zeros_(self.leave.weight)
        with torch.no_grad():
            self.leave.bias.copy_(torch.tensor([0.5, 0.5, 0.0, 0.0]))

    def forward(
        self, data: WhitenedChannel, before: Multipliers, image: Multipliers, power: Tensor, closeness: Tensor
    ) -> Multipliers:
        """Multipliers [B, K] after the step.

        before, image  a state, and the state after a plain WMMSE step from it.
        power          powers [B, K, K] that the beams of `before` deliver, in units of the noise.
        closeness      squared correlation of channels [B, K, K].
        """
        tiny = torch.finfo(power.dtype).tiny ** 0.5
        K = power.shape[-1]
        from_root, to_root = normalised_roots(before.root), normalised_roots(image.root)
        root = (to_root / from_root).log().clamp(-LIMIT, LIMIT)
        gain = ((image.gain + tiny) / (before.gain + tiny)).log().clamp(-LIMIT, LIMIT)
        length = (root.square().mean(-1, keepdim=True) + gain.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        interference = power.masked_fill(torch.eye(K, dtype=torch.bool, device=power.device), 0)
        share = interference / (power.sum(-1, keepdim=True) + 1)
        leak = (interference / (power.sum(-2, keepdim=True) + 1)).mT
        wanted, rooted = preference(data).log(), to_root.log()
        usual = data.weights.mean(-1, keepdim=True).clamp_min(tiny).sqrt()
        nodes = torch.stack(
            [
                root / length,
                gain / length,
                (image.gain / usual).clamp_min(tiny).log() - wanted / 2,
                rooted - rooted.mean(-1, keepdim=True),
                length.log().expand_as(root) / 3,
                own(data.gram).real.clamp_min(tiny).log() / 5,
                share.sum(-1),
                wanted,
            ],
            -1,
        )
        shifts = torch.stack([closeness, share, leak], 1).flatten(1, 2)
        a, b, c, d = self.leave(self.round(self.enter(nodes), shifts)).unbind(-1)
        longer = Multipliers((1 + a) * root + c * length, (1 + b) * gain + d * length)
        along, grown = (value.clamp(-LIMIT, LIMIT).exp() for value in longer)
        return Multipliers(torch.where(to_root > OFF_SHARE, from_root * along, 0), before.gain * grown)


def normalised_roots(root: Tensor) -> Tensor:
    """Roots [B, K] divided by their 2-norm, on which the beams do not depend, and bounded away from zero."""
    norm = torch.linalg.vector_norm(root, dim=-1, keepdim=True)
    return (root / torch.where(norm > 0, norm, 1)).clamp_min(OFF_SHARE)
