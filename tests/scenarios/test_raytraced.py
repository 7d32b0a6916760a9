"""The Munich channels of the package against physics, and the ray tracer against these channels."""

import json
import random
import re
import sys
from importlib import resources
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from beamforge.core.errors import ConfigError
from beamforge.scenarios import raytraced
from beamforge.scenarios.raytraced import Munich, site

DATA = resources.files("beamforge") / "data"
WAVELENGTH = 299_792_458 / 3.5e9
BASE_STATION = np.array([8.5, 21.0, 32.0])
YAW, PITCH = np.radians(70.0), np.radians(10.0)
# rows of the rotation are the array's axes in the map's frame: boresight, left, up
FORWARD = np.array([np.cos(YAW) * np.cos(PITCH), np.sin(YAW) * np.cos(PITCH), -np.sin(PITCH)])
LEFT = np.array([-np.sin(YAW), np.cos(YAW), 0.0])
UP = np.cross(FORWARD, LEFT)


@pytest.fixture(scope="module")
def munich():
    with (DATA / "munich.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return SimpleNamespace(**arrays)


@pytest.fixture(scope="module")
def sionna():
    try:
        return raytraced._sionna_rt()
    except ConfigError as error:
        pytest.skip(str(error))


def direction(munich):
    """Unit vectors to the users in the array's frame [B, K, 3], and distances [B, K]."""
    offset = munich.user_position.astype(float) - BASE_STATION
    distance = np.linalg.norm(offset, axis=-1)
    return offset / distance[..., None] @ np.stack([FORWARD, LEFT, UP]).T, distance


def friis(munich):
    """Free-space power gain of one element: TR 38.901 Table 7.3-1 and a vertical half-wave dipole, both written out."""
    unit, distance = direction(munich)
    azimuth, zenith = np.degrees(np.arctan2(unit[..., 1], unit[..., 0])), np.degrees(np.arccos(unit[..., 2]))
    vertical = np.minimum(12 * ((zenith - 90) / 65) ** 2, 30)
    horizontal = np.minimum(12 * (azimuth / 65) ** 2, 30)
    element = 10 ** ((8 - np.minimum(vertical + horizontal, 30)) / 10)
    cosine = (32.0 - 1.5) / distance
    dipole = 1.643 * (np.cos(np.pi / 2 * cosine) ** 2 / (1 - cosine**2))
    return element * dipole * (WAVELENGTH / (4 * np.pi * distance)) ** 2


def line_of_sight(position, clearance=0.3):
    """Whether the line to the base station is above all roofs of the map (the edge of its own roof excepted)."""
    step = np.linspace(0.03, 0.995, 600)
    line = BASE_STATION + (position[..., None, :] - BASE_STATION) * step[:, None]
    column, row = ((line[..., axis] - origin) // 2 for axis, origin in ((0, -250), (1, -150)))
    return (site()["height"][row.astype(int), column.astype(int)] < line[..., 2] - clearance).all(-1)


def gain(munich):
    return (np.abs(munich.H.astype(complex)) ** 2).mean(-1)


def test_the_file_follows_the_conventions(munich):
    assert munich.H.shape == (250, 16, 64) and munich.H.dtype == np.complex64
    assert munich.user_position.shape == (250, 16, 3)
    assert np.isfinite(munich.H).all() and np.isfinite(munich.user_position).all()
    np.testing.assert_allclose(munich.noise, 1.380649e-23 * 290 * 100e6 * 10**0.9, rtol=1e-6)
    assert munich.p_max == 0.25
    assert json.loads(str(munich.meta))["seed"] == 0


def test_users_are_apart_on_open_ground_within_the_map(munich):
    x, y, z = np.moveaxis(munich.user_position, -1, 0)
    np.testing.assert_array_equal(z, np.float32(1.5))
    cells = ((y + 150) // 2).astype(int), ((x + 250) // 2).astype(int)
    assert (site()["height"][cells] == 0).all() and site()["served"][cells].all()
    assert len(np.unique(munich.user_position.reshape(-1, 3), axis=0)) == 250 * 16


def test_the_base_station_is_six_metres_above_the_edge_of_a_roof():
    column, row = int((BASE_STATION[0] + 250) // 2), int((BASE_STATION[1] + 150) // 2)
    around = site()["height"][row - 2 : row + 3, column - 2 : column + 3]
    assert abs(site()["height"][row, column] - 26) < 0.1 and (around == 0).any()


def test_no_gain_exceeds_free_space_with_coherent_reflections(munich):
    ratio = gain(munich) / friis(munich)
    sight = line_of_sight(munich.user_position)
    assert 0.3 < sight.mean() < 0.9
    assert abs(10 * np.log10(np.median(ratio[sight]))) < 1
    assert np.quantile(ratio[sight], 0.99) < 4  # direct and ground-reflected ray in phase
    assert ratio[sight].max() < 9  # and a wall reflection, where the element pattern may be stronger
    _, distance = direction(munich)
    strongest = 10**0.8 * 1.643 * (WAVELENGTH / (4 * np.pi * distance)) ** 2
    guided = gain(munich)[~sight] / strongest[~sight]
    assert np.quantile(guided, 0.99) < 2
    assert guided.max() < 9  # a street is a waveguide: up to five rays of 0.4 to 0.65 of free space add in phase
    assert np.median(10 * np.log10(guided)) < -15
    assert gain(munich).min() >= 1e-13 * (1 - 1e-5)


def test_channels_in_sight_are_the_steering_vectors_of_the_geometry(munich):
    """Antenna n = column * 8 + row, columns from right to left, rows from top to bottom, half a wavelength apart."""
    unit, _ = direction(munich)
    column, row = np.divmod(np.arange(64), 8)
    phase = np.pi * (unit[..., 1:2] * (column - 3.5) + unit[..., 2:3] * (3.5 - row))
    match = np.abs((munich.H * np.exp(-1j * phase)).sum(-1)) ** 2 / (64**2 * gain(munich))
    sight = line_of_sight(munich.user_position)
    assert np.median(match[sight]) > 0.9
    assert np.median(match[~sight]) < 0.5


def test_the_numbers_of_the_data_card_are_correct(munich):
    card = (DATA / "munich.md").read_text()
    snr_db = 10 * np.log10((np.abs(munich.H) ** 2).sum(-1) * munich.p_max / munich.noise)
    normal = munich.H / np.linalg.norm(munich.H, axis=-1, keepdims=True)
    condition_db = 20 * np.log10(np.linalg.cond(normal.astype(complex)))
    rows = {"SNR": snr_db, "gain": 10 * np.log10(gain(munich)), "condition": condition_db}
    for name, values in rows.items():
        line = re.search(rf"^\| {name}[^|]*\|(.*)\|$", card, re.MULTILINE)
        stated = [float(cell) for cell in line[1].split("|")]
        np.testing.assert_allclose(stated, np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]), atol=0.06)


def test_snapshots_are_reproduced_from_seed_and_index_alone(munich, sionna):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    batch, alone = Munich().sample(2, seed=0, first=1), Munich().sample(1, seed=0, first=2)
    assert torch.equal(before[0], torch.get_rng_state()) and random.getstate() == before[2]
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])
    np.testing.assert_array_equal(batch.context["user_position"], munich.user_position[1:3])
    difference = np.linalg.norm(batch.truth.channel.numpy() - munich.H[1:3], axis=-1)
    assert np.median(difference / np.linalg.norm(munich.H[1:3], axis=-1)) < 1e-3  # another machine may miss a weak path
    scale = batch.truth.channel[1].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(alone.truth.channel[0] / scale, batch.truth.channel[1] / scale, rtol=0, atol=1e-4)
    torch.testing.assert_close(batch.context["p_max"], torch.full((2,), 0.25))


