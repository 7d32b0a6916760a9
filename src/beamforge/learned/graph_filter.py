"""A permutation-equivariant graph filter over users, the network of this library's own methods of multipliers.

Users are nodes with a few real features, and pairs of users are edges with given weights, the shifts. A round sums over
the edges and maps each node separately, so relabelling the users relabels the output, and K is arbitrary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GraphFilter(nn.Module):
    """``x <- x + MLP([y, S_1 V y, ..., S_s V y])`` with ``y = LayerNorm(x)``, `rounds` times; O(K^2) each.

    nodes   [B, K, inputs] real features of the users.
    shifts  [B, s, K, K] real; row k holds the influence of every other user on user k.

    Returns [B, K, outputs], zero at initialisation, so that training starts at the method that is corrected.

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
    """A residual block: a sum over the neighbours for each shift, and a two-layer map of each node.

    These sums and the map of their results are most of the cost, so only V y, of a third of the width, is summed.
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
