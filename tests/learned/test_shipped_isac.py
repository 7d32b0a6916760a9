"""The shipped weights for joint sensing and communication: their origin, and minimum performance."""

from __future__ import annotations

import functools

import pytest
import torch

from beamforge.classical.isac.null_space import NullSpaceSensing
from beamforge.classical.isac.sdr import SensingSDR
from beamforge.cli import main
from beamforge.core.named_problems import build_problem
from beamforge.io.weights import card, load
from beamforge.learned.isac.dnn import IsacDNN
from beamforge.learned.isac.sao import SAOIsac
from beamforge.reproduce.isac.score import score
from beamforge.scenarios import Isac
from beamforge.scenarios.base import TEST_SEEDS
from beamforge.training.recipe import Recipe

NAMES = ("sao-isac", "isac-dnn")


@functools.cache
def held_out(users=16, antennas=16, targets=5, snr_db=15.0, count=24):
    fields = {"users": users, "antennas": antennas, "targets": targets, "snr_db": snr_db}
    return Isac(**fields).sample(count, seed=TEST_SEEDS[6], dtype=torch.complex128)


def results(solver, instance):
    """Sum rates by NumPy, and which instances are solved; these violate no constraint."""
    solution = solver.solve(build_problem("isac", instance.context), instance)
    rate, excess = score(instance, solution.W.numpy())
    solved = solution.solved.numpy()
    assert (excess[solved] <= 1e-6).all()
    return rate, solved


@pytest.mark.parametrize("name", NAMES)
def test_headers_tell_where_they_come_from(name):
    header = load(name).header
    assert len(header["commit"]) >= 7 and "dirty" not in header["commit"]
    shipped = Recipe.find(name).tables()
    for section in ("model", "data", "optimiser", "run"):
        for entry, value in header["recipe"][section].items():
            now = shipped[section][entry]
            assert entry == "device" or (list(now) if isinstance(now, tuple) else now) == value, f"{section}.{entry}"


def test_they_are_listed_and_come_with_cards(capsys):
    assert main(["list", "models"]) == 0
    listed = capsys.readouterr().out
    for name in NAMES:
        told = card(name).read_text(encoding="utf-8")
        assert name in listed and f"beamforge train {name}" in told and "beamforge reproduce isac-networks" in told


def test_layers_are_far_better_than_the_null_space_and_solve_as_many():
    instance = held_out(users=10, targets=3)
    (ours, solved), (simple, solved_too) = (results(method, instance) for method in (SAOIsac(), NullSpaceSensing()))
    both = solved & solved_too
    assert solved.sum() >= solved_too.sum() and both.sum() >= 5
    assert ours[both].mean() > 1.1 * simple[both].mean()


@pytest.mark.parametrize(
    ("baseline", "size", "snr_db", "count"),
    [(IsacDNN, 16, 0.0, 24), (IsacDNN, 16, 20.0, 24), (SensingSDR, 8, 20.0, 5)],
)
def test_layers_are_better_than_the_other_baselines_where_there_is_no_null_space(baseline, size, snr_db, count):
    instance = held_out(size, size, snr_db=snr_db, count=count)
    (ours, solved), (other, solved_too) = results(SAOIsac(), instance), results(baseline(), instance)
    both = solved & solved_too
    assert both.sum() >= 3 and ours[both].mean() > 1.05 * other[both].mean()
    assert solved.sum() >= solved_too.sum() - (baseline is SensingSDR)


def test_training_is_worth_more_than_the_ascent_alone():
    instance = held_out(count=40)
    (ours, solved), (alone, solved_too) = (
        results(SAOIsac(checkpoint=each), instance) for each in ("shipped", "random")
    )
    both = solved & solved_too
    assert solved.sum() >= solved_too.sum() - 1 and ours[both].mean() > 1.005 * alone[both].mean()
