"""The reproduction of decentralised beamforming: cells in pieces, WMMSE stopped early, convex regions, goals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.reproduce.decentralised import cells, duality_gap, regions, tables, training_curves
from beamforge.reproduce.decentralised.cells import MAX_MIN, SNRS_DB, SUM_RATE, USERS, Cell, Method, StoppedWmmse
from beamforge.reproduce.exhibits import Options, Picture, Table


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
    missed = list(tables.cell_goals(problem, "itnet-dualnet", reached))
    assert len(missed) == 35 and not any(goal.met for goal in missed)
    assert all(goal.met for goal in tables.cell_goals(problem, "multipliers", reached))
    assert len(tables.percents(problem, "multipliers", reached, 2).rows) == len(SNRS_DB)


def test_duality_gap_in_every_cell(tmp_path):
    for problem in (SUM_RATE, MAX_MIN):
        table, (goal,) = duality_gap.duality_gaps(problem, 3, Options(tmp_path))
        assert [row[:2] for row in table.rows] == [[users, snr] for users in USERS for snr in SNRS_DB]
        for _, _, gap, size, projected, excess in table.rows:
            assert abs(gap) <= size * (1 + 1e-6) and 0 <= projected <= 100 and excess >= 0
        assert goal.measured == pytest.approx(np.mean([row[3] for row in table.rows]))
        assert (goal.wanted is None) == (problem == MAX_MIN)


def test_baselines_have_a_column_each_and_networks_one_size():
    best = np.array([1.0, 2.0])
    cell = {tables.OPTIMUM: best, "slnr": best / 2, "zf": best / 4, "mrt": best / 5}
    reached = {
        (snr, users): cell | ({"dbl": best, "nfl": best} if users == 4 else {}) for snr in SNRS_DB for users in USERS
    }
    table = tables.without_exchange(MAX_MIN, reached, 2)
    assert table.columns == ["K", "SNR (dB)", "slnr", "zf", "mrt", "dbl", "nfl"]
    for users, _, *percents in table.rows:
        known = [percent.value for percent in percents if percent is not None]
        assert known == pytest.approx([50, 25, 20, 100, 100] if users == 4 else [50, 25, 20])


def test_training_curves_of_both_trainings(monkeypatch, tmp_path):
    monkeypatch.setattr(training_curves, "QUICK", 16)
    monkeypatch.setattr(training_curves, "VALIDATIONS", 1)
    options = Options(tmp_path, quick=True)
    table, picture = training_curves.training_curves(options)
    assert isinstance(table, Table) and isinstance(picture, Picture)
    alternating, joint = table.rows
    assert alternating[1] == joint[1] == 16
    assert 0 < alternating[4] < joint[4]  # only alternating training lessens the duality gap
    again, _ = training_curves.training_curves(options)  # finished trainings are read, not repeated
    assert again.rows == table.rows
