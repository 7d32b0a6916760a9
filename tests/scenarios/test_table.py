"""Scenarios by name: configuration from strings, the nearest name for a wrong one, no import of Sionna."""

import subprocess
import sys

import pytest

from beamforge.core.errors import ConfigError
from beamforge.scenarios import SCENARIOS, Fairness, PilotCSI, Rayleigh, UMa, scenario, summary


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_name_gives_its_scenario_and_has_a_summary(name):
    assert type(scenario(name)) is SCENARIOS[name]
    assert summary(name).endswith(".") and len(summary(name)) > 30


def test_strings_are_converted_to_the_type_of_the_field():
    made = scenario("rayleigh", users="5", snr_db="3", correlation="0.25")
    assert made == Rayleigh(users=5, snr_db=3.0, correlation=0.25)
    assert type(made.users) is int and type(made.snr_db) is float
    assert scenario("strong", random_weights="yes").random_weights is True


def test_optional_fields_take_none_or_a_value():
    assert scenario("uma", line_of_sight="true").line_of_sight is True
    assert scenario("uma", line_of_sight="none") == UMa()


def test_nested_fields_have_dotted_names():
    made = scenario("fairness", users=6, **{"path_loss.slope_db": "40"})
    assert made.path_loss.slope_db == 40.0 and made.path_loss.intercept_db == 32.4
    assert made.users == 6 and made.antennas == Fairness().antennas


def test_a_nested_scenario_is_replaced_by_name_in_any_order():
    expected = PilotCSI(Fairness(users=3), pilot_low_db=-10.0)
    changes = {"channels.users": "3", "pilot_low_db": "-10", "channels": "fairness"}
    assert scenario("pilot-csi", **changes) == expected
    assert scenario("pilot-csi", **dict(reversed(changes.items()))) == expected


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("raleigh", {}, "unknown scenario 'raleigh'; did you mean 'rayleigh'?"),
        ("rayleigh", {"user": 3}, "unknown field of Rayleigh 'user'; did you mean 'users'?"),
        ("rayleigh", {"users": "many"}, "setting users must be int, got 'many'"),
        ("rayleigh", {"users": "2.5"}, "setting users must be int, got '2.5'"),
        ("rayleigh", {"users.x": 1}, "unknown field of Rayleigh 'users.x'"),
        ("cell", {"path_loss.slop_db": 1}, "unknown field of PathLoss 'slop_db'; did you mean 'slope_db'?"),
        ("cell", {"path_loss": "free"}, "field path_loss must be set field by field"),
        ("pilot-csi", {"channels": "upaa"}, "unknown scenario 'upaa'; did you mean 'upa'?"),
        ("pilot-csi", {"channels": "strong"}, "channels must be a scenario with a known covariance, got 'Strong'"),
        ("strong", {"random_weights": "perhaps"}, "setting random_weights must be bool, got 'perhaps'"),
        ("weak", {"name": "strong"}, "unknown field of Weak 'name'"),
        ("upa", {"antennas": 3}, "unknown field of UPA 'antennas'"),
    ],
)
def test_a_wrong_setting_is_refused_with_a_helpful_message(name, changes, message):
    with pytest.raises(ConfigError) as caught:
        scenario(name, **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("rayleigh", {"users": 0}),
        ("rayleigh", {"antennas": -1}),
        ("rayleigh", {"correlation": 1.0}),
        ("rayleigh", {"gain_spread_db": -1.0}),
        ("cell", {"least_distance": 250.0}),
        ("cell", {"least_distance": -1.0}),
        ("cell", {"least_distance": 0.0, "height": 1.5}),
        ("cell", {"radius": float("nan")}),
        ("cell", {"p_max": float("inf")}),
        ("cell", {"shadowing_db": -3.0}),
        ("cell", {"rician_factor": -0.1}),
        ("interference", {"cross_gain": -0.2}),
        ("interference", {"cells": 0}),
        ("strong", {"least_coupling": 0.9, "most_coupling": 0.1}),
        ("weak", {"noise": 0.0}),
        ("upa", {"rows": 0}),
        ("upa", {"target_low_db": 11.0}),
        ("upa", {"angular_spread_deg": -1.0}),
        ("pilot-csi", {"pilot_low_db": 21.0}),
    ],
)
def test_a_field_out_of_range_is_named_in_the_message(name, changes):
    with pytest.raises(ConfigError, match=f"^{'|'.join(changes)} must be .*, got "):
        scenario(name, **changes)


def test_the_table_needs_no_sionna():
    program = """
import sys
for name in ("sionna", "mitsuba", "drjit"):
    sys.modules[name] = None
from beamforge.scenarios import SCENARIOS, scenario, summary
assert all(summary(name) and scenario(name).describe() for name in SCENARIOS)
try:
    scenario("uma").sample(1)
except Exception as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ConfigError"
