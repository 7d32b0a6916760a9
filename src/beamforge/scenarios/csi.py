"""Imperfect channel knowledge: channels of a scenario with known covariance, estimated from noisy pilots."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.scenarios.base import (
    Scenario,
    complex_normal,
    from_decibels,
    require,
    uniform,
)
from beamforge.scenarios.upa import UPA


@dataclass(frozen=True)
class PilotCSI(Scenario):
    """Channels estimated from noisy pilots: beams are computed for the estimate and scored on the true channels.

    The pilot observation is ``y_k = h_k + n_k / sqrt(rho_k)`` with ``n_k ~ CN(0, I)`` and rho_k the pilot power over
    the noise. Its linear MMSE estimate is ``R_k (R_k + I/rho_k)^-1 y_k``, with the error
    ``E|h - estimate|^2 = tr(R - R (R + I/rho)^-1 R)``.

    The pilot power is the same for all users of an instance, uniform in dBW between `pilot_low_db` and `pilot_high_db`;
    rho_k is this power over the noise of user k, assumed equal in uplink and downlink. `channels` is any scenario of
    one transmitter with a known `covariance` (I for i.i.d. channels).

    ``truth`` and context are those of `channels`. The observation has the estimates; its ``context`` also has
    ``csi_quality`` [B, K] (rho) and ``covariance`` [B, K, N, N] (R). Raises `ConfigError` for channels without a known
    covariance.

    Source: the hybrid beamforming paper's Eq. 55, reconstructed.

    >>> instance = PilotCSI(UPA(users=2, columns=4, rows=2)).sample(count=5)
    >>> sorted(instance.context)
    ['covariance', 'csi_quality', 'p_max', 'sinr_target']
    """

    channels: Scenario = field(default_factory=UPA)
    pilot_low_db: float = 0.0
    pilot_high_db: float = 20.0

    def __post_init__(self) -> None:
        known = type(self.channels).covariance is not Scenario.covariance
        require(known, "channels", "a scenario with a known covariance", type(self.channels).__name__)
        ordered = self.pilot_low_db <= self.pilot_high_db
        require(ordered, "pilot_low_db", f"at most pilot_high_db ({self.pilot_high_db:g})", self.pilot_low_db)

    @property
    def users(self) -> int:
        """K, users of `channels`."""
        return cast(Any, self.channels).users

    @property
    def antennas(self) -> int:
        """N, antennas of `channels`."""
        return cast(Any, self.channels).antennas

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The draws of `channels` come first, so that the true channels are the same with and without pilots."""
        return self.channels.draw(generator) | {
            "pilot_power": uniform(generator),
            "pilot_noise": complex_normal(generator, self.users, self.antennas),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        instance = self.channels.build(draws)
        network, R = instance.truth, self.channels.covariance(draws)
        power_db = self.pilot_low_db + (self.pilot_high_db - self.pilot_low_db) * draws["pilot_power"]
        quality = from_decibels(power_db).unsqueeze(-1) / network.noise
        observed = network.channel.conj() + draws["pilot_noise"] / quality.sqrt().unsqueeze(-1)
        seen = Network.broadcast(mmse_estimate(observed, R, quality).conj().resolve_conj(), network.noise)
        return Instance.estimated(network, seen, **{**instance.context, "csi_quality": quality, "covariance": R})

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"channels": self.channels.describe()}


def mmse_estimate(observed: Tensor, R: Tensor, quality: Tensor) -> Tensor:
    """``R (R + I/rho)^-1 y`` [..., N] from observations y [..., N], covariances R [..., N, N] and rho [...].

    It is computed as ``R (rho R + I)^-1 (rho y)``: in any units the eigenvalues of ``rho R + I`` are at least one.

    >>> mmse_estimate(torch.tensor([2.0 + 0j]), torch.tensor([[1.0 + 0j]]), torch.tensor(3.0)).real.round(decimals=4)
    tensor([1.5000])
    """
    rho = quality.unsqueeze(-1)
    eye = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)
    factor = torch.linalg.cholesky(rho.unsqueeze(-1) * R + eye)
    return (R @ torch.cholesky_solve((rho * observed).unsqueeze(-1), factor)).squeeze(-1)
