"""Statistics against SciPy, NumPy and hand-computed cases, and the coverage of the interval on simulated data."""

import numpy as np
import pytest
from scipy import stats

from beamforge.bench.statistics import mean, paired_difference, percent_of_bound, percentile


def test_the_interval_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    ours, baseline = rng.normal(3, 1, 40), rng.normal(2, 1, 40)
    found = paired_difference(ours, baseline)
    expected = stats.ttest_rel(ours, baseline).confidence_interval(0.95)
    assert found.mean == pytest.approx((ours - baseline).mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_case_by_hand():
    # differences 1, 2, 3: mean 2, s = 1, t_{.975, 2} = 4.302653, half width 4.302653 / sqrt(3) = 2.484138
    found = paired_difference(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    assert (found.mean, found.low, found.high) == pytest.approx((2, -0.484138, 4.484138), abs=1e-6)


def test_where_less_is_better_less_is_a_gain():
    found = paired_difference(np.array([1.0, 2.0, 2.0]), np.array([3.0, 3.0, 5.0]), sense=-1)
    assert found.mean == pytest.approx(2.0)


def test_only_pairs_that_both_solved_count():
    ours = np.array([1.0, np.nan, 3.0, 5.0])
    baseline = np.array([0.0, 1.0, np.nan, 3.0])
    found = paired_difference(ours, baseline)
    assert found.pairs == 2
    assert found.mean == pytest.approx(1.5)


def test_the_interval_covers_the_truth_in_95_percent_of_the_cases():
    rng = np.random.default_rng(1)
    trials, truth = 2000, 0.3
    difficulty = rng.normal(0, 5, (trials, 15))  # shared by both methods, so pairing must remove it
    ours = difficulty + truth + rng.normal(0, 1, (trials, 15))
    baseline = difficulty + rng.normal(0, 1, (trials, 15))
    found = [paired_difference(a, b) for a, b in zip(ours, baseline, strict=True)]
    covered = np.mean([d.low <= truth <= d.high for d in found])
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / trials)
    assert np.mean([d.high - d.low for d in found]) < 2  # unpaired it would be about 7.5


def test_identical_methods_differ_by_exactly_zero():
    values = np.array([1.0, 7.0, 3.0])
    found = paired_difference(values, values)
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pairs_have_no_interval(count):
    found = paired_difference(np.ones(count), np.zeros(count))
    assert found.pairs == count
    assert np.isnan([found.low, found.high]).all()


def test_percentile_and_mean_leave_out_nan():
    values = np.array([[4.0, np.nan], [1.0, 2.0], [np.nan, 3.0]])
    assert percentile(values, 5) == pytest.approx(np.percentile([1, 2, 3, 4], 5))
    assert mean(values) == 2.5
    assert np.isnan(percentile(np.array([np.nan]), 5))
    assert np.isnan(mean(np.array([])))


def test_percent_of_bound_in_both_senses():
    assert percent_of_bound(np.array([5.0, 8.0, np.nan]), np.array([10.0, 10.0, 10.0])) == pytest.approx(65)
    assert percent_of_bound(np.array([2.0, 4.0]), np.array([1.0, 3.0]), sense=-1) == pytest.approx(62.5)
    assert np.isnan(percent_of_bound(np.array([2.0]), np.array([np.nan])))
