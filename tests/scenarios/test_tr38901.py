"""TR 38.901 scenarios against the formulas of the standard in NumPy."""

import sys

import numpy as np
import pytest
import torch

from beamforge.core.errors import ConfigError
from beamforge.scenarios import tr38901
from beamforge.scenarios.base import seeded
from beamforge.scenarios.tr38901 import CDL, RMa, UMa, UMi

GHZ = 3.5


@pytest.fixture(scope="module", autouse=True)
def first_import():
    """State of the global generator before and after Sionna is loaded."""
    before = torch.get_rng_state()
    try:
        tr38901._tr38901()
    except ConfigError as error:
        pytest.skip(str(error))
    return before, torch.get_rng_state()


def element_gain_db(azimuth, zenith):
    """Table 7.3-1, degrees in the array's frame."""
    vertical, horizontal = np.minimum(12 * ((zenith - 90) / 65) ** 2, 30), np.minimum(12 * (azimuth / 65) ** 2, 30)
    return 8 - np.minimum(vertical + horizontal, 30)


def angles(scenario, position):
    """Azimuth and zenith (degrees) in the frame of an array tilted down by the scenario's downtilt; distance (m)."""
    x, y, z = np.moveaxis(position - np.array([0, 0, scenario.height]), -1, 0)
    tilt = np.radians(scenario.downtilt)
    forward, up = x * np.cos(tilt) - z * np.sin(tilt), x * np.sin(tilt) + z * np.cos(tilt)
    distance = np.sqrt(x**2 + y**2 + z**2)
    return np.degrees(np.arctan2(y, forward)), np.degrees(np.arccos(up / distance)), distance


def path_loss_db(name, distance, sight):
    """Table 7.4.1-1 for users at 1.5 m, all nearer than the break point."""
    log_d, log_f = np.log10(distance), np.log10(GHZ)
    if name == "RMa":  # building height 5 m, street width 20 m
        clear = 20 * np.log10(40 * np.pi * distance * GHZ / 3) + min(0.03 * 5**1.72, 10) * log_d
        clear += -min(0.044 * 5**1.72, 14.77) + 0.002 * np.log10(5) * distance
        blocked = 161.04 - 7.1 * np.log10(20) + 7.5 * np.log10(5) - (24.37 - 3.7 * (5 / 35) ** 2) * np.log10(35)
        blocked += (43.42 - 3.1 * np.log10(35)) * (log_d - 3) + 20 * log_f - (3.2 * np.log10(11.75 * 1.5) ** 2 - 4.97)
    elif name == "UMa":
        clear, blocked = 28 + 22 * log_d + 20 * log_f, 13.54 + 39.08 * log_d + 20 * log_f
    else:
        clear, blocked = 32.4 + 21 * log_d + 20 * log_f, 35.3 * log_d + 22.4 + 21.3 * log_f
    return clear if sight else np.maximum(clear, blocked)


def gain_db(instance):
    return 10 * np.log10((instance.truth.channel.abs() ** 2).mean(-1).numpy())


CELLS = [(UMa, 4.0, 6.0), (UMi, 4.0, 7.82), (RMa, 4.0, 8.0)]


@pytest.mark.parametrize(("cell", "sight_std", "blocked_std"), CELLS)
@pytest.mark.parametrize("sight", [True, False])
def test_gains_follow_the_path_loss_and_shadowing_of_the_standard(cell, sight_std, blocked_std, sight):
    scenario = cell(indoor=0.0, line_of_sight=sight)
    instance = scenario.sample(50, seed=1)
    azimuth, zenith, distance = angles(scenario, instance.context["user_position"].double().numpy())
    excess = gain_db(instance) + path_loss_db(cell.__name__, distance, sight) - element_gain_db(azimuth, zenith)
    std = sight_std if sight else blocked_std
    if cell is RMa:  # users outdoors are in cars, with a loss of N(9, 5^2) dB
        excess, std = excess + 9, np.hypot(std, 5)
    # without line of sight, scattering averages the pattern over angles, and fading lowers the mean in dB
    assert -1 < excess.mean() < 1 if sight else -4 < excess.mean() < 2
    assert std - 0.7 < excess.std() < std + 2.5


def test_penetration_loss_is_that_of_the_standard_below_six_gigahertz():
    """Table 7.4.3-3: 20 dB, and 0.5 dB per metre over U(0, 25) metres; a user's height gains 0.3 dB per metre."""

    def excess(scenario):
        instance = scenario.sample(60, seed=2)
        position = instance.context["user_position"].double().numpy()
        azimuth, zenith, distance = angles(scenario, position)
        loss = path_loss_db("UMi", distance, False) - 0.3 * (position[..., 2] - 1.5)
        return (gain_db(instance) + loss - element_gain_db(azimuth, zenith)).mean()

    outdoors, indoors = (excess(UMi(indoor=share, line_of_sight=False)) for share in (0.0, 1.0))
    assert outdoors - indoors == pytest.approx(20 + 0.5 * 12.5, abs=1.5)


