"""A uniform planar array with local scattering: the paths of a user are a cluster around one direction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.scenarios.base import (
    Scenario,
    complex_normal,
    from_decibels,
    require,
    require_positive,
    uniform,
)


@dataclass(frozen=True)
class UPA(Scenario):
    """Spatially correlated Rayleigh channels of a half-wavelength planar array, with SINR targets to meet.

    ``h_k = R_k^(1/2) z_k`` with ``z_k ~ CN(0, I)`` and ``R_k = R_x(phi_k) ⊗ R_y(theta_k)``, columns first (antenna n =
    column * rows + row); on either axis, with spread s in radians,

        ``[R(phi)]_mn = e^{j pi (m-n) sin phi} / (1 + (s pi (m-n) cos phi)^2 / 2)``,

    the correlation of a Laplacian cluster of small angular spread. phi_k is uniform within ±60° and theta_k within
    ±45°. The rows of ``H`` [B, K, N] are ``h_k^H``; the noise is 1, so powers are relative to the noise. Targets are
    uniform in decibels.

    ``context``: ``p_max`` [B] and ``sinr_target`` [B, K] (linear). Raises `ConfigError` for fields out of range.

    Source: A. Forenza, D. Love, R. Heath, IEEE Trans. Veh. Technol. 56 (2007), for each axis. The hybrid beamforming
    paper does not state sizes and ranges; they are a reconstruction of its setup.

    >>> instance = UPA(users=3).sample(count=2)
    >>> instance.truth.channel.shape
    torch.Size([2, 3, 32])
    """

    users: int = 4
    columns: int = 8
    rows: int = 4
    angular_spread_deg: float = 10.0
    p_max: float = 100.0
    target_low_db: float = 0.0
    target_high_db: float = 10.0

    def __post_init__(self) -> None:
        require_positive(self, "users", "columns", "rows", "p_max")
        require(self.angular_spread_deg >= 0, "angular_spread_deg", "at least 0", self.angular_spread_deg)
        ordered = self.target_low_db <= self.target_high_db
        require(ordered, "target_low_db", f"at most target_high_db ({self.target_high_db:g})", self.target_low_db)

    @property
    def antennas(self) -> int:
        """N, all elements of the array."""
        return self.columns * self.rows

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {
            "direction": uniform(generator, 2, self.users),
            "target": uniform(generator, self.users),
            "fading": complex_normal(generator, self.users, self.columns, self.rows),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        across, along = (square_root(R) for R in self._axes(draws))
        h = (across @ draws["fading"] @ along.mT).flatten(-2)
        target_db = self.target_low_db + (self.target_high_db - self.target_low_db) * draws["target"]
        return Instance.perfect(
            Network.broadcast(h.conj().resolve_conj(), 1.0),
            p_max=target_db.new_full((len(h),), self.p_max),
            sinr_target=from_decibels(target_db),
        )

    def covariance(self, draws: dict[str, Tensor]) -> Tensor:
        """``R_x ⊗ R_y`` [B, K, N, N]."""
        across, along = self._axes(draws)
        product = torch.einsum("...ac,...bd->...abcd", across, along)
        return product.flatten(-2).flatten(-3, -2)

    def _axes(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """R_x [B, K, columns, columns] and R_y [B, K, rows, rows]."""
        spread = math.radians(self.angular_spread_deg)
        azimuth, elevation = (2 * draws["direction"] - 1).unbind(-2)
        return (
            axis_correlation(math.radians(60) * azimuth, spread, self.columns),
            axis_correlation(math.radians(45) * elevation, spread, self.rows),
        )


def axis_correlation(angle: Tensor, spread: float, antennas: int) -> Tensor:
    """``[R]_mn = e^{j pi (m-n) sin a} / (1 + (s pi (m-n) cos a)^2 / 2)`` [..., n, n] for angles a [...], radians."""
    n = torch.arange(antennas, dtype=angle.dtype)
    apart = torch.pi * (n[:, None] - n)
    angle = angle[..., None, None]
    return torch.polar(1 / (1 + (spread * apart * angle.cos()).square() / 2), apart * angle.sin())


def square_root(R: Tensor) -> Tensor:
    """Hermitian square root [..., n, n] of positive semidefinite matrices; negative eigenvalues (rounding) become 0."""
    values, vectors = torch.linalg.eigh(R)
    return (vectors * values.clamp_min(0).sqrt().unsqueeze(-2)) @ vectors.mH
