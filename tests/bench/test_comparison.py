"""Numbers of a comparison against recomputation, and methods that fail."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from beamforge import registry
from beamforge.bench import comparison as module
from beamforge.bench.comparison import compare
from beamforge.bench.suites import SUITES, Candidate, Suite, candidates, find_suite
from beamforge.classical.linear import MRT, RZF
from beamforge.core.errors import ConfigError
from beamforge.core.evaluate import evaluate
from beamforge.core.named_problems import build_problem
from beamforge.core.solution import Solution, Status
from beamforge.scenarios import Rayleigh
from beamforge.scenarios.base import TEST_SEEDS


class Raising(MRT):
    def solve_batch(self, *arguments):
        raise ZeroDivisionError("no <b>luck</b>")


class RaisingAlone(MRT):
    """Fails only when it is timed one instance at a time."""

    def solve_batch(self, problem, observation, start, generator):
        if len(observation.network.H) == 1:
            raise RuntimeError("alone")
        return super().solve_batch(problem, observation, start, generator)


class Mixed(RZF):
    """All statuses, and some solutions that violate the power limit."""

    def solve_batch(self, problem, observation, start, generator):
        solution = super().solve_batch(problem, observation, start, generator)
        size = len(solution.W)
        status = (torch.arange(size) % 5).remainder(4)
        W = solution.W.clone()
        W[4::5] *= 2
        return Solution(W, status, torch.full_like(status, 7))


@pytest.fixture(autouse=True)
def methods(monkeypatch):
    for name, kind in {"raising": Raising, "raising-alone": RaisingAlone, "mixed": Mixed}.items():
        monkeypatch.setitem(registry.METHODS, name, (kind,))
    monkeypatch.setattr(module, "ROUNDS", 1)


def small(*methods, baseline="rzf", count=10):
    source = Rayleigh(users=3, antennas=4, snr_db=10.0)
    return Suite("small", "three users", source, "sum-rate", candidates(*methods), baseline, count)


def test_the_table_has_the_scores_of_evaluate():
    suite = small("mrt", "rzf")
    found = compare(suite)
    instance = suite.source.sample(10, seed=TEST_SEEDS[0], dtype=torch.complex128)
    problem = build_problem("sum-rate", instance.context)
    scores = {}
    for name in ("mrt", "rzf"):
        solution = registry.create(problem, instance.observation.network, name).solve(problem, instance)
        scores[name] = evaluate(problem, instance, solution.W)
    row = found.rows[0]
    utility, rate = scores["mrt"].utility.numpy(), scores["mrt"].rate.numpy()
    difference = utility - scores["rzf"].utility.numpy()
    assert row.utility_mean == pytest.approx(utility.mean(), rel=1e-12)
    assert row.utility_p5 == pytest.approx(np.percentile(utility, 5), rel=1e-12)
    assert row.rate_p5 == pytest.approx(np.percentile(rate, 5), rel=1e-12)
    assert row.rate_mean == pytest.approx(rate.mean(), rel=1e-12)
    assert row.jain_mean == pytest.approx(np.mean(rate.sum(-1) ** 2 / (3 * (rate**2).sum(-1))), rel=1e-12)
    assert row.difference_mean == pytest.approx(difference.mean(), rel=1e-12)
    assert row.difference_low < difference.mean() < row.difference_high
    assert (row.instances, row.converged, row.difference_pairs) == (10, 10, 10)
    assert row.single_ms > 0
    assert row.batched_ms > 0


def test_a_method_that_raises_does_not_stop_the_others():
    found = compare(small("raising", "mrt", "raising-alone", "rzf", "no-such-method"))
    assert set(found.runs) == {"mrt", "rzf"}
    assert found.errors["raising"] == "ZeroDivisionError: no <b>luck</b>"
    assert found.errors["raising-alone"] == "RuntimeError: alone"
    assert found.errors["no-such-method"].startswith("unknown method")
    assert [row.method for row in found.rows] == ["raising", "mrt", "raising-alone", "rzf", "no-such-method"]
    assert [bool(row.error) for row in found.rows] == [True, False, True, False, True]


def test_a_baseline_that_raises_leaves_differences_unknown():
    found = compare(small("raising", "mrt", baseline="raising"))
    assert np.isnan(found.rows[1].difference_mean)
    assert found.rows[1].utility_mean > 0


def test_a_bound_that_raises_does_not_stop_the_methods(monkeypatch):
    monkeypatch.setattr(module, "bound", lambda problem, network: 1 / 0)
    found = compare(small("mrt", "rzf"))
    assert set(found.runs) == {"mrt", "rzf"}
    assert found.errors == {"bound": "ZeroDivisionError: division by zero"}
    assert np.isnan(found.rows[0].percent_of_bound)


def test_the_bound_is_that_of_the_problem_and_unknown_where_infinite(monkeypatch):
    instance = small("mrt").instances()
    utility = compare(small("mrt", "rzf")).runs["mrt"].utility
    monkeypatch.setattr(module, "bound", lambda problem, network: torch.as_tensor([*[200.0] * 5, *[torch.inf] * 5]))
    found = compare(small("mrt", "rzf"))
    assert len(found.bound) == len(instance.truth.H)
    assert found.rows[0].percent_of_bound == pytest.approx(100 * (utility[:5] / 200).mean(), rel=1e-12)


def test_statuses_are_counted_and_means_are_over_valid_solutions():
    found = compare(small("mixed", "rzf"))
    mixed, reference = found.rows
    counts = (mixed.converged, mixed.max_iterations, mixed.infeasible, mixed.numerical_failure, mixed.violated)
    assert counts == (4, 2, 2, 2, 2)  # instances 0 and 5, and the violating 4 and 9, claim to have converged
    valid = [0, 1, 5, 6]
    assert np.isfinite(found.runs["mixed"].utility).nonzero()[0].tolist() == valid
    assert mixed.utility_mean == pytest.approx(found.runs["rzf"].utility[valid].mean(), rel=1e-12)
    assert mixed.difference_pairs == 4
    assert (mixed.difference_mean, mixed.difference_low) == (0.0, 0.0)
    assert mixed.iterations_median == 7
    assert reference.violated == 0


def test_instances_come_from_the_held_out_seeds_and_do_not_depend_on_their_number():
    few, many = (small("mrt", count=count).instances().truth.H for count in (2, 5))
    torch.testing.assert_close(few, many[:2], rtol=0, atol=0)
    training = Rayleigh(users=3, antennas=4, snr_db=10.0).sample(2, seed=0, dtype=torch.complex128).truth.H
    assert not torch.isclose(few, training).any()


@pytest.mark.parametrize("name", SUITES)
def test_every_shipped_suite_runs(name, monkeypatch):
    monkeypatch.setattr(module, "interleaved", lambda tasks, repeats: dict.fromkeys(tasks, 1.0))
    found = compare(replace(find_suite(name), count=2))
    assert not found.errors
    baseline = found.row(found.suite.baseline)
    assert baseline.converged + baseline.max_iterations == 2
    assert baseline.difference_mean == 0.0
    for row in found.rows:
        assert row.violated == row.numerical_failure == 0
        assert row.utility_mean > 0
        assert not row.percent_of_bound > 100 * (1 + 1e-6)


def test_labels_contain_the_settings():
    labels = [candidate.label for candidate in candidates("wmmse", Candidate("wmmse", {"starts": 1}))]
    assert labels == ["wmmse", "wmmse starts=1"]
    for suite in SUITES.values():
        labels = [candidate.label for candidate in suite.candidates]
        assert len(set(labels)) == len(labels)
        assert suite.baseline in labels


def test_an_unknown_suite_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'rayleigh-square'"):
        find_suite("rayleigh-squar")


def test_status_names_are_the_columns_of_the_table():
    assert {status.name.lower() for status in Status} <= set(module.Row.__dataclass_fields__)
