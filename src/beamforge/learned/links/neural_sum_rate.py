"""Neural sum rate maximisation: Algorithm 1 unrolled into K x T x D layers, with networks that correct its updates.

Powers are shares that sum to one, and noise is one: see `SharedPower`. Every update is the classical one, corrected by
a network psi: by a factor for positive quantities (q, x, y), by an additive term for the others (z, mu).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from beamforge.classical.links.many_starts import ManyStarts
from beamforge.classical.links.mm_admm import attributed, kept, penalised, received_power
from beamforge.classical.links.wmmse import SharedPower, unit_power
from beamforge.core.instance import Instance
from beamforge.learned.links.sized import Sized, bound_problem, ordered, restored

DEPTH = 4
"""K, T and D."""

WIDTH = 128
"""Width of the three hidden layers of psi."""

PENALTY = 0.01
"""beta divided by the number of links."""

LIMIT = 6.0
"""Largest correction of a positive quantity, in nats."""

LABEL_STARTS = 4
"""Starts of the search for labels, where the data have none."""


class NeuralSumRate(Sized):
    """Weighted sum rate of L links under one total power, in K = T = D = 4 layers; O(L^2) each.

    With gains ``A_lj = G_lj P / noise_l``, weights w that sum to one, and ``p = z = 1/L``, ``mu = 0`` at first::

        q_l = p_l sum_i w_i A_il / (sum_j A_ij p_j + 1)              k = 1..K    corrected by psi(p, n, w, A)
            x_l = sum_{j != l} A_lj p_j + 1                          d = 1..D    psi(A diag(p), n)
            y_l = beta (p_l - z_l + mu_l) + sum_{i != l} w_i A_il / x_i          psi(p, z, mu, A^T diag(w / x))
            p_l = q_l / y_l, at most the whole power
          z = p + mu - (sum(p + mu) - 1)_+ / L                       t = 1..T    psi(p, mu)
          mu = mu + p - z                                                        psi(p, z, mu)

    and ``p / sum p`` at the end. Links are sorted by their direct gains. The networks are zero at first, so training
    starts from a few iterations of Algorithm 1. It minimises ``|p - p*|^2 / |p*|^2``, the paper's loss (18) relative to
    the labels p*: those of the data, or else the best of a few local optima.

    shared  one psi for all layers of a kind, as in the shipped weights (with L = 64, a twelfth of the parameters); else
            one for each k, for each (t, d), and for each t, as published.

    Source: S. Chen, C. W. Tan, "Neural sum rate maximization for AI-native wireless networks", NetAISys 2024,
    Algorithm 2. Corrections of the classical updates, instead of replacements, are ours.

    >>> from beamforge.scenarios.power_control import Weak
    >>> instance = Weak(links=4).sample(2)
    >>> solution = NeuralSumRate().solve(bound_problem(instance)[0], instance)
    >>> solution.W.abs().square().sum((-2, -1)).round(decimals=3)
    tensor([2., 2.])
    """

    model = "neural-sum-rate"

    def __init__(self, checkpoint: str = "shipped", links: int = 4, shared: bool = True) -> None:
        super().__init__(checkpoint, links, shared=shared)

    def network(self, links: int, **settings: Any) -> nn.Module:
        return Unrolled(links, **settings)

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean of ``|p - p*|^2 / |p*|^2``; metrics: accuracy ``1 - |p - p*| / |p*|`` and share of the rate of p*."""
        problem, data = bound_problem(instance)
        if "p" in instance.labels:
            best = instance.labels["p"] / data.power.unsqueeze(-1)
        else:
            with torch.no_grad():
                solution = ManyStarts(LABEL_STARTS, tolerance=1e-7, max_iterations=300).solve(
                    problem, instance.observation.network
                )
            best = data.shares(solution.W)
        found = self.shares(data)
        error = (found - best).square().sum(-1) / best.square().sum(-1)
        with torch.no_grad():
            rate, reference = (data.rate(p.unsqueeze(-2)).squeeze(-1) for p in (found, best))
        figures = {"power_accuracy": 1 - error.detach().sqrt().mean(), "share_of_rate": (rate / reference).mean()}
        return error.mean(), figures


