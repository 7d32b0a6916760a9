"""Maximum signal power of one base station subject to bounds on the interference power at other users.

For a base station with power limit P and a bound c_j on the interference power at user j (noise one)::

    maximise |h_k^H w|   subject to   |h_j^H w|^2 <= c_j  for all j != k,   |w|^2 <= P

With ``a_j = h_j sqrt(P / c_j)``, w in units of sqrt(P) and ``g = h_k / |h_k|``, the dual is to minimise
``g^H B^-1 g + sum_i l_i`` over multipliers ``l >= 0``, where ``B = l_k I + sum_{j != k} l_j a_j a_j^H`` and l_k is the
multiplier of the power limit. At the optimum ``w = B^-1 g``.

Source: the decentralised beamforming paper's Eqs. 7 and 13; R. Zhang, S. Cui, "Cooperative interference management with
MISO beamforming", IEEE Trans. Signal Process. 58 (2010).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.network import squared_magnitude

LEAST = 1e-10
"""Smallest bound, relative to the power that the user receives with full power in the direction of its channel."""

STEPS = 30
"""Steps of the interior-point method; about 20 reach rounding errors."""


class Strongest(NamedTuple):
    """Solution of the problem.

    W       beams [..., N] in sqrt(W).
    signal  ``|h_k^H w|^2`` [...] in units of the noise.
    slope   derivatives [..., K] of the signal with respect to the bounds, 0 for the served user.
    gap     relative duality gap [...], a bound on the suboptimality of the signal.
    """

    W: Tensor
    signal: Tensor
    slope: Tensor
    gap: Tensor


def strongest(H: Tensor, serves: Tensor, power: Tensor, bounds: Tensor) -> Strongest:
    """Optimal beams of any number of independent base stations, by an interior-point method in min(N, K) dimensions.

    H       complex [..., K, N], rows h_j^H in units of the square root of the noise.
    serves  integers [...]: the served user.
    power   [...] watts, positive.
    bounds  [..., K] on the interference power in units of the noise; that of the served user is ignored.

    Computed in double precision. A base station without a channel to its user gets a zero beam. Beams are linear
    combinations of the channels, so the cost of a step does not depend on N.

    >>> H = torch.tensor([[1.0 + 0j, 0.0], [1.0, 1.0]])
    >>> found = strongest(H, torch.tensor(0), torch.tensor(1.0), torch.tensor([0.0, 0.0]))
    >>> round(found.signal.item(), 3), (H @ found.W).abs().round(decimals=3).tolist()
    (0.5, [0.7070000171661377, 0.0])
    """
    kind, H = H.dtype, H.to(torch.complex128)
    K = H.shape[-2]
    power, bounds = power.double(), bounds.double()
    Q, R = torch.linalg.qr(H.mH)  # the columns of R are the channels h_j in coordinates
    gain = squared_magnitude(H).sum(-1)
    mine = torch.arange(K, device=H.device) == serves.unsqueeze(-1)
    g = (R * mine.unsqueeze(-2)).sum(-1)
    size = squared_magnitude(g).sum(-1).sqrt()
    heard = size > 0
    g = g / torch.where(heard, size, 1).unsqueeze(-1)
    g = torch.where(heard.unsqueeze(-1), g, torch.ones_like(g) / g.shape[-1] ** 0.5)
    most = power.unsqueeze(-1) * gain
    share = torch.where(most > 0, bounds.clamp_min(0) / torch.where(most > 0, most, 1), 1).clamp_min(LEAST)
    scale = torch.where(gain > 0, (share * torch.where(gain > 0, gain, 1)).rsqrt(), 0)
    A = (R * scale.unsqueeze(-2)).masked_fill(mine.unsqueeze(-2), 0)
    inner, multipliers, used = solved(A, g, mine)
    z = inner / used.amax(-1, keepdim=True).clamp_min(1e-300).sqrt()
    reached = (g.conj() * z).sum(-1).real
    bound = ((g.conj() * inner).sum(-1).real + multipliers.sum(-1)) / 2
    W = power.sqrt().unsqueeze(-1) * (Q @ z.unsqueeze(-1)).squeeze(-1)
    amplitude = power.sqrt() * size * reached
    per_bound = most * share
    slope = power.sqrt().unsqueeze(-1) * size.unsqueeze(-1) * multipliers * amplitude.unsqueeze(-1)
    slope = slope / torch.where(per_bound > 0, per_bound, 1)
    real = torch.float64 if kind == torch.complex128 else torch.float32
    W = torch.where(heard.unsqueeze(-1), W, 0).to(kind)
    return Strongest(
        W,
        torch.where(heard, amplitude.square(), 0).to(real),
        torch.where(heard.unsqueeze(-1) & ~mine, slope, 0).to(real),
        torch.where(heard, (bound / reached).square() - 1, 0).to(real),
    )


def solved(A: Tensor, g: Tensor, mine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Beams z [..., M], multipliers [..., K] and constraint values ``|a_i^H z|^2`` [..., K] (``|z|^2`` at `mine`).

    Primal-dual interior-point steps for ``s = 1 - used(l)`` and ``l s = mu`` with positive l and s and decreasing mu.
    The multiplier at `mine` is that of the power limit.
    """
    M = A.shape[-2]
    eye = torch.eye(M, dtype=A.dtype, device=A.device)

    def at(multipliers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Beams, constraint values, and the derivatives ``-d used_i / d l_j / 2``."""
        ridge = (multipliers * mine).sum(-1)[..., None, None]
        B = ridge * eye + (A * multipliers.unsqueeze(-2)) @ A.mH
        factor = torch.linalg.cholesky_ex(B)[0]
        z = torch.cholesky_solve(g.unsqueeze(-1), factor)
        left = torch.where(mine.unsqueeze(-2), z, A * (A.mH @ z).mT)  # columns: a_i (a_i^H z), and z itself
        inside = torch.linalg.solve_triangular(factor, left, upper=False)
        whole = squared_magnitude(z.squeeze(-1)).sum(-1, keepdim=True)
        used = torch.where(mine, whole, squared_magnitude((A.mH @ z).squeeze(-1)))
        return z.squeeze(-1), used, (inside.mH @ inside).real

    multipliers = torch.ones_like(mine, dtype=torch.float64)
    used = at(multipliers)[1]
    multipliers = multipliers * used.amax(-1, keepdim=True).sqrt()
    slack = torch.full_like(multipliers, 0.5)
    for _ in range(STEPS):
        _, used, curve = at(multipliers)
        product = (multipliers * slack).mean(-1, keepdim=True)
        aim = torch.where((used + slack - 1).abs().amax(-1, keepdim=True) < 10 * product, 0.05, 0.3) * product
        matrix = 2 * curve + torch.diag_embed(slack / multipliers)
        change = torch.linalg.solve_ex(matrix, (aim / multipliers - 1 + used).unsqueeze(-1))[0].squeeze(-1)
        fill = (aim - slack * change) / multipliers - slack
        length = torch.minimum(room(multipliers, change), room(slack, fill))
        sound = torch.isfinite(change).all(-1, keepdim=True) & torch.isfinite(fill).all(-1, keepdim=True)
        multipliers = torch.where(sound, multipliers + length * change, multipliers)
        slack = torch.where(sound, slack + length * fill, slack)
    z, used, _ = at(multipliers)
    return z, multipliers, used


def room(value: Tensor, change: Tensor) -> Tensor:
    """Largest step [..., 1], at most 1, for which every positive value [..., K] keeps at least a hundredth."""
    shrinking = torch.where(change < 0, -0.99 * value / torch.where(change < 0, change, -1), torch.inf)
    return shrinking.amin(-1, keepdim=True).clamp_max(1)
