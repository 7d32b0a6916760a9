"""Training data of interference channels: the scenario's channels, all SNRs, some weights."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from beamforge.core.errors import ConfigError
from beamforge.training.data.interference_grid import InterferenceGrid
from beamforge.training.stream import Stream


def batch(count=400, step=0, **fields):
    return Stream.training(InterferenceGrid(**fields), seed=1, batch=count, dtype=torch.complex128).batch_at(step)


def test_channels_are_those_of_the_scenario():
    H = batch(cells=(3, 3), antennas=(4, 4), cross_gain=(0.5, 0.5)).truth.H
    own = torch.eye(3, dtype=torch.bool)
    for part, gain in ((H[:, own], 1.0), (H[:, ~own], 0.5)):
        assert stats.kstest(part.abs().square().flatten() / gain, "expon").pvalue > 1e-3


def test_snrs_are_the_steps_between_the_ends():
    instance = batch(count=700, snr_db=(-5, 10))
    power = instance.context["p_max_transmitter"]
    assert (power == power[:, :1]).all()
    found, counts = (10 * power[:, 0].log10()).round().unique(return_counts=True)
    assert found.tolist() == [-5, 0, 5, 10] and counts.min() > 120


def test_some_have_random_weights_and_the_others_equal_ones():
    weights = batch(weighted_share=0.25).context["weights"]
    equal = (weights == 1).all(-1)
    assert 0.65 < equal.double().mean() < 0.85
    assert stats.kstest(weights[~equal].flatten(), "uniform").pvalue > 1e-3


def test_sizes_change_from_batch_to_batch():
    shapes = {batch(count=2, step=step, cells=(2, 3), antennas=(2, 3)).truth.H.shape[1:] for step in range(40)}
    assert shapes == {(2, 2, 2), (2, 2, 3), (3, 3, 3)}


@pytest.mark.parametrize(
    "wrong",
    [{"cells": (0, 2)}, {"antennas": (3, 2)}, {"snr_db": (5, 0)}, {"cross_gain": (-1.0, 0.5)}, {"weighted_share": 1.5}],
)
def test_ranges_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        InterferenceGrid(**wrong)
