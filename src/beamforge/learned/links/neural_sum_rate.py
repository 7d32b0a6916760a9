"""Neural sum rate maximisation: Algorithm 1 unrolled into K x T x D layers, with networks that correct its updates.

Powers are shares that sum to one, and noise is one: see `SharedPower`. Every update is the classical one, and a network
psi corrects it, by a factor where the quantity is positive (q, x, y) and by a term where it is not (z, mu).
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
from beamforge.learned.links.sized import Sized, ordered, posed, restored

DEPTH = 4
"""K, T and D."""

WIDTH = 128
"""Of the three hidden layers of psi."""

PENALTY = 0.01
"""beta in units of the number of links."""

LIMIT = 6.0
"""Largest correction of a positive quantity, in nats."""

TEACHER = 4
"""Starts of the search for the powers to be learned."""


class NeuralSumRate(Sized):
    """Weighted sum rate of L links under one total power, in K = T = D = 4 layers; O(L^2) each.

    With gains ``A_lj = G_lj P / noise_l``, weights w that sum to one, and ``p = z = 1/L``, ``mu = 0`` at first::

        q_l = p_l sum_i w_i A_il / (sum_j A_ij p_j + 1)              k = 1..K    corrected by psi(p, n, w, A)
            x_l = sum_{j != l} A_lj p_j + 1                          d = 1..D    psi(A diag(p), n)
            y_l = beta (p_l - z_l + mu_l) + sum_{i != l} w_i A_il / x_i          psi(p, z, mu, A^T diag(w / x))
            p_l = q_l / y_l, at most the whole power
          z = p + mu - (sum(p + mu) - 1)_+ / L                       t = 1..T    psi(p, mu)
          mu = mu + p - z                                                        psi(p, z, mu)

    and ``p / sum p`` in the end. Links are put in the order of their direct gains. The networks start at zero, so that
    training begins with Algorithm 1 cut short. It minimises ``|p - p*|^2 / |p*|^2``, the paper's loss (18) relative to
    the powers p* to be learned: those that the data state, or else the best of a few local optima.

    shared  one psi for all layers of a kind, which is what the shipped weights are (with L = 64, a twelfth of the
            numbers); else one for each k, for each (t, d), and for each t, as published.

    Source: S. Chen, C. W. Tan, "Neural sum rate maximization for AI-native wireless networks", NetAISys 2024,
    Algorithm 2. That psi corrects the classical updates, and does not replace them, is ours.

    >>> from beamforge.scenarios.power_control import Weak
    >>> instance = Weak(links=4).sample(2)
    >>> solution = NeuralSumRate().solve(posed(instance)[0], instance)
    >>> solution.W.abs().square().sum((-2, -1)).round(decimals=3)
    tensor([2., 2.])
    """

    model = "neural-sum-rate"

    def __init__(self, weights: str = "shipped", links: int = 4, shared: bool = True) -> None:
        super().__init__(weights, links, shared=shared)

    def network(self, links: int, **settings: Any) -> nn.Module:
        return Unrolled(links, **settings)

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean of ``|p - p*|^2 / |p*|^2``; and of power accuracy ``1 - |p - p*| / |p*|`` and share of the rate."""
        problem, data = posed(instance)
        if "p" in instance.labels:
            best = instance.labels["p"] / data.power.unsqueeze(-1)
        else:
            with torch.no_grad():
                solution = ManyStarts(TEACHER, tolerance=1e-7, max_iterations=300).solve(
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
    """psi: some vectors [B, L], and a matrix [B, L, L] whose columns are scaled, to L numbers; zero at initialisation.

    The first layer is linear, so what it makes of the matrix is summed once and for all scales: see `contracted`.
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
        """[B, L]; `seen` is what `contracted` makes of the matrix."""
        first = self.vectors(torch.cat([*vectors], -1))
        if seen is not None and scale is not None:
            first = torch.baddbmm(first.unsqueeze(-1), seen, scale.unsqueeze(-1)).squeeze(-1)
        return self.hidden(first)


def contracted(psi: nn.Module, matrix: Tensor) -> Tensor:
    """``C`` [B, 128, L]: of a matrix [B, L, L] with its columns scaled by s, psi's first layer makes ``C s``."""
    assert isinstance(psi, Psi) and psi.matrix is not None
    return torch.einsum("hlj,blj->bhj", psi.matrix.weight.unflatten(-1, matrix.shape[-2:]), matrix)


def factor(correction: Tensor) -> Tensor:
    """A positive factor of at most `LIMIT` nats either way."""
    return correction.clamp(-LIMIT, LIMIT).exp()
