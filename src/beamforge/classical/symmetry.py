"""Starts that tell links apart which a network does not.

An iteration that treats all links alike keeps every symmetry of its start: of links that can be exchanged it ends with
all at equal powers, which may be a saddle point. So where such links had better take turns, one of them leads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core import batching

NEARLY = 1e-2
"""Relative difference up to which links count as alike: an iteration may stop before it notices less."""

HUSHED = 0.1
"""Share of its power that is left to a link whose like leads."""


class Coupled(NamedTuple):
    """Links in units of their noise: gains without their diagonal [B, L, L] (rx, tx), the diagonal, weights [B, L]."""

    cross: Tensor
    direct: Tensor
    weights: Tensor


class Exchange(NamedTuple):
    """How two links that are alike compare with one of them alone.

    powers  at which, [B, L].
    pooled  the one has the power of both, else its own.
    crowd   the other links send, too, with their powers; else they are silent.
    """

    powers: Tensor
    pooled: bool
    crowd: bool


def tilt(links: Coupled, exchange: Exchange, starts: Tensor) -> Tensor | None:
    """Factors [B, S, L] for the powers of starts [B, S, L], of which one of links that are rivals keeps its own.

    That is the strongest in the start, then the best alone, and the first only where both are equal. Without rivals,
    links that are alike of which one alone has a higher rate than two, there are no factors.
    """
    with torch.no_grad():
        like = alike(links)
        if like is None:
            return None
        places = like.flatten(1).any(-1).nonzero().squeeze(-1)
        part, like, exchange, some = batching.take((links, like, exchange, starts), places)
        yields = yielding(part, like & better_alone(part, exchange), some)
        return torch.ones_like(starts).index_put((places,), torch.where(yields, HUSHED, 1).to(starts))


def alike(links: Coupled) -> Tensor | None:
    """Which pairs [B, L, L] hardly differ in gain, weight, and all that they hear and cause; None if there are none."""
    found = near(links.direct).triu(1)
    if not found.any():
        return None
    for seen in (links.weights, links.cross.sum(-1), links.cross.sum(-2)):
        found = found & near(seen)
    return (found | found.mT) if found.any() else None


def near(x: Tensor) -> Tensor:
    """Which pairs of entries of x [B, L] hardly differ, [B, L, L]."""
    return (x.unsqueeze(-1) - x.unsqueeze(-2)).abs() <= NEARLY * x.unsqueeze(-1)


def better_alone(links: Coupled, exchange: Exchange) -> Tensor:
    """Boolean [B, L, L]: of two links the better one alone has a higher weighted rate than both together."""
    p, pooled, crowd = exchange
    direct, weights = links.direct.unsqueeze(-1), links.weights.unsqueeze(-1)
    one, other = p.unsqueeze(-1), p.unsqueeze(-2)
    disturbance = links.cross * other  # by the other
    third = (links.cross @ one - disturbance).clamp_min(0) if crowd else torch.zeros_like(disturbance)
    both = weights * torch.log1p(direct * one / (third + disturbance + 1))
    alone = weights * torch.log1p(direct * (one + other if pooled else one) / (third + 1))
    return torch.maximum(alone, alone.mT) > both + both.mT


def yielding(links: Coupled, rivals: Tensor, starts: Tensor) -> Tensor:
    """Which links of starts [B, S, L] yield to a rival that leads: all that are rivals [B, L, L] of one before them."""
    best = (links.weights * torch.log1p(links.direct)).argsort(dim=-1, descending=True, stable=True)
    best = best.unsqueeze(1).expand(starts.shape)
    strongest = starts.gather(-1, best).argsort(dim=-1, descending=True, stable=True)
    yields = torch.zeros_like(starts, dtype=torch.bool)
    each = torch.arange(len(starts), device=starts.device).unsqueeze(-1)
    for link in best.gather(-1, strongest).unbind(-1):  # [B, S]
        leads = ~yields.gather(-1, link.unsqueeze(-1))
        yields = yields | (rivals[each, link] & leads)
    return yields
