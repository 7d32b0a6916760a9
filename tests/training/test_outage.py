"""Outage constraints in training: a toy problem with a known optimum and known prices."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from beamforge.core.errors import ConfigError
from beamforge.training.outage import SHARPEST, Measured, OutageConstraint

PROBABILITY = 0.1
FADES = torch.tensor([1.0, 4.0])
"""Mean channel gains of two groups; gains are exponentially distributed."""


def least_log_powers():
    """log p with ``P(p g < 1) = 0.1`` for exponential gains g of these means."""
    return (1 / (-math.log(1 - PROBABILITY) * FADES)).log()


@cache
def trained(form, steps=1000, seed=0):
    """Minimise the sum of log p_g subject to ``P(p_g gain < 1) <= 0.1`` in each group; log p and prices, averaged."""
    generator = torch.Generator().manual_seed(seed)
    log_power = torch.zeros(2, requires_grad=True)
    price, rate = (5.0, 0.3) if form == "annealed" else (0.5, 0.1)
    limit = OutageConstraint(2, PROBABILITY, form, price, rate)
    optimiser = torch.optim.SGD([log_power], 0.1)
    group = torch.arange(2).repeat(128)
    powers, prices = [], []
    for step in range(steps):
        gain = -torch.rand(256, 4, generator=generator).log() * FADES[group].unsqueeze(-1)
        for settings in optimiser.param_groups:
            settings["lr"] = 0.1 * (1 - 0.9 * step / steps)
        optimiser.zero_grad()
        term, seen = limit(log_power[group].unsqueeze(-1) + gain.log(), group)
        (log_power.sum() + term).backward()
        optimiser.step()
        limit.adapt(seen)
        if step >= steps // 2:
            powers.append(log_power.detach().clone())
            prices.append(limit.price.clone())
    return torch.stack(powers).mean(0), torch.stack(prices).mean(0), limit


@pytest.mark.parametrize("form", ["annealed", "quantile"])
def test_dual_ascent_reaches_the_least_power_in_every_group(form):
    found, _, _ = trained(form)
    torch.testing.assert_close(found, least_log_powers(), atol=0.06, rtol=0)


def test_prices_are_the_multipliers_of_the_optimum():
    """Of the outage: 1 over its slope by log p, ``-s exp(-s)`` with ``exp(-s) = 0.9``; of the quantile: 1."""
    s = -math.log(1 - PROBABILITY)
    _, price, limit = trained("annealed")
    torch.testing.assert_close(price, torch.full((2,), 1 / (s * math.exp(-s))), rtol=0.15, atol=0)
    assert (limit.beta > SHARPEST / 2).all(), "near the nominal outage the step is sharp"
    torch.testing.assert_close(trained("quantile")[1], torch.ones(2), rtol=0.15, atol=0)


def test_the_annealed_step_is_smooth_while_users_are_far_from_their_targets():
    limit = OutageConstraint(1, PROBABILITY)
    for _ in range(200):
        limit.adapt({0: Measured(torch.tensor(1.0), torch.tensor(6.0))})
    assert limit.beta.item() == pytest.approx(0.5, rel=1e-2)
    far = torch.full((1, 4), -6.0, requires_grad=True)
    limit(far, torch.zeros(1, dtype=torch.long))[0].backward()
    assert (far.grad < -1e-3).all()


def test_a_group_without_instances_keeps_its_price():
    limit = OutageConstraint(3, PROBABILITY)
    term, seen = limit(torch.tensor([[1.0, -1.0]]), torch.tensor([1]))
    assert list(seen) == [1] and seen[1].outage == 0.5 and torch.isfinite(term)
    limit.adapt(seen)
    assert limit.price[0] == limit.price[2] == 3.0 and limit.price[1] > 3.0


@pytest.mark.parametrize(("probability", "form"), [(0.0, "annealed"), (1.0, "annealed"), (0.1, "hard")])
def test_settings_out_of_range_are_refused(probability, form):
    with pytest.raises(ConfigError):
        OutageConstraint(1, probability, form)
