"""Where to start powers of single-antenna links: which links lead, and which only have a faint rest."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from beamforge.classical.symmetry import Coupled, Exchange, tilt

FAINT = 0.1
"""Share of the power that a start leaves to the links that it does not favour."""


class Links(Protocol):
    """Gains in units of noise over power without their diagonal [B, L, L] (rx, tx), the diagonal, weights [B, L]."""

    @property
    def cross(self) -> Tensor:
        """Gains between links [B, L, L] (rx, tx), the diagonal zero."""
        raise NotImplementedError

    @property
    def direct(self) -> Tensor:
        """Gains of the links themselves [B, L]."""
        raise NotImplementedError

    @property
    def weights(self) -> Tensor:
        """Weights of the rates [B, L]."""
        raise NotImplementedError


def spread(data: Links, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Unlike starts [B, count, L], shares that sum to one: the more, the likelier is the best optimum among their ends.

    Equal powers, then those led by one link each, the best when alone first, and then equal powers on random subsets
    whose sizes are spread evenly on a logarithmic scale; always with a faint rest on the others. Which link leads
    decides most of which optimum is found: where interference is strong, sixteen starts find of 64 links what hundreds
    of random ones do. Without a `generator` the subsets are the same in every call.

    Among links that are alike and disturb each other, one leads in every start, so that no symmetry is kept.
    """
    return led(data, handed_out(data, patterns(data, count, generator)))


def led(data: Links, shares: Tensor) -> Tensor:
    """Shares [B, S, L] of one total power, equal ones first, in which links that are alike are told apart.

    In the first, where all links send at equal powers; in the others, where two that are alike send alone.
    """
    links = Coupled(data.cross, data.direct, data.weights)
    equal = torch.full_like(data.direct, 1 / data.direct.shape[-1])
    first = tilt(links, Exchange(equal, pooled=True, crowd=True), shares[:, :1])
    if first is None:
        return shares
    alone = Exchange(torch.full_like(equal, 0.5), pooled=True, crowd=False)
    rest = tilt(links, alone, shares[:, 1:])
    factors = first if rest is None else torch.cat([first, rest], 1)
    tilted = shares * factors
    return torch.where((factors < 1).any(-1, keepdim=True), tilted / tilted.sum(-1, keepdim=True), shares)


def patterns(data: Links, count: int, generator: torch.Generator | None) -> Tensor:
    """The starts of `spread` by rank, [count, L], which one draw makes for all instances."""
    L = data.direct.shape[-1]
    one = torch.eye(L, dtype=data.direct.dtype, device=data.direct.device)
    chosen = torch.cat([torch.ones_like(one[:1]), one])[:count]
    if count > L + 1:
        chosen = torch.cat([chosen, random_subsets(data.direct, count - L - 1, generator)])
    return (1 - FAINT) * chosen / chosen.sum(-1, keepdim=True) + FAINT / L


def random_subsets(like: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Ones and zeros [count, L] for L links, ``like`` [B, L]: subsets of sizes spread evenly on a logarithmic scale."""
    L = like.shape[-1]
    generator = generator or torch.Generator(like.device).manual_seed(0)
    draws = torch.rand(count, L + 1, generator=generator, dtype=torch.float64, device=generator.device)
    size, order = torch.pow(float(L), draws[:, :1]).round(), draws[:, 1:].argsort(-1).argsort(-1)
    return (order < size).to(like)


def handed_out(data: Links, ranked: Tensor) -> Tensor:
    """Shares [B, S, L] of what is ranked [S, L]: the first column to the link of the highest rate alone, and so on."""
    alone = data.weights * torch.log1p(data.direct)
    rank = alone.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    return ranked[:, rank].transpose(0, 1)
