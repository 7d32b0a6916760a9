"""The reproduction of decentralised beamforming: cells in pieces, WMMSE stopped early, convex regions, goals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.reproduce.decentralised import cells, regions, tables
from beamforge.reproduce.decentralised.cells import MAX_MIN, SNRS_DB, SUM_RATE, USERS, Cell, Method, StoppedWmmse


def test_pieces_of_a_cell_make_no_difference(monkeypatch):
    methods = {"slnr": Method("slnr"), "optimum": Method("duality")}
    whole = cells.utilities(MAX_MIN, methods, Cell(3, 10), 7)
    monkeypatch.setattr(cells, "CHUNK", 3)
    parts = cells.utilities(MAX_MIN, methods, Cell(3, 10), 7)
    for name in methods:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-4)
    assert (whole["slnr"] <= whole["optimum"] * (1 + 1e-4)).all()


def test_wmmse_that_is_stopped_early_falls_short():
    methods = {str(n): StoppedWmmse(n) for n in (5, 50, 1000)} | {"converged": cells.WmmseFromZeroForcing()}
    found = {name: values.mean() for name, values in cells.utilities(SUM_RATE, methods, Cell(2, 25), 20).items()}
    assert found["5"] < found["50"] < found["1000"] <= found["converged"] * (1 + 1e-6)


def test_what_is_convex():
    x = torch.linspace(0, 1, 21, dtype=torch.float64)
    for power, sign in ((2.0, 1), (1.0, 0), (0.5, -1)):  # x^p + y^p = 1
        rates = torch.stack([x, (1 - x**power).clamp_min(0) ** (1 / power)], -1).unsqueeze(0)
        bulge = regions.convexity(3 * rates).item()
        assert bulge * sign > 0 or (sign == 0 and abs(bulge) < 1e-12)


@pytest.mark.parametrize("problem", [SUM_RATE, MAX_MIN])
def test_goals_cover_every_cell_and_tell_what_is_missed(problem):
    best = np.array([1.0, 2.0])
    half = {"itnet-dualnet": best / 2, "multipliers": best, tables.REFERENCE[problem]: best}
    reached = {(snr, users): half for snr in SNRS_DB for users in USERS}
    missed = list(tables.wanted(problem, "itnet-dualnet", reached))
    assert len(missed) == 35 and not any(goal.met for goal in missed)
    assert all(goal.met for goal in tables.wanted(problem, "multipliers", reached))
    assert len(tables.percents(problem, "multipliers", reached, 2).rows) == len(SNRS_DB)
