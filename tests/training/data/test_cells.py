"""Training data `Cells`: equal to the scenario without variations, and the ranges of the variations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.core.errors import ConfigError
from beamforge.scenarios import Fairness
from beamforge.scenarios.base import seeded
from beamforge.training.data.cells import Cells
from beamforge.training.stream import Stream


def batches(source, count, batch=8):
    return [source.draw(seeded(1, step), batch) for step in range(count)]


def test_sizes_of_named_batches_and_of_the_others():
    sizes = [tuple(draws["fading"].shape[1:]) for draws in batches(Cells(0.4, users=(2, 9)), 400, 2)]
    named = np.mean([size == (12, 16) for size in sizes])
    assert abs(named - 0.4) < 0.1
    others = np.array([size for size in sizes if size != (12, 16)])
    assert others[:, 0].min() == 2 and others[:, 0].max() == 9
    load = others[others[:, 0] > 6][:, 0] / others[others[:, 0] > 6][:, 1]
    assert load.min() < 0.35 and load.max() > 1.4


def test_without_variations_it_is_the_scenario():
    """The same numbers give the same channels, and a thousand drops the scenario's mean gain in decibels."""
    source = Cells(1.0, varied_share=0.0)
    draws = source.draw(seeded(3, 0), 4)
    found, expected = source.build(draws), Fairness().build(draws)
    assert torch.equal(found.truth.channel, expected.truth.channel)
    torch.testing.assert_close(found.truth.noise, expected.truth.noise)
    assert torch.equal(found.context["p_max"], expected.context["p_max"])
    gains = [
        10 * instance.truth.channel.abs().square().sum(-1).log10().mean().item()
        for instance in (source.build(source.draw(seeded(3, 1), 1000)), Fairness().sample(1000, dtype=torch.complex128))
    ]
    assert gains[0] == pytest.approx(gains[1], abs=0.3)


def test_variations_are_drawn_per_instance_and_within_their_ranges():
    source = Cells(1.0, varied_share=0.5, noise_offset_db=(-6.0, 3.0), shadowing_db=(2.0, 8.0))
    draws = source.draw(seeded(4, 0), 2000)
    offset, shadowing = draws["noise_offset_db"].squeeze(-1), draws["shadowing"]
    varied = offset != 0
    assert abs(varied.double().mean() - 0.5) < 0.05
    assert offset.min() < -5.9 and offset.max() > 2.9 and offset.abs().max() <= 6
    assert (shadowing[~varied] == 0).all()
    deviation = shadowing[varied].std(-1)
    assert deviation.mean().item() == pytest.approx(5.0 * 0.977, abs=0.2)  # 2.3 % low for twelve values
    noise = source.build(draws).truth.noise
    torch.testing.assert_close(10 * (noise[:, 0] / noise[~varied][0, 0]).log10(), offset, rtol=0, atol=1e-9)


def test_a_stream_depends_on_its_seed_alone():
    stream = Stream.training(Cells(), 5, 3)
    again = Stream.training(Cells(), 5, 3)
    assert torch.equal(stream.batch_at(11).truth.H, again.batch_at(11).truth.H)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"named_share": 1.1}, r"named_share must be in \[0, 1\], got 1.1"),
        ({"users": (0, 4)}, "users must be at least 1"),
        ({"load": (0.0, 1.0)}, "load must be positive"),
        ({"shadowing_db": (-1.0, 1.0)}, "shadowing_db must be at least 0"),
        ({"noise_offset_db": (3.0, -3.0)}, "noise_offset_db must be finite and"),
    ],
)
def test_fields_out_of_range_are_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        Cells(**fields)
