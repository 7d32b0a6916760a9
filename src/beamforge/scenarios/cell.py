"""One cell: users in a disc around their base station, with path loss, shadowing and fading."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.units import from_dbm
from beamforge.scenarios.base import (
    Scenario,
    complex_normal,
    from_decibels,
    require,
    require_positive,
    uniform,
)


@dataclass(frozen=True)
class PathLoss:
    """``PL = intercept + frequency_slope log10(f / GHz) + slope log10(d / m)`` dB at carrier f and distance d.

    The defaults are those of the optional non-line-of-sight model of the urban microcell.

    Source: 3GPP TR 38.901, Table 7.4.1-1.

    >>> round(PathLoss().decibels(torch.tensor(100.0), 2e9).item(), 2)
    102.22
    """

    intercept_db: float = 32.4
    slope_db: float = 31.9
    frequency_slope_db: float = 20.0

    def decibels(self, distance: Tensor, frequency: float) -> Tensor:
        """Path loss in dB at `distance` metres and `frequency` hertz."""
        return (
            self.intercept_db + self.frequency_slope_db * math.log10(frequency / 1e9) + self.slope_db * distance.log10()
        )


@dataclass(frozen=True)
class Cell(Scenario):
    """Users uniform over a disc, with path loss, log-normal shadowing, Rayleigh or Rician fading and a link budget.

    ``h_k = sqrt(g_k) (sqrt(F/(1+F)) e^{j psi_k} a(phi_k) + sqrt(1/(1+F)) z_k)``, ``z_k ~ CN(0, I)``; the rows of ``H``
    [B, K, N] are ``h_k^H``, amplitude gains in natural units (1e-5 and less).

    Users are uniform in area between the ground distances `least_distance` and `radius`;
    ``10 log10 g_k = -PL(d_k) - shadowing_db * N(0, 1)`` with the three-dimensional distance d_k between the antennas.
    F is `rician_factor`, linear, 0 for Rayleigh fading. ``a(phi)_n = e^{j pi n sin phi}`` is the steering vector of a
    half-wavelength uniform linear array along y at azimuth phi from the x axis. Heights and distances are in metres,
    `frequency` in hertz, `p_max` in watts.

    ``context``: ``p_max`` [B] and ``user_position`` [B, K, 3]. Raises `ConfigError` for fields out of range.

    >>> instance = Cell(users=4).sample(count=2, seed=0)
    >>> instance.context["user_position"].shape
    torch.Size([2, 4, 3])
    """

    users: int = 8
    antennas: int = 16
    radius: float = 250.0
    least_distance: float = 10.0
    height: float = 10.0
    user_height: float = 1.5
    frequency: float = 3.5e9
    path_loss: PathLoss = field(default_factory=PathLoss)
    shadowing_db: float = 8.2
    rician_factor: float = 0.0
    p_max: float = 10.0
    noise_dbm: float = -92.0

    def __post_init__(self) -> None:
        require_positive(self, "users", "antennas", "radius", "frequency", "p_max")
        require(0 <= self.least_distance < self.radius, "least_distance", "in [0, radius)", self.least_distance)
        require(self.shadowing_db >= 0, "shadowing_db", "at least 0", self.shadowing_db)
        require(self.rician_factor >= 0, "rician_factor", "at least 0", self.rician_factor)
        if self.least_distance == 0:
            expected = "different from user_height if least_distance is 0"
            require(self.height != self.user_height, "height", expected, self.height)

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {
            "area": uniform(generator, self.users),
            "azimuth": uniform(generator, self.users),
            "shadowing": torch.randn(self.users, dtype=torch.float64, generator=generator),
            "phase": uniform(generator, self.users),
            "fading": complex_normal(generator, self.users, self.antennas),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        angle = 2 * torch.pi * draws["phase"].unsqueeze(-1)
        line_of_sight = torch.polar(torch.full_like(angle, math.sqrt(self.rician_factor)), angle) * self._steering(
            draws
        )
        fading = (line_of_sight + draws["fading"]) / math.sqrt(1 + self.rician_factor)
        h = self._gain(draws).sqrt().unsqueeze(-1) * fading
        network = Network.broadcast(h.conj().resolve_conj(), from_dbm(self.noise_dbm))
        p_max = draws["area"].new_full((len(h),), self.p_max)
        return Instance.perfect(network, p_max=p_max, user_position=self._position(draws))

    def covariance(self, draws: dict[str, Tensor]) -> Tensor:
        """``g_k (F a a^H + I) / (1 + F)`` [B, K, N, N], given positions and shadowing."""
        a = self._steering(draws)
        eye = torch.eye(self.antennas, dtype=a.dtype)
        spread = (self.rician_factor * a.unsqueeze(-1) * a.conj().unsqueeze(-2) + eye) / (1 + self.rician_factor)
        return self._gain(draws)[..., None, None] * spread

    def _position(self, draws: dict[str, Tensor]) -> Tensor:
        """Positions of the users [B, K, 3], metres; the base station is at (0, 0, height)."""
        inner, outer = self.least_distance**2, self.radius**2
        ground = (inner + (outer - inner) * draws["area"]).sqrt()
        azimuth = 2 * torch.pi * draws["azimuth"]
        return torch.stack(
            [ground * azimuth.cos(), ground * azimuth.sin(), torch.full_like(ground, self.user_height)], -1
        )

    def _gain(self, draws: dict[str, Tensor]) -> Tensor:
        """Path gains with shadowing, linear [B, K]."""
        base = torch.tensor([0.0, 0.0, self.height], dtype=torch.float64)
        distance = (self._position(draws) - base).norm(dim=-1)
        loss_db = self.path_loss.decibels(distance, self.frequency) + self.shadowing_db * draws["shadowing"]
        return from_decibels(-loss_db)

    def _steering(self, draws: dict[str, Tensor]) -> Tensor:
        """``a(phi_k)`` [B, K, N]."""
        angle = torch.pi * (2 * torch.pi * draws["azimuth"]).sin().unsqueeze(-1) * torch.arange(self.antennas)
        return torch.polar(torch.ones_like(angle), angle)


@dataclass(frozen=True)
class Fairness(Cell):
    """The cell of the fairness-controlled beamforming paper: 16 antennas, 12 users within 500 m, 10 W, no shadowing.

    The paper gives arrays, radius, carrier and power. Path loss, noise and least distance are reconstructed from its
    weighted SLNR table (sum rate 30.5 to 15.3 bit/s/Hz for alpha from 0 to 5), which this cell reproduces within 2 %.
    Everything else is as in `Cell`.

    >>> Fairness().sample(count=1).truth.channel.shape
    torch.Size([1, 12, 16])
    """

    users: int = 12
    antennas: int = 16
    radius: float = 500.0
    frequency: float = 2e9
    shadowing_db: float = 0.0
    noise_dbm: float = -85.8
