"""The methods that README and the manual recommend exist and serve the problems in question."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import torch

from beamforge import Network
from beamforge.core.named_problems import build_problem
from beamforge.registry import METHODS, methods_for

REPOSITORY = Path(__file__).parent.parent

SENSING = {"target_angles": torch.zeros(1), "target_gain": torch.ones(1), "sensing_snr_target": 1.0}
QUESTIONS = {
    "the largest sum rate": ("sum-rate", {}),
    "... and how close it is to the optimum": ("sum-rate", {}),
    "the largest least rate or SINR": ("max-min", {}),
    "the least power for SINR targets": ("min-power", {"sinr_target": 1.0}),
    "the sum rate with sensing SNR targets": ("isac", SENSING),
    "the least power of hybrid beams for SINR targets": ("hybrid-min-power", {"sinr_target": 1.0}),
    "... with few users in outage, for estimated channels": ("hybrid-min-power", {"sinr_target": 1.0, "outage": 0.1}),
    "a closed form": ("sum-rate", {}),
    "the sum rate under a prescribed fairness": ("fair-sum-rate", {"jain": 0.9}),
    "fairness by a parameter, in closed form": ("sum-rate", {}),
}
one = torch.ones(1, 2, 2, dtype=torch.complex128)
NETWORKS = [
    (Network.broadcast(one, 1.0), {"p_max": 1.0}),
    (Network.interference(one.expand(2, 2, 2), 1.0), {"p_max_transmitter": 1.0}),
    (Network.power_control(one.real, 1.0), {"p_max": 1.0}),
]


def rows(page: str, first: str) -> dict[str, list[str]]:
    """Rows, by their first cell, of the table whose head starts with `first`."""
    lines = (REPOSITORY / page).read_text().splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith(f"| {first} |"))
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[head + 2 :])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0]: row[1:] for row in cells}


def test_readme_names_every_method():
    named = [name for cell in rows("README.md", "name") for name in re.findall(r"`(.+?)`", cell)]
    ours = [name for name, kinds in METHODS.items() if kinds[0].__module__.startswith("beamforge.")]
    assert sorted(named) == sorted(ours)  # tests may have registered more


@pytest.mark.parametrize("wish", QUESTIONS)
def test_recommended_methods_serve_the_problem(wish):
    problem, stated = QUESTIONS[wish]
    for cell, (network, limit) in zip(rows("docs/how-to-choose.md", "you want")[wish], NETWORKS, strict=True):
        limits = {} if problem == "min-power" else limit
        names = re.findall(r"`(.+?)`", cell)
        suitable = methods_for(build_problem(problem, stated | limits), network) if names else []
        for name in names:
            assert name in suitable, f"{name} for {wish} on {network.H.shape[:-3]}; {suitable} would do"


def test_the_table_has_these_rows():
    assert list(rows("docs/how-to-choose.md", "you want")) == list(QUESTIONS)
