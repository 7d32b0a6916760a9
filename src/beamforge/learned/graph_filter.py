"""A permutation-equivariant filter over users, the one network behind this library's own learned methods.

Users are nodes with a few real features, and pairs of users are edges with fixed weights, the shifts. A round gathers
over the edges and maps each node by itself, so relabelling the users relabels the output, and any number of users will
do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GraphFilter(nn.Module):
    """``x <- x + MLP([y, S_1 V y, ..., S_s V y])`` with ``y = LayerNorm(x)``, a few times; O(K^2) a round.

    nodes   [B, K, inputs] real features of the users.
    shifts  [B, s, K, K] real; row k says how much user k hears of every other.

    Returns [B, K, outputs], zero at initialisation, so a method begins as what it corrects.

    >>> network = GraphFilter(inputs=3, outputs=2, shifts=1)
    >>> network(torch.ones(4, 5, 3), torch.ones(4, 1, 5, 5)).shape
    torch.Size([4, 5, 2])
    """

    def __init__(self, inputs: int, outputs: int, shifts: int, width: int = 32, rounds: int = 3) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.rounds = nn.ModuleList(Round(width, shifts) for _ in range(rounds))
        self.leave = nn.Linear(width, outputs)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, nodes: Tensor, shifts: Tensor) -> Tensor:
        stacked = shifts.flatten(1, 2)
        x = self.enter(nodes)
        for each in self.rounds:
            x = each(x, stacked)
        return self.leave(x)


class Round(nn.Module):
    """One gathering over all shifts and a two-layer map of each node, added to what was there.

    Most of the cost is in the gathering and in mixing what it brings, so only a third of the width, V y, is sent round.
    """

    def __init__(self, width: int, shifts: int) -> None:
        super().__init__()
        sent = -(-width // 3)
        self.norm = nn.LayerNorm(width)
        self.send = nn.Linear(width, sent, bias=False)
        self.mix = nn.Linear(width + sent * shifts, 3 * width // 2)
        self.act = nn.SiLU()
        self.out = nn.Linear(3 * width // 2, width)

    def forward(self, x: Tensor, shifts: Tensor) -> Tensor:
        """x [B, K, width], shifts [B, s K, K]."""
        y = self.norm(x)
        batch, users, _ = y.shape
        heard = (shifts @ self.send(y)).reshape(batch, -1, users, self.send.out_features).transpose(1, 2).flatten(2)
        return x + self.out(self.act(self.mix(torch.cat([y, heard], -1))))
