"""Gradient ascent whose steps are chosen by a recurrent network, coordinate by coordinate, after the RNN optimiser."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from beamforge.core.instance import Instance
from beamforge.learned.l2o.ascent import Received, gradient, lmmse, of_full_power
from beamforge.learned.l2o.direct import Direct
from beamforge.learned.l2o.graph_transformer import settling
from beamforge.learned.l2o.masks import Masks
from beamforge.learned.l2o.whitening import call, posed

FIRST_STEP = 0.1
"""Length of an untrained step, in units of the size of W for a gradient of the same size."""


class RNNOptimizer(Direct):
    """Weighted sum rate by `steps` updates ``W <- W + d(g)``, each scaled to full power, from regularised zero forcing.

    g is the gradient of the rate by W. A two-layer LSTM, with the same weights for all coordinates (real and imaginary
    parts of all entries of W), takes a coordinate of the gradient and of W and gives its update. Untrained, it is
    ascent with steps of one length. The phase of each user's channel is settled first. Any number of users and
    antennas; O(K^2 N) and 2KN passes of the LSTM a step. Training ignores derivatives of the gradients.

    checkpoint  "shipped", "random" (untrained), or a file that `beamforge train` wrote.
    steps       updates.
    width       of the LSTM, if the weights are random.

    Source: J. Johnston, X. Wang, "RNN beamforming optimizer for rate-splitting multiple access and cell-free massive
    MIMO", IEEE Trans. Commun. (2024). Their network is trained on each instance anew; this one is trained once.
    """

    model = "rnn-optimizer"

    def __init__(self, checkpoint: str = "shipped", steps: int = 25, width: int = 40) -> None:
        super(Direct, self).__init__()
        self._build(checkpoint, steps=steps, width=width)

    def network(self, **form: Any) -> nn.Module:
        return CoordinateLSTM(**form)

    def beams(self, H: Tensor, weights: Tensor) -> Tensor:
        return self.iterates(H, weights)[-1]

    def iterates(self, H: Tensor, weights: Tensor, first_order: bool = False) -> list[Tensor]:
        """Beams of full power [B, N, K] after every update; `first_order` ignores derivatives of gradients."""
        masks, H = Masks.of(H), settling(H) * H
        found: list[Tensor] = call(self.beamformer, H, lmmse(H, masks.users), weights, masks, first_order)
        return found

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """``-mean log R``, averaged over all updates.

        instance  broadcast channels with `p_max` and, where they are not one, `weights` in their context.
        """
        H, weights = posed(instance)
        rates = torch.stack([Received.of(H, W).rate(weights) for W in self.iterates(H, weights, first_order=True)])
        loss = -rates.clamp_min(torch.finfo(rates.dtype).tiny ** 0.5).log().mean()
        return loss, {"sum_rate": rates[-1].detach().mean() / math.log(2)}


class CoordinateLSTM(nn.Module):
    """Updates of all coordinates by one two-layer LSTM."""

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.steps = steps
        self.cells = nn.ModuleList([nn.LSTMCell(2, width), nn.LSTMCell(width, width)])
        self.out = nn.Linear(width, 1)
        self.length = nn.Parameter(torch.tensor(math.log(FIRST_STEP)))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, H: Tensor, W: Tensor, weights: Tensor, masks: Masks, first_order: bool) -> list[Tensor]:
        """Beams [B, N, K] after every update."""
        present = masks.samples().mT
        size = present.sum((-2, -1)).clamp_min(1).to(weights).sqrt()[:, None, None]  # an entry of W is about 1/size
        empty = H.real.new_zeros(2 * W.numel(), self.out.in_features)
        states = [(empty, empty)] * len(self.cells)
        found = []
        for _ in range(self.steps):
            g = of_full_power(gradient(H, W, weights)[0])
            g = g.detach() if first_order else g
            x = torch.stack([torch.view_as_real(g), torch.view_as_real(W)], -1) * size.unsqueeze(-1).unsqueeze(-1)
            x = x.reshape(-1, 2)
            for index, cell in enumerate(self.cells):
                states[index] = cell(x, states[index])
                x = states[index][0]
            update = torch.view_as_complex(self.out(x).reshape(*W.shape, 2).contiguous()) / size
            W = of_full_power(torch.where(present, W + self.length.exp() * g + update, 0))
            found.append(W)
        return found