@pytest.mark.parametrize(
    "scenario", [UMa(users=3), RMa(users=2), CDL("C", users=3)], ids=lambda scenario: type(scenario).__name__
)
def test_an_instance_depends_on_seed_and_index_alone(scenario):
    batch = scenario.sample(5, seed=4)
    tr38901._cell_model.cache_clear()  # as in a new process, without earlier drops
    torch.testing.assert_close(scenario.sample(2, seed=4, first=3).truth.H, batch.truth.H[3:], rtol=0, atol=0)
    assert not torch.equal(scenario.sample(1, seed=5).truth.H, batch.truth.H[:1])
    assert not torch.equal(batch.truth.H[0], batch.truth.H[1])


def test_random_states_of_the_caller_are_unchanged():
    from sionna.phy import config

    states = lambda: (torch.get_rng_state(), config.torch_rng("cpu").get_state())  # noqa: E731
    before = states()
    UMi(users=2).sample(1)
    CDL(users=2).sample(1)
    assert all(torch.equal(a, b) for a, b in zip(before, states(), strict=True))


def test_loading_sionna_does_not_change_the_global_generator(first_import):
    before, after = first_import
    assert torch.equal(before, after)


@pytest.mark.parametrize("cell", [UMa, UMi, RMa])
def test_users_are_uniform_in_the_sector_beyond_the_least_distance(cell):
    scenario = cell(users=400)
    draws = scenario.draw(torch.Generator().manual_seed(0))
    object.__setattr__(scenario, "_channel", lambda position, indoor, seed: torch.ones(400, 1, dtype=torch.complex64))
    x, y, z = scenario.build({name: value[None] for name, value in draws.items()}).context["user_position"][0].T
    distance, azimuth = torch.hypot(x, y), torch.rad2deg(torch.atan2(y, x))
    assert distance.min() >= scenario.least_distance and distance.max() <= scenario.radius
    assert azimuth.abs().max() <= 60
    area = (distance**2 - scenario.least_distance**2) / (scenario.radius**2 - scenario.least_distance**2)
    assert abs(area.mean() - 0.5) < 0.06 and abs(azimuth.mean()) < 6
    assert z.max() <= (1.5 if cell is RMa else 22.5) and z.min() == 1.5


def test_the_sector_has_the_area_of_a_third_of_a_hexagon():
    assert np.pi * UMa().radius ** 2 / 3 == pytest.approx(np.sqrt(3) / 2 * 500**2 / 3)


def test_noise_and_power_are_those_of_twenty_megahertz():
    instance = UMa(users=2).sample(2)
    torch.testing.assert_close(instance.truth.noise, torch.full((2, 2), 1.380649e-23 * 290 * 20e6 * 10**0.9))
    torch.testing.assert_close(instance.context["p_max"], torch.full((2,), 10**1.9))


@pytest.mark.parametrize("profile", ["D", "E"])
def test_line_of_sight_links_have_the_user_s_azimuth(profile):
    """Tables 7.7.1-4 and -5: the direct ray departs at azimuth 0, zenith 98.5 (D) or 99.6 (E); K = 13.3 or 22 dB."""
    scenario = CDL(profile, users=6)
    draws = [scenario.draw(seeded(3, index)) for index in range(4)]
    azimuth = torch.stack([each["azimuth"] for each in draws]).numpy()
    H = scenario.sample(4, seed=3).truth.channel.numpy()
    zenith = np.radians({"D": 98.5, "E": 99.6}[profile])
    column, row = np.divmod(np.arange(32), 4)
    left, up = np.sin(azimuth) * np.sin(zenith), np.cos(zenith)
    steering = np.exp(1j * np.pi * (left[..., None] * column - up * row))
    power = (np.abs(H) ** 2).mean(-1)
    assert np.median(np.abs((H * steering.conj()).mean(-1)) ** 2 / power) > 0.9
    expected = element_gain_db(np.degrees(azimuth), np.degrees(zenith))
    assert abs(np.median(10 * np.log10(power) - expected)) < 1


def test_profiles_without_line_of_sight_have_unit_energy_with_an_isotropic_array(monkeypatch):
    panel = tr38901._panel
    monkeypatch.setattr(tr38901, "_panel", lambda rows, columns, _, carrier: panel(rows, columns, "omni", carrier))
    H = CDL("B", users=100).sample(4).truth.channel
    assert (H.abs() ** 2).mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("fields", [{"users": 0}, {"indoor": 1.5}, {"carrier": 3.5}])
def test_fields_out_of_range_are_refused(fields):
    with pytest.raises(ConfigError, match=f"^{next(iter(fields))} must be"):
        UMa(**fields)


def test_a_missing_package_is_named(monkeypatch):
    hide_sionna(monkeypatch)
    monkeypatch.setitem(sys.modules, "sionna", None)
    with pytest.raises(ConfigError, match=r"pip install 'beamforge\[channels\]'"):
        tr38901._tr38901.__wrapped__()


def test_a_missing_llvm_is_named(monkeypatch, tmp_path):
    hide_sionna(monkeypatch)
    (tmp_path / "sionna.py").write_text("raise ImportError('the LLVM backend is inactive')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="apt-get install libllvm19"):
        tr38901._tr38901.__wrapped__()


def hide_sionna(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sionna"]:
        monkeypatch.delitem(sys.modules, name)