def test_the_map_is_that_of_the_scene(sionna):
    x, y = np.meshgrid(site()["x"][::7], site()["y"][::7])
    np.testing.assert_allclose(raytraced.roof_height(x, y), site()["height"][::7, ::7], atol=0.011)


def test_fewer_antennas_are_the_central_part_of_the_array(sionna):
    place = torch.tensor([[60.0, 90.0, 1.5]])
    large, small = (raytraced.trace(place, rows, 2).reshape(2, rows) for rows in (4, 2))
    torch.testing.assert_close(small, large[:, 1:3], rtol=1e-4, atol=1e-9)


def test_draws_need_no_sionna_and_are_uniform_over_the_served_area():
    generator = torch.Generator().manual_seed(0)
    draws = [Munich().draw(generator) for _ in range(2000)]
    cell = torch.cat([each["cell"] for each in draws])
    count = torch.bincount(cell, minlength=int(site()["served"].sum())).double()
    assert len(count) == site()["served"].sum()
    assert abs(count.var() / count.mean() - 1) < 0.1  # Poisson


@pytest.mark.parametrize(("version", "told"), [((15, 0, 6), "found LLVM 15"), ((-1, -1, -1), "found none")])
def test_a_missing_or_old_llvm_raises_before_the_process_can_abort(monkeypatch, version, told):
    backends = SimpleNamespace(CUDA="cuda")
    detail = SimpleNamespace(llvm_version=lambda: version)
    drjit = SimpleNamespace(detail=detail, has_backend=lambda backend: False, JitBackend=backends)
    monkeypatch.setitem(sys.modules, "drjit", drjit)
    with pytest.raises(ConfigError, match=rf"{told}: apt-get install libllvm19"):
        raytraced._sionna_rt.__wrapped__()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "drjit", None)
    with pytest.raises(ConfigError, match=r"pip install 'beamforge\[raytracing\]'"):
        raytraced._sionna_rt.__wrapped__()