class Unrolled(nn.Module):
    """Algorithm 2 for L links: `SharedPower` to shares [B, L]."""

    def __init__(self, links: int, shared: bool = True) -> None:
        super().__init__()
        outer, middle, inner = (1, 1, 1) if shared else (DEPTH, DEPTH, DEPTH * DEPTH)

        def several(count: int, vectors: int, matrix: bool = True) -> nn.ModuleList:
            return nn.ModuleList(Psi(links, vectors, matrix) for _ in range(count))

        self.q, self.x, self.y = several(outer, 3), several(inner, 1), several(inner, 4)
        self.z, self.mu = several(middle, 2, False), several(middle, 3, False)

    def forward(self, data: SharedPower) -> Tensor:
        data, order = ordered(data)
        L, w = data.direct.shape[-1], data.weights
        A = data.cross + torch.diag_embed(data.direct)
        tiny = torch.finfo(A.dtype).tiny ** 0.5
        noise = -(data.direct / L).clamp_min(tiny).log()  # relative to the link's own gain, at equal powers
        see_q, see_x = ([contracted(psi, A / L) for psi in part] for part in (self.q, self.x))
        see_y = [contracted(psi, A.mT / L) for psi in self.y]
        ones = torch.ones_like(w)
        p = z = ones / L
        mu = torch.zeros_like(p)
        for k in range(DEPTH):
            i = k % len(self.q)
            q = attributed(data, w, p) * factor(self.q[i]([p * L, noise, w * L], see_q[i], ones))
            for t in range(DEPTH):
                for d in range(DEPTH):
                    i = (t * DEPTH + d) % len(self.x)
                    x = received_power(data, p) * factor(self.x[i]([noise], see_x[i], p * L))
                    y = PENALTY * L * (p - z + mu) + penalised(data, w, x)
                    y = y * factor(self.y[i]([p * L, z * L, mu * L, noise], see_y[i], w * L / x))
                    p = q / torch.maximum(y, q).clamp_min(tiny)
                i = t % len(self.z)
                z = kept(p + mu) + self.z[i]([p * L, mu * L]) / L
                mu = mu + p - z + self.mu[i]([p * L, z * L, mu * L]) / L
        return restored(unit_power(p.clamp_min(0).sqrt()).square(), order)


class Psi(nn.Module):
    """psi: maps vectors [B, L] and a matrix [B, L, L] with scaled columns to L numbers; zero at initialisation.

    The first layer is linear, so its product with the matrix is computed once for all scales: see `contracted`.
    """

    def __init__(self, links: int, vectors: int, matrix: bool) -> None:
        super().__init__()
        self.vectors = nn.Linear(links * vectors, WIDTH)
        self.matrix = nn.Linear(links * links, WIDTH, bias=False) if matrix else None
        self.hidden = nn.Sequential(
            nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, links)
        )
        for parameter in self.hidden[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, vectors: Sequence[Tensor], seen: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
        """[B, L]; `seen` is the result of `contracted` for the matrix."""
        first = self.vectors(torch.cat([*vectors], -1))
        if seen is not None and scale is not None:
            first = torch.baddbmm(first.unsqueeze(-1), seen, scale.unsqueeze(-1)).squeeze(-1)
        return self.hidden(first)


def contracted(psi: nn.Module, matrix: Tensor) -> Tensor:
    """``C`` [B, 128, L]: psi's first layer maps the matrix [B, L, L] with columns scaled by s to ``C s``."""
    assert isinstance(psi, Psi) and psi.matrix is not None
    return torch.einsum("hlj,blj->bhj", psi.matrix.weight.unflatten(-1, matrix.shape[-2:]), matrix)


def factor(correction: Tensor) -> Tensor:
    """A positive factor between exp(-`LIMIT`) and exp(`LIMIT`)."""
    return correction.clamp(-LIMIT, LIMIT).exp()
