"""Training data for hybrid beams: kinds of channel knowledge, and the scenario's instances."""

from __future__ import annotations

import pytest
import torch

from beamforge.core.errors import ConfigError
from beamforge.scenarios.base import seeded
from beamforge.scenarios.csi import mmse_estimate
from beamforge.training.data.hybrid import HybridFeedback, HybridPilots


def test_kinds_take_turns_and_state_their_pilot_power():
    source = HybridPilots(users=(3, 3), columns=4, rows=2, pilot_db=(-10.0, 10.0))
    instance = source.build(source.draw(seeded(0, 0), count=402))
    group, quality = instance.labels["group"], instance.context["csi_quality"]
    assert torch.equal(group, torch.arange(402) % 4)
    for kind, power in enumerate((0.1, 1.0, 10.0)):
        torch.testing.assert_close(quality[group == kind], torch.full_like(quality[group == kind], power))
    decibels = 10 * quality[group == 3, 0].log10()
    assert -10 <= decibels.min() < -8 and 8 < decibels.max() <= 10 and decibels.mean().abs() < 2


def test_instances_are_those_of_the_scenario():
    source = HybridPilots(users=(2, 2), columns=4, rows=2)
    draws = source.draw(seeded(1, 0), count=8)
    instance, channels = source.build(draws), source.scenario(2).csi.channels
    assert torch.equal(instance.truth.H, channels.build(draws).truth.H)
    observed = instance.truth.channel.conj() + draws["pilot_noise"] / instance.context["csi_quality"].sqrt().unsqueeze(
        -1
    )
    expected = mmse_estimate(observed, channels.covariance(draws), instance.context["csi_quality"]).conj()
    torch.testing.assert_close(instance.observation.network.channel, expected)


def test_all_numbers_of_users_come_up():
    source = HybridPilots(columns=2, rows=1)
    assert {source.draw(seeded(0, step), 1)["target"].shape[-1] for step in range(40)} == {1, 2, 3, 4}


@pytest.mark.parametrize("entries", [{"users": (0, 2)}, {"users": (3, 2)}, {"levels": 1}, {"pilot_db": (5.0, 0.0)}])
def test_entries_out_of_range_are_refused(entries):
    with pytest.raises(ConfigError):
        HybridPilots(**entries)


def test_kinds_of_feedback_take_turns():
    source = HybridFeedback(users=(2, 2), columns=4, rows=2, samples=2)
    instance = source.build(source.draw(seeded(0, 0), count=200))
    group, bits = instance.labels["group"], instance.context["csi_quality"]
    each = [bits[group == kind].unique().tolist() for kind in range(4)]
    assert [len(one) for one in each] == [1, 1, 1, 3] and sorted(x for one in each[:3] for x in one) == sorted(each[3])
    error = (instance.truth.channel - instance.observation.network.channel).abs().square().sum((-2, -1))
    assert error[group == 0].mean() > error[group == 1].mean() > error[group == 2].mean()


@pytest.mark.parametrize("entries", [{"users": (0, 2)}, {"beams": (3, 2)}, {"samples": -1}])
def test_entries_of_feedback_out_of_range_are_refused(entries):
    with pytest.raises(ConfigError):
        HybridFeedback(**entries)
