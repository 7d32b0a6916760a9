"""Training data of joint sensing and communication: the scenario's channels and targets, all sizes and SNRs."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from beamforge.core.errors import ConfigError
from beamforge.core.named_problems import build_problem
from beamforge.training.data.isac_grid import IsacGrid
from beamforge.training.stream import Stream


def batch(count=400, step=0, **fields):
    return Stream.training(IsacGrid(**fields), seed=1, batch=count, dtype=torch.complex128).batch_at(step)


def test_channels_and_targets_are_those_of_the_scenario():
    instance = batch(users=(3, 3), antennas=(4, 4), targets=(2, 2), snr_db=(5, 15), sensing_snr_db=(0, 10))
    context = instance.context
    assert stats.kstest(instance.truth.channel.abs().square().flatten(), "expon").pvalue > 1e-3
    assert stats.kstest(context["target_gain"].abs().square().flatten(), "expon").pvalue > 1e-3
    assert stats.kstest(context["target_angles"].flatten() / (torch.pi / 2), "uniform").pvalue > 1e-3
    noise = instance.truth.noise
    assert (noise == noise[:, :1]).all()
    assert stats.kstest((-10 * noise[:, 0].log10() - 5) / 10, "uniform").pvalue > 1e-3
    assert stats.kstest(context["sensing_snr_target"].log10(), "uniform").pvalue > 1e-3
    build_problem("isac", context).bind(instance.truth)


def test_sizes_change_and_half_of_the_batches_have_as_many_antennas_as_users():
    source = {"users": (4, 8), "antennas": (4, 12), "targets": (1, 3)}
    batches = [batch(2, step, **source) for step in range(60)]
    sizes = [(*each.truth.channel.shape[1:], each.context["target_angles"].shape[-1]) for each in batches]
    assert {K for K, _, _ in sizes} == set(range(4, 9)) and {M for _, _, M in sizes} == {1, 2, 3}
    assert max(N for _, N, _ in sizes) > 8 and 20 <= sum(K == N for K, N, _ in sizes) <= 50


def test_some_have_random_weights():
    weights = batch(users=(3, 3), weighted_share=0.25).context["weights"]
    equal = (weights == 1).all(-1)
    assert 0.65 < equal.double().mean() < 0.85
    assert weights.min() >= 0.1 and weights.max() <= 2


@pytest.mark.parametrize(
    "fields", [{"users": (0, 3)}, {"antennas": (5, 3)}, {"snr_db": (3, float("inf"))}, {"weighted_share": 1.5}]
)
def test_ranges_that_are_wrong(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        IsacGrid(**fields)
