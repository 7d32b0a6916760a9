"""A message-passing network over links, the usual learned baseline for power control."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from beamforge.classical.links.wmmse import SharedPower
from beamforge.core.instance import Instance
from beamforge.learned.links.sized import Sized, bound_problem

WIDTH = 32
"""Width of messages and of the state of a link."""

ROUNDS = 3
"""Rounds of message passing."""


class GNN(Sized):
    """Weighted sum rate of L links under one total power, by a graph network; O(L^2).

    Links are nodes; the features of an edge are the gains in both directions. In each of three rounds::

        m_lj = ReLU(f([x_j, log(1 + A_lj), log(1 + A_jl)])),    x_l <- g([x_l, n_l, max_j m_lj, mean_j m_lj])

    with f and g of two layers, the same in every round, n_l the logarithms of own gain and weight, and j over all other
    links. The shares of the power are a softmax over the links of a linear map of x. Trained without labels, on the
    weighted sum rate itself.

    Source: Y. Shen, Y. Shi, J. Zhang, K. B. Letaief, "Graph neural networks for scalable radio resource management:
    architecture design and theoretical analysis", IEEE J. Sel. Areas Commun. 39 (2021), Sec. V, for a limit on the
    power of each link; the softmax and the mean of the messages are ours.

    >>> from beamforge.scenarios.power_control import Strong
    >>> instance = Strong(links=4).sample(2)
    >>> GNN().solve(bound_problem(instance)[0], instance).W.abs().square().sum((-2, -1)).round(decimals=3)
    tensor([2., 2.])
    """

    model = "gnn"

    def __init__(self, checkpoint: str = "shipped", links: int = 4) -> None:
        super().__init__(checkpoint, links)

    def network(self, links: int, **settings: Any) -> nn.Module:
        return MessagePassing()

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the mean weighted sum rate, bit/s/Hz."""
        _, data = bound_problem(instance)
        return -data.rate(self.shares(data).unsqueeze(-2)).mean(), {}


class MessagePassing(nn.Module):
    """Maps `SharedPower` to shares [B, L], for any L."""

    def __init__(self) -> None:
        super().__init__()
        self.sender, self.edge = nn.Linear(WIDTH, WIDTH), nn.Linear(2, WIDTH, bias=False)
        self.message = nn.Linear(WIDTH, WIDTH)
        self.update = nn.Sequential(nn.Linear(3 * WIDTH + 2, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH))
        self.score = nn.Linear(WIDTH, 1)

    def forward(self, data: SharedPower) -> Tensor:
        L = data.direct.shape[-1]
        tiny = 1e-4
        nodes = torch.stack([(value.clamp_min(tiny)).log() for value in (data.direct / L, data.weights * L)], -1)
        between = torch.stack([data.cross, data.cross.mT], -1).log1p()
        heard = self.edge(between)  # [B, L, L, WIDTH], receiving link first
        itself = torch.eye(L, dtype=torch.bool, device=nodes.device).unsqueeze(-1)
        x = nodes.new_zeros(*nodes.shape[:-1], WIDTH)
        for _ in range(ROUNDS):
            message = self.message((self.sender(x).unsqueeze(-3) + heard).relu()).relu()
            message = message.masked_fill(itself, 0)
            x = self.update(torch.cat([x, nodes, message.amax(-2), message.sum(-2) / max(1, L - 1)], -1))
        return self.score(x).squeeze(-1).softmax(-1)
