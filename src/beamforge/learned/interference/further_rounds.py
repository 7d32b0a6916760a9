"""Beams for given prices of interference, for iterative message exchange.

A base station knows its Gram matrix ``H H^H``, a price q_j of interference at every user j, and the interference at its
own user. Both kinds of beams are ``w ∝ (sum_j q_j h_j h_j^H + nu I)^-1 h_k`` and differ in the equation for the power
price nu. Noise and power limit are one. Computations use the eigenvectors of ``q^1/2 H H^H q^1/2``, and derivatives
follow from implicit differentiation of the equation for nu.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from beamforge.classical.structure import Resolvent
from beamforge.core.network import own, squared_magnitude
from beamforge.learned.interference.local_view import taken

HALVINGS = 60
"""Bisections of the logarithm of the power price."""

Excess = Callable[[Tensor], Tensor]
"""Decreasing function of the power price [B, S, 1] whose zero is the solution."""


def least_squares(gram: Tensor, prices: Tensor, b: Tensor, serves: Tensor) -> Tensor:
    """Coefficients c [B, S, K] of the beams ``H^H c`` of WMMSE::

        max 2 b Re(h_k^H w) - sum_j q_j |h_j^H w|^2   over |w| <= 1,   so   w = b (sum_j q_j h_j h_j^H + nu I)^-1 h_k

    gram    ``H H^H`` [B, S, K, K].
    prices  q [B, S, K] of all users, including the served one.
    b       [B, S, 1], weight of the amplitude at the own user.

    Source: Q. Shi, M. Razaviyayn, Z.-Q. Luo, C. He, "An iteratively weighted MMSE approach to distributed sum-utility
    maximization for a MIMO interfering broadcast channel", IEEE Trans. Signal Process. 59 (2011), Eq. 15.
    """
    root = prices.clamp_min(torch.finfo(prices.dtype).tiny).sqrt()
    M, eigen = decomposed(gram, root)
    unit = torch.nn.functional.one_hot(serves, gram.shape[-1]).to(gram).expand(*gram.shape[:2], -1).unsqueeze(-1)
    rounding = 100 * torch.finfo(root.dtype).eps * eigen[0].amax(-1, keepdim=True)
    unit = eigen[1] @ ((eigen[0] > rounding).unsqueeze(-1) * (eigen[1].mH @ unit))  # the null space has no power
    length = b / taken(root, serves)
    energy = squared_magnitude((eigen[1].mH @ unit).squeeze(-1)) * eigen[0] * length.detach().square()

    def power(nu: Tensor) -> Tensor:
        return (energy / (eigen[0] + nu).square()).sum(-1, keepdim=True)

    nu = root_of(lambda nu: power(nu) - 1, eigen[0], energy.sum(-1, keepdim=True).sqrt())
    if torch.is_grad_enabled():
        z = Resolvent.apply(M, nu, unit, eigen).squeeze(-1)
        spent = length.square() * (z.conj() * (M @ z.unsqueeze(-1)).squeeze(-1)).real.sum(-1, keepdim=True)
        slope = 2 * (energy / (eigen[0] + nu) ** 3).sum(-1, keepdim=True)
        nu = nu + torch.where(power(nu) > 0.99, (spent - spent.detach()) / slope, 0)
    return length * root * Resolvent.apply(M, nu, unit, eigen).squeeze(-1)


def balancing(gram: Tensor, prices: Tensor, suffered: Tensor, serves: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients c [B, S, K] of the unit-norm beams ``H^H c`` that balance SINRs if the prices q are the powers of
    the dual uplink, and a flag [B, S, 1] of a positive power price, for which full power is optimal::

        w = unit((sum_{j != k} q_j h_j h_j^H + nu I)^-1 h_k),   sum_{j != k} q_j |h_j^H w|^2 + nu = q_k (1 + I_k)

    gram      ``H H^H`` [B, S, K, K].
    prices    q [B, S, K] of all users, including the served one.
    suffered  I [B, S, 1], interference at the served user.

    The second equation states that uplink and downlink have the same SINR. Source: W. Yu, T. Lan, "Transmitter
    optimization for the multi-antenna downlink with per-antenna power constraints", IEEE Trans. Signal Process. 55
    (2007), Theorem 1, here with a power limit per transmitter.
    """
    root = prices.clamp_min(torch.finfo(prices.dtype).tiny).sqrt()
    wanted = taken(prices, serves) * (1 + suffered)
    index = serves[None, :, None].expand(*gram.shape[:2], 1)
    root = root.scatter(-1, index, torch.zeros_like(wanted))
    column = gram.gather(-1, index.unsqueeze(-2).expand(-1, -1, gram.shape[-1], -1))
    y, gain = root.unsqueeze(-1) * column, taken(own(gram).real, serves)
    M, eigen = decomposed(gram, root)
    energy = squared_magnitude((eigen[1].mH @ y).squeeze(-1))

    def moments(nu: Tensor) -> tuple[Tensor, Tensor]:
        """``h^H (Q + nu)^-n h`` for n = 1 and 2."""
        first = (gain - (energy / (eigen[0] + nu)).sum(-1, keepdim=True)) / nu
        return first, (first - (energy / (eigen[0] + nu).square()).sum(-1, keepdim=True)) / nu

    def missing(nu: Tensor) -> Tensor:
        first, second = moments(nu.detach())
        return wanted - first / second.clamp_min(torch.finfo(first.dtype).tiny)

    nu = root_of(missing, eigen[0], wanted.detach())
    if torch.is_grad_enabled():
        z = Resolvent.apply(M, nu, y, eigen).squeeze(-1)
        first = (gain - (y.squeeze(-1).conj() * z).real.sum(-1, keepdim=True)) / nu
        second = (first - squared_magnitude(z).sum(-1, keepdim=True)) / nu
        third = (second.detach() - (energy.detach() / (eigen[0] + nu) ** 3).sum(-1, keepdim=True)) / nu
        left, slope = wanted - first / second, 2 * first.detach() * third / second.detach().square() - 1
        inside = (left.detach().abs() < 0.01 * wanted.detach()) & (slope > 0)
        nu = nu + torch.where(inside, (left - left.detach()) / torch.where(inside, slope, 1), 0)
    z = Resolvent.apply(M, nu, y, eigen).squeeze(-1)
    c = torch.nn.functional.one_hot(serves, gram.shape[-1]).to(root) - root * z
    norm = (c.conj() * (gram @ c.unsqueeze(-1)).squeeze(-1)).real.sum(-1, keepdim=True)
    floor = torch.finfo(root.dtype).eps * gain
    least = torch.finfo(root.dtype).eps ** 0.5 * eigen[0].amax(-1, keepdim=True)
    return c * torch.where(floor > 0, norm.maximum(floor), 1).rsqrt(), nu.detach() > 2 * least


def decomposed(gram: Tensor, root: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """``M = diag(r) H H^H diag(r)``, and its eigenvalues and eigenvectors without derivatives."""
    M = root.unsqueeze(-1) * gram * root.unsqueeze(-2)
    with torch.no_grad():
        sound = torch.isfinite(M).all(-1).all(-1)[..., None, None]
        values, U = torch.linalg.eigh(torch.where(sound, M, 0))
    return M, (values.clamp_min(0), U)


@torch.no_grad()
def root_of(excess: Excess, values: Tensor, most: Tensor) -> Tensor:
    """Zero [B, S, 1] of `excess` between the rounding level of the eigenvalues and `most`, or the nearer bound."""
    tiny = torch.finfo(values.dtype).tiny ** 0.5
    low = (torch.finfo(values.dtype).eps ** 0.5 * values.amax(-1, keepdim=True)).clamp_min(tiny)
    high = most.maximum(low)
    for _ in range(HALVINGS):
        middle = low.sqrt() * high.sqrt()
        more = excess(middle) > 0
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return high
