"""Ray-traced channels: a rooftop base station in the centre of Munich, through Sionna RT.

The base station is on a 6 m mast at the north edge of the New Town Hall's roof and faces Marienhof. Users are dropped
uniformly, at a height of 1.5 m, over the outdoor area that it serves: the square in line of sight, the streets around
it by reflections, and the squares behind by diffraction at roof edges. Rays are traced at the carrier (line of sight,
specular reflections and first-order diffraction, at most four interactions; walls are opaque). A channel is the
narrowband response at the carrier, the coherent sum over the paths

    h_kn = sum_i a_kni exp(-j 2 pi f tau_ki),

a dimensionless amplitude gain: powers are in watts at the transmitter and at the users.

Sampling needs `pip install 'beamforge[raytracing]'`, and LLVM 19 without a CUDA device. 250 snapshots come with the
package (`data/munich.npz`, described in `data/munich.md`); reading them needs neither.

Source: Hoydis et al., "Sionna RT: Differentiable Ray Tracing for Radio Propagation Modeling", arXiv 2303.11103; the
Munich scene is built from OpenStreetMap data (© OpenStreetMap contributors, ODbL).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import torch
from torch import Tensor

from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.units import thermal_noise
from beamforge.scenarios.base import Scenario, require_positive, uniform

CARRIER = 3.5e9
"""Hertz."""
BANDWIDTH = 100e6
"""Hertz; the transmit power and the noise are those of the whole band."""
NOISE_FIGURE_DB = 9.0
BASE_STATION = (8.5, 21.0, 32.0)
"""Position in the frame of the scene, metres; x is east and y north."""
AZIMUTH, DOWNTILT = math.radians(70.0), math.radians(10.0)
"""Boresight, counter-clockwise from east and below the horizon; perpendicular to the facade."""
USER_HEIGHT = 1.5
LEAST_GAIN = 1e-13
"""Least power gain per antenna; users below it are out of coverage and are left out."""
MAP_CELL, MAP_ORIGIN, MAP_SIZE = 2.0, (-250.0, -150.0), 300
"""The map has MAP_SIZE x MAP_SIZE square cells of side MAP_CELL (metres); MAP_ORIGIN is its lower left corner."""


@dataclass(frozen=True)
class Munich(Scenario):
    """Snapshots of one base station with a planar array and `users` single-antenna users in the centre of Munich.

    The array has half-wavelength spacing and vertically polarised elements (TR 38.901 pattern, 8 dBi); a user has a
    vertical half-wave dipole. ``H`` [B, K, N] complex64 is an amplitude gain, antenna n = column * rows + row;
    ``noise`` is kTBF of a 100 MHz band at a noise figure of 9 dB; ``context`` holds ``p_max`` [B] (watts; by default
    24 dBm, a local-area base station of 3GPP TS 38.104) and ``user_position`` [B, K, 3] (metres). Raises `ConfigError`
    for fields out of range, and when Sionna RT or LLVM 19 is missing.

    >>> scenario = Munich(users=4)
    >>> sorted(scenario.draw(torch.Generator().manual_seed(0)))
    ['cell', 'offset']
    """

    users: int = 16
    rows: int = 8
    columns: int = 8
    p_max: float = 0.25

    def __post_init__(self) -> None:
        require_positive(self, "users", "rows", "columns", "p_max")

    @property
    def antennas(self) -> int:
        """N, all elements of the array."""
        return self.rows * self.columns

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """More positions than users, because a position in a served cell may be out of coverage."""
        places = self.users + self.users // 4 + 4
        served = len(_served_cells())
        return {
            "cell": torch.randint(served, (places,), generator=generator),
            "offset": uniform(generator, places, 2),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Trace all positions of an instance and keep the first `users` that are in coverage."""
        plane = _served_cells()[draws["cell"]] + MAP_CELL * (draws["offset"] - 0.5)
        places = torch.cat([plane, torch.full_like(plane[..., :1], USER_HEIGHT)], -1).float()
        H, position = zip(*(self._snapshot(place) for place in places), strict=True)
        p_max = torch.full((len(H),), self.p_max)
        network = Network.broadcast(torch.stack(H), thermal_noise(BANDWIDTH, NOISE_FIGURE_DB))
        return Instance.perfect(network, p_max=p_max, user_position=torch.stack(position))

    def _snapshot(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Channels and positions of one instance, traced alone so that it does not depend on other instances."""
        H = trace(places, self.rows, self.columns)
        covered = (H.abs().square().mean(-1) >= LEAST_GAIN).nonzero().squeeze(-1)[: self.users]
        if len(covered) < self.users:
            raise ConfigError(f"{self.users} positions must be in coverage, got {len(covered)} of {len(places)}")
        return H[covered], places[covered]


def trace(positions: Tensor, rows: int, columns: int) -> Tensor:
    """Channels [M, rows * columns] complex64 from the base station to users at `positions` [M, 3], metres."""
    rt = _sionna_rt()
    scene = _scene()
    scene.tx_array = _array(rt, rows, columns, "tr38901")
    names = [f"user {m}" for m in range(len(positions))]
    for name, position in zip(names, positions.tolist(), strict=True):
        scene.add(rt.Receiver(name, position=position))
    try:
        paths = rt.PathSolver(deterministic=True)(
            scene, max_depth=4, samples_per_src=1_000_000, refraction=False, diffraction=True
        )
        response = paths.cfr(frequencies=_float(0.0), normalize_delays=False, out_type="numpy")
    finally:
        for name in names:
            scene.remove(name)
    return torch.from_numpy(np.array(response[:, 0, 0, :, 0, 0], dtype=np.complex64))


def survey(samples: int = 100_000_000) -> dict[str, np.ndarray]:
    """The map of the site, computed anew: roof heights and the area that the base station serves.

    ``x``, ``y`` [300] are the centres of the cells (metres), ``height`` [300, 300] the roof height in each (rows are y;
    0 is open ground), ``served`` [300, 300] the open cells, not next to a wall, whose mean gain is above -120 dB.
    """
    rt = _sionna_rt()
    scene = _scene()
    scene.tx_array = _array(rt, 1, 1, "tr38901")
    side = MAP_CELL * MAP_SIZE
    gain = (
        rt.RadioMapSolver()(
            scene,
            center=[MAP_ORIGIN[0] + side / 2, MAP_ORIGIN[1] + side / 2, USER_HEIGHT],
            orientation=[0.0, 0.0, 0.0],
            size=[side, side],
            cell_size=[MAP_CELL, MAP_CELL],
            samples_per_tx=samples,
            max_depth=4,
            refraction=False,
            diffraction=True,
        )
        .path_gain.numpy()
        .squeeze(0)
    )
    x, y = (origin + MAP_CELL * (np.arange(MAP_SIZE) + 0.5) for origin in MAP_ORIGIN)
    height = roof_height(*np.meshgrid(x, y))
    roofed = np.pad(height > 0.1, 1, mode="edge")
    near_a_wall = np.lib.stride_tricks.sliding_window_view(roofed, (3, 3)).any((-2, -1))
    return {"x": x, "y": y, "height": height, "served": (gain > 1e-12) & ~near_a_wall}


def roof_height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the roof at (x, y), metres, rounded to a centimetre; 0 is open ground."""
    import mitsuba as mi

    sky = 200.0
    above = mi.Point3f(x.ravel(), y.ravel(), np.full(x.size, sky))
    hit = _scene().mi_scene.ray_intersect(mi.Ray3f(above, mi.Vector3f(0.0, 0.0, -1.0)))
    return np.round(sky - np.array(hit.t), 2).reshape(x.shape).astype(np.float32) + 0.0


@cache
def site() -> dict[str, np.ndarray]:
    """The `survey` that comes with the package, for placing users and for drawing a map; needs no Sionna.

    >>> site()["height"].shape
    (300, 300)
    """
    path = resources.files("beamforge") / "data" / "munich_site.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


@cache
def _served_cells() -> Tensor:
    """Centres [cells, 2] of the served cells, metres."""
    row, column = np.nonzero(site()["served"])
    return torch.from_numpy(np.stack([site()["x"][column], site()["y"][row]], -1))


@cache
def _scene() -> Any:
    """The Munich scene with the base station, loaded once."""
    rt = _sionna_rt()
    scene = rt.load_scene(rt.scene.munich, merge_shapes=True)
    scene.frequency = CARRIER
    scene.rx_array = _array(rt, 1, 1, "dipole")
    scene.add(rt.Transmitter("base station", position=BASE_STATION, orientation=[AZIMUTH, DOWNTILT, 0.0]))
    return scene


def _array(rt: Any, rows: int, columns: int, pattern: str) -> Any:
    return rt.PlanarArray(num_rows=rows, num_cols=columns, pattern=pattern, polarization="V")


def _float(value: float) -> Any:
    import drjit
    import mitsuba as mi

    return drjit.opaque(mi.Float, value)


@cache
def _sionna_rt() -> Any:
    """`sionna.rt`; `ConfigError` says what to install. LLVM is checked first: a version too old aborts the process."""
    try:
        import drjit
    except ImportError as error:
        raise ConfigError("ray-traced scenes need Sionna RT: pip install 'beamforge[raytracing]'") from error
    version = drjit.detail.llvm_version()
    if version[0] < 19 and not drjit.has_backend(drjit.JitBackend.CUDA):
        found = f"LLVM {version[0]}" if version[0] > 0 else "none"
        raise ConfigError(
            f"ray tracing without CUDA needs LLVM 19 or newer, found {found}: apt-get install libllvm19 "
            "(and set DRJIT_LIBLLVM_PATH to its path if it is not in a standard folder)"
        )
    try:
        import sionna.rt
    except ImportError as error:
        raise ConfigError("ray-traced scenes need Sionna RT: pip install 'beamforge[raytracing]'") from error
    return sionna.rt
