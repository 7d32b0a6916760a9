"""Power by angle against NumPy, contents of the figure, and errors."""

import numpy as np
import pytest
import torch

from beamforge import Network, ShapeError
from beamforge.classical.isac.null_space import NullSpaceSensing
from beamforge.core.named_problems import build_problem
from beamforge.plot.pattern import beam_pattern, power_towards, strongest_direction
from beamforge.scenarios import Isac

INSTANCE = Isac(users=3, antennas=8, targets=2, sensing_snr_db=0.0).sample(4, seed=2, dtype=torch.complex128)
PROBLEM = build_problem("isac", INSTANCE.context).bind(INSTANCE.truth)


def test_power_towards_an_angle():
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(5, 3, dtype=torch.complex128, generator=generator)
    angle = np.array([-1.1, 0.0, 0.4])
    a = np.exp(1j * np.pi * np.arange(5)[:, None] * np.sin(angle)) / np.sqrt(5)
    expected = (np.abs(a.conj().T @ W.numpy()) ** 2).sum(-1)
    np.testing.assert_allclose(power_towards(W, torch.from_numpy(angle)), expected, rtol=1e-12)
    with pytest.raises(ShapeError, match="real radians"):
        power_towards(W, torch.zeros(1, dtype=torch.complex128))


def test_strongest_direction_of_line_of_sight_users():
    angle = np.deg2rad([-40.0, 10.0, 65.0])
    H = np.exp(1j * np.pi * np.arange(8) * np.sin(angle)[:, None]).conj()
    np.testing.assert_allclose(strongest_direction(torch.from_numpy(H)).numpy(), angle, atol=np.deg2rad(0.07))


def test_figure_shows_streams_users_targets_and_required_power():
    solution = NullSpaceSensing().solve(PROBLEM, INSTANCE)
    solved = int((solution.status == 0).nonzero()[0])
    ax = beam_pattern(PROBLEM, INSTANCE.truth, solution.W, solved).axes[0]
    lines = {line.get_label(): line for line in ax.lines}
    assert {"all streams", "data", "sensing", "targets", "users, strongest direction"} <= set(lines)
    x, y = lines["all streams"].get_data()
    need = lines["power required by a target"]
    for angle, level in zip(*need.get_data(), strict=True):
        assert np.interp(angle, x, y) >= level - 0.05  # grid spacing of an eighth of a degree
    apart = [10 ** (np.asarray(lines[name].get_ydata()) / 10) for name in ("data", "sensing")]
    np.testing.assert_allclose(sum(apart), 10 ** (np.asarray(y) / 10), rtol=1e-9)


def test_errors():
    for network in (
        Network.broadcast(torch.ones(1, 2, 1, dtype=torch.complex64), 1.0),
        Network.interference(torch.ones(1, 2, 2, 3, dtype=torch.complex64), 1.0),
    ):
        with pytest.raises(ShapeError, match="one transmitter with several antennas"):
            beam_pattern(PROBLEM, network, torch.ones(1, network.antennas, 2, dtype=torch.complex64))
