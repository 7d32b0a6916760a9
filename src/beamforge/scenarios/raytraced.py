"""Ray-traced channels: a rooftop base station in the centre of Munich, through Sionna RT.

The base station stands on a 6 m mast at the north edge of the New Town Hall's roof and looks over Marienhof. Users are
dropped uniformly, at 1.5 m height, over the outdoor area that it serves: the square in line of sight, the streets that
lead away from it by reflections, and the squares behind by diffraction at roof edges. Everything is traced at the
carrier (line of sight, specular reflections and first-order diffraction, four interactions at most; walls are opaque),
and a channel is the narrowband response there, the coherent sum over the paths

    h_kn = sum_i a_kni exp(-j 2 pi f tau_ki),

a dimensionless amplitude gain, so watts in are watts out.

Needs `pip install 'beamforge[raytracing]'`, and LLVM 19 where there is no CUDA device. 250 snapshots come with the
package (`data/munich.npz`, described in `data/munich.md`), so reading them needs neither.

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
"""Metres in the scene's frame, x east and y north."""
AZIMUTH, DOWNTILT = math.radians(70.0), math.radians(10.0)
"""Boresight, counter-clockwise from east and below the horizon: square to the facade."""
USER_HEIGHT = 1.5
LEAST_GAIN = 1e-13
"""A user whose gain per antenna is below this is out of coverage and is not taken."""
MAP_CELL, MAP_ORIGIN, MAP_SIZE = 2.0, (-250.0, -150.0), 300
"""The map is MAP_SIZE x MAP_SIZE square cells; its lower left corner is MAP_ORIGIN; all in metres."""


@dataclass(frozen=True)
class Munich(Scenario):
    """Snapshots of one base station with a planar array and `users` single-antenna users in Munich's centre.

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
        """More places than users, since a place in a served cell may still be out of coverage."""
        places = self.users + self.users // 4 + 4
        served = len(_served_cells())
        return {
            "cell": torch.randint(served, (places,), generator=generator),
            "offset": uniform(generator, places, 2),
        }

    def build(self, draws: dict[str, Tensor]) -> Instance:
        """Trace every place of an instance and keep the first `users` that are in coverage."""
        plane = _served_cells()[draws["cell"]] + MAP_CELL * (draws["offset"] - 0.5)
        places = torch.cat([plane, torch.full_like(plane[..., :1], USER_HEIGHT)], -1).float()
        H, position = zip(*(self._snapshot(place) for place in places), strict=True)
        p_max = torch.full((len(H),), self.p_max)
        network = Network.broadcast(torch.stack(H), thermal_noise(BANDWIDTH, NOISE_FIGURE_DB))
        return Instance.perfect(network, p_max=p_max, user_position=torch.stack(position))

    def _snapshot(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """One call of the tracer for each instance, so that nothing depends on its neighbours."""
        H = trace(places, self.rows, self.columns)
        covered = (H.abs().square().mean(-1) >= LEAST_GAIN).nonzero().squeeze(-1)[: self.users]
        if len(covered) < self.users:
            raise ConfigError(f"only {len(covered)} of {len(places)} places are in coverage, expected {self.users}")
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
    """The map of the site that comes with the package: roof heights and the area that the base station serves.

    ``x``, ``y`` [300] are the cells' centres (metres), ``height`` [300, 300] the roof above each (rows are y; 0 is
    open ground), ``served`` the open cells, a cell away from any wall, whose mean gain is above -120 dB.
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
    """Height of whatever stands at (x, y), seen from above, to a centimetre; 0 is open ground."""
    import mitsuba as mi

    sky = 200.0
    above = mi.Point3f(x.ravel(), y.ravel(), np.full(x.size, sky))
    hit = _scene().mi_scene.ray_intersect(mi.Ray3f(above, mi.Vector3f(0.0, 0.0, -1.0)))
    return np.round(sky - np.array(hit.t), 2).reshape(x.shape).astype(np.float32) + 0.0


@cache
def site() -> dict[str, np.ndarray]:
    """The committed `survey`, for placing users and for drawing a map; needs no Sionna.

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
    """The Munich scene with the base station in it, loaded once."""
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
    """`sionna.rt`, or a `ConfigError` that says what to install: an LLVM that is too old would abort the process."""
    try:
        import drjit
    except ImportError as error:
        raise ConfigError("ray-traced scenes need Sionna RT: pip install 'beamforge[raytracing]'") from error
    version = drjit.detail.llvm_version()
    if version[0] < 19 and not drjit.has_backend(drjit.JitBackend.CUDA):
        found = f"LLVM {version[0]}" if version[0] > 0 else "none"
        raise ConfigError(
            f"ray tracing without CUDA needs LLVM 19 or newer, found {found}: apt-get install libllvm19 "
            "(and point DRJIT_LIBLLVM_PATH at it if it lies outside the usual places)"
        )
    try:
        import sionna.rt
    except ImportError as error:
        raise ConfigError("ray-traced scenes need Sionna RT: pip install 'beamforge[raytracing]'") from error
    return sionna.rt
