"""The shipped weights of multipliers for isac: their header, and the sum rate they reach."""

from __future__ import annotations

import pytest
import torch

from beamforge.classical.isac.wmmse import SensingWMMSE
from beamforge.cli import main
from beamforge.core.named_problems import build_problem
from beamforge.io.weights import card, load
from beamforge.learned.isac.multipliers import SensingMultipliers
from beamforge.reproduce.isac.score import score
from beamforge.scenarios import Isac
from beamforge.scenarios.base import TEST_SEEDS
from beamforge.training.recipe import Recipe


def test_the_header_tells_where_they_come_from():
    header = load("isac-multipliers").header
    assert len(header["commit"]) >= 7 and "dirty" not in header["commit"] and header["commit"] != "unknown"
    shipped = Recipe.find("isac-multipliers").tables()
    for section in ("model", "data", "optimiser", "run"):
        for entry, value in header["recipe"][section].items():
            now = shipped[section][entry]
            assert (list(now) if isinstance(now, tuple) else now) == value, f"{section}.{entry}"


def test_they_are_listed_and_come_with_a_card(capsys):
    assert main(["list", "models"]) == 0
    assert "isac-multipliers" in capsys.readouterr().out
    told = card("isac-multipliers").read_text(encoding="utf-8")
    assert "beamforge train isac-multipliers" in told and "benchmarks/isac_multipliers.py" in told


@pytest.mark.parametrize(("size", "snr_db", "least"), [(16, 0.0, 0.985), (12, 10.0, 0.985), (16, 20.0, 0.95)])
def test_they_are_near_isac_wmmse_within_all_limits(size, snr_db, least):
    instance = Isac(size, size, 5, snr_db).sample(12, seed=TEST_SEEDS[14], dtype=torch.complex128)
    problem = build_problem("isac", instance.context)
    ours, best = (method.solve(problem, instance) for method in (SensingMultipliers(), SensingWMMSE()))
    assert torch.equal(ours.solved, best.solved)
    solved = ours.solved.numpy()
    (rate, violation), (converged, _) = (score(instance, each.W.resolve_conj().numpy()) for each in (ours, best))
    assert rate[solved].mean() >= least * converged[solved].mean()
    assert (violation[solved] <= 1e-6).all()
