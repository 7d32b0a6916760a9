"""Rayleigh fading from one transmitter, optionally with unequal path gains and correlated antennas."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.units import from_db
from beamforge.scenarios.base import (
    Scenario,
    complex_normal,
    from_decibels,
    require,
    require_positive,
    uniform,
)


@dataclass(frozen=True)
class Rayleigh(Scenario):
    """Gaussian channels to K users at one transmit SNR, with p_max = 1 W and noise = 1/SNR watts.

    ``h_k = sqrt(g_k) R_k^(1/2) z_k`` with ``z_k ~ CN(0, I)``; the rows of ``H`` [B, K, N] are ``h_k^H``.

    The path gains g_k are uniform in decibels over an interval of width `gain_spread_db` centred at 0 dB. The antennas
    are correlated exponentially, ``[R_k]_mn = r^|m-n| e^{j theta_k (m-n)}``, with modulus r = `correlation` and a phase
    theta_k uniform on the circle. By default both are 0 and the entries are i.i.d. CN(0, 1).

    ``context``: ``p_max`` [B]. Raises `ConfigError` for fields out of range.

    Source of the correlation: S. Loyka, "Channel capacity of MIMO architecture using the exponential correlation
    matrix", IEEE Commun. Lett. 5 (2001).

    >>> instance = Rayleigh(users=4, antennas=6, snr_db=20.0).sample(count=3, seed=1)
    >>> instance.truth.channel.shape, instance.truth.noise[0, 0].item()
    (torch.Size([3, 4, 6]), 0.009999999776482582)
    """

    users: int = 8
    antennas: int = 8
    snr_db: float = 10.0
    gain_spread_db: float = 0.0
    correlation: float = 0.0

    def __post_init__(self) -> None:
        require_positive(self, "users", "antennas")
        require(self.gain_spread_db >= 0, "gain_spread_db", "at least 0", self.gain_spread_db)
        require(0 <= self.correlation < 1, "correlation", "in [0, 1)", self.correlation)

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {
            "fading": complex_normal(generator, self.users, self.antennas),
            "gain": uniform(generator, self.users),
            "phase": uniform(generator, self.users),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        h = draws["fading"]
        if self.correlation:
            h = correlated(h, self.correlation, draws["phase"])
        h = self._gain(draws).sqrt() * h
        network = Network.broadcast(h.conj().resolve_conj(), from_db(-self.snr_db))
        return Instance.perfect(network, p_max=draws["gain"].new_ones(len(h)))

    def covariance(self, draws: dict[str, Tensor]) -> Tensor:
        """``g_k R_k`` [B, K, N, N]."""
        a, n = steering(draws["phase"], self.antennas), torch.arange(self.antennas, dtype=torch.float64)
        modulus = self.correlation ** (n[:, None] - n).abs()
        return self._gain(draws).unsqueeze(-1) * a.unsqueeze(-1) * modulus * a.conj().unsqueeze(-2)

    def _gain(self, draws: dict[str, Tensor]) -> Tensor:
        """Path gains [B, K, 1]."""
        return from_decibels(self.gain_spread_db * (draws["gain"] - 0.5)).unsqueeze(-1)


def correlated(white: Tensor, modulus: Tensor | float, phase: Tensor) -> Tensor:
    """White entries [B, K, N], filtered to the covariance ``r^|m-n| e^{j theta (m-n)}`` between antennas m and n.

    r is `modulus` (a number, or [B]), theta is ``2 pi phase`` with `phase` [B, K]. The filter
    ``z_n = r z_{n-1} + sqrt(1 - r^2) w_n`` is the product with the Cholesky factor of the covariance, in N steps.
    """
    r = torch.as_tensor(modulus, dtype=phase.dtype, device=white.device).unsqueeze(-1)
    innovation = (1 - r.square()).sqrt()
    entries = [white[..., 0]]
    for antenna in range(1, white.shape[-1]):
        entries.append(r * entries[-1] + innovation * white[..., antenna])
    return steering(phase, white.shape[-1]) * torch.stack(entries, -1)


def steering(phase: Tensor, antennas: int) -> Tensor:
    """``e^{j 2 pi phase n}`` [..., N]: a phase step of `phase` turns (of 2 pi) from one antenna to the next."""
    angle = 2 * torch.pi * phase.unsqueeze(-1) * torch.arange(antennas, device=phase.device)
    return torch.polar(torch.ones_like(angle), angle)
