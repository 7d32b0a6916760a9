"""Masked downlinks: sizes stage by stage, replay of earlier ones, and who is there at random."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from beamforge.core.errors import ConfigError
from beamforge.scenarios.base import seeded
from beamforge.training.data.masked import Masked
from beamforge.training.stream import Staged, Stream


def pairs(instance):
    there = instance.truth.channel != 0
    return list(zip(there.any(-1).sum(-1).tolist(), there.any(-2).sum(-1).tolist(), strict=True))


def test_stages_follow_each_other_from_few_users_to_many_and_begin_again():
    source = Masked(size=6, sizes=3, stage_steps=2, replay=0.0)
    assert isinstance(source, Staged)
    assert source.stages() == [(K, N) for K in (2, 4, 6) for N in (2, 4, 6)]
    stream = Stream.training(source, 0, 5)
    for step in (0, 1, 2, 7, 17, 18, 35):
        assert set(pairs(stream.batch_at(step))) == {source.stages()[step // 2 % 9]}


def test_replay_is_of_the_stages_gone_through():
    source = Masked(size=6, sizes=3, stage_steps=2, replay=0.5)
    stages = source.stages()
    for step, seen in ((0, 1), (6, 4), (18, 9), (100, 9)):
        count = Counter(pairs(Stream.training(source, 0, 4000).batch_at(step)))
        now = stages[step // 2 % 9]
        assert set(count) == set(stages[:seen])
        assert count[now] / 4000 == pytest.approx(0.5 + 0.5 / seen, abs=0.03)
        others = [count[stage] / 4000 for stage in stages[:seen] if stage != now]
        np.testing.assert_allclose(others, 0.5 / seen, atol=0.03)


@pytest.mark.parametrize(
    "stream", [Stream.training(Masked(4, 2, stage_steps=0), 0, 4000), Stream.validation(Masked(4, 2), 4000)]
)
def test_without_stages_and_in_validation_every_pair_is_as_frequent(stream):
    count = Counter(pairs(stream.batch_at(0)))
    np.testing.assert_allclose([count[pair] / 4000 for pair in Masked(4, 2).stages()], 0.25, atol=0.03)


def test_who_is_there_is_random_and_channels_are_white():
    source = Masked(size=4, sizes=4, stage_steps=0, snr_db=(0.0, 20.0))
    draws = source.draw(seeded(1, 0), 20000)
    instance = source.build(draws)
    H = instance.truth.channel
    there = draws["users"].unsqueeze(-1) & draws["antennas"].unsqueeze(-2)
    assert torch.equal(H != 0, there)
    assert abs(H[there].abs().square().mean().item() - 1) < 0.02
    np.testing.assert_allclose(draws["users"].double().mean(0), 0.625, atol=0.02)
    level = -10 * instance.truth.noise.log10()
    assert level.min() < 0.1 and level.max() > 19.9 and (instance.context["p_max"] == 1).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"sizes": 17}, "sizes must be between 1 and size, got 17"),
        ({"stage_steps": -1}, "stage_steps must be at least 0"),
        ({"replay": 1.5}, r"replay must be in \[0, 1\]"),
        ({"snr_db": (3.0, 2.0)}, "snr_db must be finite"),
    ],
)
def test_entries_out_of_range_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        Masked(**settings)
