"""Channels of 3GPP TR 38.901 through Sionna: UMa, UMi and RMa cells, and CDL-A to E links.

A cell is one 120 degree sector: a base station with a planar array at the origin, with boresight along x, and K users
dropped uniformly in an annular sector (a third of the disc with the area of the hexagonal cell). Some users are
indoors. The model includes path loss, shadow fading, penetration loss and small-scale fading, and no interference from
other cells. A channel is the narrowband response at the carrier: the sum of the path coefficients, an amplitude gain.

Needs `pip install 'beamforge[channels]'`. Sionna draws from its own generator: it is seeded from the draws of each
instance, and its state is restored afterwards.

Source: 3GPP TR 38.901 V19.2, "Study on channel model for frequencies from 0.5 to 100 GHz": Tables 7.2-1 and 7.2-3
(drops), 7.3-1 (elements), 7.4.1-1 (path loss), 7.4.3 (walls: the low-loss model, below 6 GHz Table 7.4.3-3), 7.7.1
(CDL), 7.8-1 (powers).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.units import from_dbm, thermal_noise
from beamforge.scenarios.base import Scenario, require, require_positive, uniform

SECTOR = math.radians(120.0)
BANDWIDTH = 20e6
"""Hertz; the transmit power and the noise are those of the whole band."""
NOISE_FIGURE_DB = 9.0


@dataclass(frozen=True)
class _Cell(Scenario):
    """A sector of a cell; `UMa`, `UMi` and `RMa` set its parameters."""

    users: int = 8
    rows: int = 4
    columns: int = 8
    carrier: float = 3.5e9
    indoor: float = 0.8
    line_of_sight: bool | None = None

    intersite_distance: ClassVar[float]
    height: ClassVar[float]
    least_distance: ClassVar[float]
    downtilt: ClassVar[float]
    power_dbm: ClassVar[float]
    floors: ClassVar[tuple[int, int] | None] = (4, 8)

    def __post_init__(self) -> None:
        require_positive(self, "users", "rows", "columns")
        require(0.5e9 <= self.carrier <= 100e9, "carrier", "in 0.5e9..100e9 hertz", self.carrier)
        require(0 <= self.indoor <= 1, "indoor", "in [0, 1]", self.indoor)

    @property
    def antennas(self) -> int:
        """N, all elements of the array."""
        return self.rows * self.columns

    @property
    def radius(self) -> float:
        """Radius of the disc with the area of the hexagonal cell, metres."""
        return self.intersite_distance * math.sqrt(math.sqrt(3) / (2 * math.pi))

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Random numbers for the positions of the users, and the seed of the fading."""
        names = ("area", "azimuth", "indoor", "building", "floor")
        return {name: uniform(generator, self.users) for name in names} | {"fading": _fading_seed(generator)}

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Positions for all instances at once, then the channels by Sionna for each instance."""
        inner = (self.least_distance / self.radius) ** 2
        distance = self.radius * (inner + (1 - inner) * draws["area"]).sqrt()
        azimuth = SECTOR * (draws["azimuth"] - 0.5)
        indoor = draws["indoor"] < self.indoor
        height = torch.full_like(distance, 1.5)
        if self.floors:
            low, high = self.floors
            storeys = low + (draws["building"] * (high - low + 1)).floor()
            height = height + torch.where(indoor, 3 * (draws["floor"] * storeys).floor(), 0.0)
        position = torch.stack([distance * azimuth.cos(), distance * azimuth.sin(), height], -1).float()
        drops = zip(position, indoor, draws["fading"].tolist(), strict=True)
        H = torch.stack([self._channel(*drop) for drop in drops])
        p_max = torch.full(H.shape[:1], from_dbm(self.power_dbm))
        network = Network.broadcast(H, thermal_noise(BANDWIDTH, NOISE_FIGURE_DB))
        return Instance.perfect(network, p_max=p_max, user_position=position)

    def _channel(self, position: Tensor, indoor: Tensor, seed: int) -> Tensor:
        """H [K, N] of one drop."""
        zeros = torch.zeros(1, self.users, 3)
        with _sionna_seed(seed):
            model = _cell_model(type(self).__name__, self.rows, self.columns, self.carrier)
            model.reset_topology()  # otherwise indoor distances etc. of the previous drop are kept
            model.set_topology(
                ut_loc=position[None],
                bs_loc=torch.tensor([[[0.0, 0.0, self.height]]]),
                ut_orientations=zeros,
                bs_orientations=torch.tensor([[[0.0, math.radians(self.downtilt), 0.0]]]),
                ut_velocities=zeros,
                in_state=indoor[None],
                los="random" if self.line_of_sight is None else self.line_of_sight,
            )
            coefficients, _ = model(num_time_samples=1, sampling_frequency=1.0)
        return coefficients[0, :, 0, 0, :, :, 0].sum(-1)


@dataclass(frozen=True)
class UMa(_Cell):
    """Urban macrocell: 500 m between sites, base station at 25 m, 49 dBm in 20 MHz.

    ``H`` [B, K, N] complex64 is an amplitude gain with N = rows * columns vertically polarised elements (8 dBi, 65
    degrees) at a spacing of half a wavelength, antenna n = column * rows + row; users have one isotropic antenna. A
    fraction `indoor` of them is indoors, on the storeys of 4- to 8-storey buildings; `line_of_sight` sets the state of
    the users outdoors (default: drawn with the standard's probability). ``noise`` is kTBF with F = 9 dB; ``context``
    holds ``p_max`` [B] (watts) and ``user_position`` [B, K, 3] (metres). Raises `ConfigError` for fields out of range,
    and when Sionna is missing.

    >>> round(UMa().radius)
    263
    """

    intersite_distance: ClassVar[float] = 500.0
    height: ClassVar[float] = 25.0
    least_distance: ClassVar[float] = 35.0
    downtilt: ClassVar[float] = 10.0
    power_dbm: ClassVar[float] = 49.0


@dataclass(frozen=True)
class UMi(_Cell):
    """Urban microcell (street canyon): 200 m between sites, base station at 10 m, 44 dBm in 20 MHz; else as `UMa`.

    >>> round(UMi().radius)
    105
    """

    intersite_distance: ClassVar[float] = 200.0
    height: ClassVar[float] = 10.0
    least_distance: ClassVar[float] = 10.0
    downtilt: ClassVar[float] = 10.0
    power_dbm: ClassVar[float] = 44.0


@dataclass(frozen=True)
class RMa(_Cell):
    """Rural macrocell: 1732 m between sites, base station at 35 m, 49 dBm in 20 MHz; else as `UMa`.

    All users are at 1.5 m; half are indoors and the others in cars.

    >>> round(RMa().radius)
    909
    """

    indoor: float = 0.5

    intersite_distance: ClassVar[float] = 1732.0
    height: ClassVar[float] = 35.0
    least_distance: ClassVar[float] = 35.0
    downtilt: ClassVar[float] = 3.0
    power_dbm: ClassVar[float] = 49.0
    floors: ClassVar[tuple[int, int] | None] = None


@dataclass(frozen=True)
class CDL(Scenario):
    """Clustered-delay-line links A to E: the standard's angles and powers, without geometry and path loss.

    Every user is an independent link to the same array. Its clusters are those of the profile, rotated by the user's
    azimuth, which is uniform over the 120 degree sector (with the angles of the table alone, all users would be in one
    direction). The paths of an isotropic link have unit energy, so ``H`` [B, K, N] complex64 also includes the element
    gain (8 dBi at boresight); ``noise`` is one, and `p_max` is the power over the noise. ``context``: ``p_max`` [B].
    Raises `ConfigError` for fields out of range, and when Sionna is missing.

    >>> CDL(profile="F")
    Traceback (most recent call last):
        ...
    beamforge.core.errors.ConfigError: profile must be one of A, B, C, D, E, got 'F'
    """

    profile: str = "A"
    users: int = 8
    rows: int = 4
    columns: int = 8
    carrier: float = 3.5e9
    p_max: float = 10.0

    def __post_init__(self) -> None:
        require(self.profile in tuple("ABCDE"), "profile", "one of A, B, C, D, E", self.profile)
        require_positive(self, "users", "rows", "columns", "carrier", "p_max")

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The users' azimuths, and the seed of the phases."""
        azimuth = SECTOR * (uniform(generator, self.users) - 0.5)
        return {"azimuth": azimuth, "fading": _fading_seed(generator)}

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Links by Sionna, for each instance."""
        H = torch.stack(
            [self._channel(*links) for links in zip(draws["azimuth"], draws["fading"].tolist(), strict=True)]
        )
        return Instance.perfect(Network.broadcast(H, 1.0), p_max=torch.full(H.shape[:1], self.p_max))

    def _channel(self, azimuth: Tensor, seed: int) -> Tensor:
        """H [K, N]; rotating the array by minus the azimuth rotates the clusters by the azimuth."""
        orientation = torch.stack([-azimuth, torch.zeros_like(azimuth), torch.zeros_like(azimuth)], -1).float()
        with _sionna_seed(seed):
            model = _tr38901().CDL(
                self.profile,
                100e-9,  # delay spread; the response at the carrier does not depend on it
                self.carrier,
                ut_array=_panel(1, 1, "omni", self.carrier),
                bs_array=_panel(self.rows, self.columns, "38.901", self.carrier),
                bs_orientation=orientation,
                precision="single",
                device="cpu",
            )
            coefficients, _ = model(batch_size=self.users, num_time_steps=1, sampling_frequency=1.0)
        return coefficients[:, 0, 0, 0, :, :, 0].sum(-1)


def _fading_seed(generator: torch.Generator) -> Tensor:
    return torch.randint(2**63 - 1, (), generator=generator)


@contextmanager
def _sionna_seed(seed: int) -> Iterator[None]:
    """Seed Sionna's own CPU generator for one instance; restore its state at exit."""
    _tr38901()
    from sionna.phy import config

    generator = config.torch_rng("cpu")
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


@cache
def _cell_model(name: str, rows: int, columns: int, carrier: float) -> Any:
    """Sionna's model UMa, UMi or RMa; its topology is set for each drop."""
    indoor_loss = {} if name == "RMa" else {"o2i_model": "low"}
    return getattr(_tr38901(), name)(
        carrier_frequency=carrier,
        ut_array=_panel(1, 1, "omni", carrier),
        bs_array=_panel(rows, columns, "38.901", carrier),
        direction="downlink",
        precision="single",
        device="cpu",
        **indoor_loss,
    )


@cache
def _panel(rows: int, columns: int, pattern: str, carrier: float) -> Any:
    return _tr38901().PanelArray(
        num_rows_per_panel=rows,
        num_cols_per_panel=columns,
        polarization="single",
        polarization_type="V",
        antenna_pattern=pattern,
        carrier_frequency=carrier,
        precision="single",
        device="cpu",
    )


@cache
def _tr38901() -> Any:
    """`sionna.phy.channel.tr38901`; its import reseeds PyTorch's global generators, so their state is restored."""
    try:
        with torch.random.fork_rng():
            from sionna.phy.channel import tr38901
    except ModuleNotFoundError as error:
        raise ConfigError("TR 38.901 channels need Sionna: pip install 'beamforge[channels]'") from error
    except ImportError as error:  # Sionna also loads its ray tracer if that is installed
        raise ConfigError("Sionna with Sionna RT needs LLVM 19 or newer: apt-get install libllvm19") from error
    return tr38901
