"""The exact power split against a search, and the initial sensing streams."""

from __future__ import annotations

import pytest
import torch
from isac_problems import beams, problem, score

from beamforge.learned.isac.power_split import MARGIN, fitted, least_share, repaired
from beamforge.learned.isac.streams import balanced, initial, steered
from beamforge.learned.l2o.ascent import of_full_power

EVERY = torch.linspace(0, 1, 20001, dtype=torch.float64)


def test_the_least_share_is_that_of_a_search():
    generator = torch.Generator().manual_seed(0)
    one, other = (4 * torch.rand(200, 3, dtype=torch.float64, generator=generator) - 1.5 for _ in range(2))
    share, exists = least_share(one, other)
    fits = ((1 - EVERY) * one.unsqueeze(-1) + EVERY * other.unsqueeze(-1) >= 0).all(1)
    for i in range(200):
        if exists[i]:
            assert float(EVERY[fits[i]][0]) == pytest.approx(float(share[i]), abs=1e-4)
        else:
            assert share[i] == 0 and fits[i].sum() <= 1
    assert 20 < exists.sum() < 180 and (share > 0).sum() > 20


def test_a_repair_meets_all_targets_exactly_at_full_power():
    data = problem(batch=40, gain=1.2)
    W, F = beams(data)
    answer = repaired(data, W, F, steered(data))
    rate, sensed = score(data, answer.W, answer.F)
    power = answer.W.abs().square().sum((-2, -1)) + answer.F.abs().square().sum((-2, -1))
    torch.testing.assert_close(power, torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(answer.rate, torch.as_tensor(rate))
    least = torch.as_tensor(sensed).amin(-1)[answer.feasible]
    assert answer.feasible.sum() > 30 and (least >= 1).all()
    assert (least < 1 + 3 * MARGIN).sum() > 10, "no more power than needed"


def test_a_larger_share_for_sensing_only_lowers_the_rate():
    data = problem(batch=10)
    W, F = (of_full_power(each) for each in beams(data))
    rates = [data.rate(W * (1 - share).sqrt(), F * share.sqrt()) for share in EVERY[::1000]]
    assert (torch.stack(rates).diff(dim=0) < 0).all()


def test_beams_that_cannot_be_repaired_stay():
    data = problem(gain=0.1)
    W, F = beams(data)
    answer = repaired(data, W, F, steered(data))
    assert not answer.feasible.any()
    torch.testing.assert_close(answer.W, W)
    torch.testing.assert_close(answer.F[..., :3], F)


@pytest.mark.parametrize("count", [5, 6, 9])
def test_enough_streams_carry_the_same_covariance(count):
    data = problem()
    answer = repaired(data, *beams(data), steered(data))
    found = fitted(data, answer, count)
    assert found.F.shape == (3, 5, count)
    torch.testing.assert_close(found.F @ found.F.mH, answer.F @ answer.F.mH)


@pytest.mark.parametrize("count", [0, 1])
def test_with_too_few_streams_what_is_claimed_to_be_feasible_is(count):
    data = problem(batch=40, gain=1.5)
    found = fitted(data, repaired(data, *beams(data), steered(data)), count)
    _, sensed = score(data, found.W, found.F)
    assert found.F.shape[-1] == count and found.feasible.any()
    assert (torch.as_tensor(sensed).amin(-1)[found.feasible] >= 1).all()


def test_balanced_streams_have_equal_sensing_snrs_where_targets_are_apart():
    data = problem(antennas=12, targets=3)
    C = torch.linalg.qr(data.C).Q * torch.tensor([1.0, 2.0, 5.0])
    F = balanced(data._replace(C=C), C)
    sensed = data._replace(C=C).sensed(F)
    torch.testing.assert_close(sensed, sensed[:, :1].expand(-1, 3), rtol=1e-2, atol=0)
    torch.testing.assert_close(F.abs().square().sum((-2, -1)), torch.ones(3, dtype=torch.float64))


def test_initial_beams_have_full_power_and_meet_what_steered_streams_can_meet():
    data = problem(batch=40, gain=0.6)
    W, F = initial(data)
    power = W.abs().square().sum((-2, -1)) + F.abs().square().sum((-2, -1))
    torch.testing.assert_close(power, torch.ones(40, dtype=torch.float64))
    possible = data.sensed(steered(data)).amin(-1) >= 1
    assert 0 < possible.sum() < 40
    assert repaired(data, W, F, steered(data)).feasible[possible].all()
