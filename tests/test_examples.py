"""The example `munich.py`: its beam patterns on the ray-traced channels, and a run with few iterations."""

import importlib.util
import shlex
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from beamforge.cli import main
from beamforge.scenarios.raytraced import BASE_STATION

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def munich():
    spec = importlib.util.spec_from_file_location("munich", EXAMPLES / "munich.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_beams_matched_to_users_in_line_of_sight_point_at_them(munich):
    with np.load(resources.files("beamforge") / "data" / "munich.npz") as file:
        H, position = file["H"][:20], file["user_position"][:20]
    gain = np.mean(np.abs(H) ** 2, -1)
    seen = gain > 10**-7.5
    assert seen.sum() > 50
    azimuth, power_db = munich.lobes(H[seen].conj().T)
    away = position[seen] - np.array(BASE_STATION)
    towards = np.arctan2(away[:, 1], away[:, 0])
    error = np.angle(np.exp(1j * (azimuth[power_db.argmax(0)] - towards)))
    # the 8 columns resolve 13 degrees; reflections can outweigh the direct path of a few
    assert np.median(np.abs(error)) < np.radians(3)
    assert np.mean(np.abs(error) < np.radians(13)) > 0.85


def test_one_antenna_radiates_the_element_pattern(munich):
    W = np.zeros((64, 1), complex)
    W[27] = 1
    azimuth, power_db = munich.lobes(W)
    boresight = np.abs(azimuth - munich.AZIMUTH).argmin()
    assert power_db[boresight, 0] == pytest.approx(0, abs=0.01)
    half = np.abs(azimuth - munich.AZIMUTH - np.radians(32.5)).argmin()
    assert power_db[half, 0] == pytest.approx(-3, abs=0.3)  # the beam width of TR 38.901 is 65 degrees
    assert power_db.min() == pytest.approx(-30, abs=0.01)


def test_the_example_writes_table_figures_and_solutions(munich, tmp_path, monkeypatch, capsys):
    quick = ("--set", "max_iterations=3", "--set", "starts=1")
    monkeypatch.setattr(munich, "JOBS", {"RZF": ("sum-rate", "rzf"), "WMMSE": ("sum-rate", "wmmse", *quick)})
    monkeypatch.setattr("sys.argv", ["munich.py", "--out", str(tmp_path / "demo")])
    munich.main()
    out = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"rzf.npz", "wmmse.npz", "rates.png", "beams.png"}
    with np.load(tmp_path / "demo" / "rzf.npz") as file:
        assert f"{file['rate'].sum(-1).mean():.1f}" in out
        assert file["W"].shape == (250, 64, 16)
    command = next(line for line in out.splitlines() if line.startswith("$ beamforge solve ") and "rzf" in line)
    assert main(shlex.split(command)[2:]) == 0, "the commands that it prints can be used"
