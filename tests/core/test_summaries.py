"""What is printed of networks, problems and solutions, compared with numbers computed here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import beamforge
from beamforge import Network, Problem
from beamforge.classical.linear import RZF
from beamforge.core.constraints import PerAntennaPower, TotalPower
from beamforge.core.summaries import spread
from beamforge.core.utilities import SumRate

H = torch.randn(4, 3, 5, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))


def rows(printed):
    """The rows of a printed object by their labels."""
    return {line[2:].split("  ")[0]: line.split("  ")[-1].strip() for line in str(printed).splitlines()[1:]}


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_a_solution(kind):
    channels = H if kind == "torch" else H.numpy()
    solution = beamforge.solve(channels, noise=0.1, p_max=2.0, method="rzf")
    rate = np.asarray(solution.rate).sum(-1)
    assert str(solution).splitlines()[0] == "Solution by rzf" and repr(solution) == str(solution)
    found = rows(solution)
    assert found["size"] == "4 instances of 1 transmitter with 5 antennas, 3 users"
    assert found["status"] == "4 converged" and solution.status_counts == {"converged": 4}
    assert found["utility"] == f"mean {rate.mean():.4g} ({rate.min():.4g} to {rate.max():.4g}) bit/s/Hz (SumRate)"
    assert found["power"] == "2 W" and found["iterations"] == "0"
    np.testing.assert_allclose(np.asarray(solution.power), 2, rtol=1e-9)


def test_instances_without_beams_count_neither_in_utility_nor_in_power():
    channels = H.clone()
    channels[1] *= 1e-6
    targets = torch.full((3,), 2.0, dtype=torch.float64)
    solution = beamforge.solve(channels, noise=0.1, problem="min-power", p_max=5.0, sinr_target=targets)
    assert solution.status_counts == {"converged": 3, "infeasible": 1}
    power = solution.power[[0, 2, 3], 0]
    expected = f"mean {power.mean():.4g} ({power.min():.4g} to {power.max():.4g}) W"
    assert rows(solution)["power"] == expected and rows(solution)["utility"] == f"{expected} (TransmitPower)"
    assert rows(solution)["status"] == "3 converged, 1 infeasible"
    none = beamforge.solve(channels[1], noise=0.1, problem="min-power", p_max=5.0, sinr_target=targets)
    assert rows(none).keys() == {"size", "status", "iterations"}


def test_a_solution_of_a_solver_does_not_know_its_problem():
    problem = Problem(SumRate(), (TotalPower(2.0),))
    found = rows(RZF().solve(problem, Network.broadcast(H, 0.1)))
    assert found == {"size": "4 instances of 5 x 3 beams", "status": "4 converged", "power": "2 W", "iterations": "0"}


def test_a_network_and_a_problem():
    network = Network.broadcast(H, torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    assert rows(network) == {
        "size": "4 instances of 1 transmitter with 5 antennas, 3 users",
        "channel": f"complex128, mean |h|^2 of an antenna {H.abs().square().mean():.3g}",
        "noise": "mean 0.2 (0.1 to 0.3) W",
    }
    gains = torch.eye(3) + 0.1
    assert rows(Network.power_control(gains, 1.0))["size"] == "3 single-antenna links"
    cells = Network.interference(H[:, None].expand(-1, 3, -1, -1), 0.1)
    assert rows(cells)["size"] == "4 instances of 3 transmitters with 5 antennas, 3 users"
    sensing = Network.broadcast(H, 0.1, 5)
    assert rows(sensing)["streams"] == "8, 5 of them for sensing"
    problem = Problem(SumRate([1.0, 3.0, 2.0]), (TotalPower(2.0), PerAntennaPower(0.5)))
    lines = [" ".join(line.split()) for line in str(problem).splitlines()]
    assert lines[:3] == ["Problem", "maximise SumRate: weights mean 2 (1 to 3)", "subject to TotalPower: limit 2"]
    assert lines[3] == "PerAntennaPower: limit 0.5"


def test_html_is_a_table_of_the_same_rows_and_escaped():
    text = Network.broadcast(H[0], 0.1)._repr_html_()
    assert text.count("<tr>") == 3 and "1 transmitter with 5 antennas, 3 users" in text

    class Odd(Network):
        def summary(self):
            return "<b>", {"a<": "b&"}

    assert "&lt;b&gt;" in Odd.broadcast(H[0], 0.1)._repr_html_() and "b&amp;" in Odd.broadcast(H[0], 0.1)._repr_html_()


def test_spread():
    assert spread(3.0) == "3" and spread([1, 3]) == "mean 2 (1 to 3)" and spread([2.0, 2.0]) == "2"
    assert spread(torch.tensor([1j, 2])) == "2 complex numbers" and spread([]) == "none"
