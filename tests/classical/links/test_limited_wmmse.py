"""Sum rate of links with a limit each: the best of textbook runs, of on-off patterns, and properties of the map."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from oracles_links import best_of_limited_starts, limited_wmmse, weighted_rate

from beamforge import Network, Problem, UnsupportedProblem
from beamforge.checks import check_solver
from beamforge.classical.links.limited_many_starts import LimitedManyStarts
from beamforge.classical.links.limited_wmmse import LimitedLinks, LimitedLinkWMMSE
from beamforge.core.constraints import PerAntennaPower, PerTransmitterPower, TotalPower
from beamforge.core.utilities import SumRate
from beamforge.registry import create, methods_for

LIMITS = Problem(SumRate(), (PerTransmitterPower(1.0),))


def rayleigh(batch, L, seed=0, cross=1.0):
    generator = torch.Generator().manual_seed(seed)
    G = torch.randn(batch, L, L, dtype=torch.complex128, generator=generator).abs().square()
    return torch.where(torch.eye(L, dtype=torch.bool), G, cross * G)


def rates(G, noise, W):
    return Network.power_control(G, noise).rate(W).sum(-1).numpy()


@pytest.mark.parametrize(("L", "cross", "noise"), [(4, 1.0, 0.01), (10, 1.0, 0.01), (10, 0.1, 0.1), (20, 1.0, 0.1)])
def test_the_default_has_what_the_best_of_twenty_textbook_runs_has(L, cross, noise):
    G = rayleigh(12, L, seed=L, cross=cross)
    network = Network.power_control(G, noise)
    solution = create(LIMITS, network).solve(LIMITS, network)
    rng = np.random.default_rng(0)
    best = np.zeros(len(G))
    for b, gains in enumerate(G.numpy()):
        starts = [np.ones(L), *(rng.random(L) for _ in range(19))]
        ends = (limited_wmmse(gains, noise, np.ones(L), np.ones(L), start, 200) for start in starts)
        best[b] = max(weighted_rate(gains, noise, np.ones(L), p) for p in ends)
    found = rates(G, noise, solution.W)
    assert found.mean() >= 0.999 * best.mean()
    assert (found >= 0.98 * best).all()


@pytest.mark.parametrize("kind", [LimitedLinkWMMSE, LimitedManyStarts], ids=["wmmse", "global"])
@pytest.mark.parametrize(
    ("L", "cross", "noise", "seed", "first"),
    [(6, 1.0, 1e-3, 1000, 30), (6, 1.0, 1e-3, 1001, 10), (6, 0.1, 1e-4, 24, 10), (10, 1.0, 1e-3, 13, 70)],
)
def test_no_instance_loses_what_hundreds_of_textbook_runs_find(kind, L, cross, noise, seed, first):
    """With little noise, where loud starts lead to the same few optima and over-relaxed steps leap over the best."""
    G = rayleigh(100 if L == 10 else 40, L, seed, cross)[first : first + 10]
    found = rates(G, noise, kind().solve(LIMITS, Network.power_control(G, noise)).W)
    assert (found >= 0.999 * best_of_limited_starts(G.numpy(), noise)).all()


def test_never_worse_than_any_pattern_of_links_that_are_on_or_off():
    G = rayleigh(10, 6, seed=1)
    network = Network.power_control(G, 0.05)
    found = rates(G, 0.05, LimitedLinkWMMSE().solve(LIMITS, network).W)
    for b, gains in enumerate(G.numpy()):
        best = max(weighted_rate(gains, 0.05, np.ones(6), np.array(p)) for p in itertools.product([0.0, 1.0], repeat=6))
        assert found[b] >= 0.98 * best


@pytest.mark.parametrize("limit", [PerTransmitterPower(1.0), PerAntennaPower([[1.0]] * 3)])
def test_links_that_are_all_alike_are_told_apart(limit):
    network = Network.power_control(torch.ones(1, 3, 3, dtype=torch.float64), 0.01)
    problem = Problem(SumRate(), (limit,))
    for name in ("wmmse", "global"):
        solution = create(problem, network, name).solve(problem, network)
        np.testing.assert_allclose(network.rate(solution.W).sum(), np.log2(101), rtol=1e-6)


def test_limits_of_both_kinds_hold_together():
    G = rayleigh(5, 3, seed=2, cross=0.01)
    problem = Problem(SumRate(), (PerTransmitterPower([1.0, 2.0, 3.0]), PerAntennaPower([[2.0], [1.0], [9.0]])))
    p = LimitedLinkWMMSE().solve(problem, Network.power_control(G, 1.0)).W.abs().square().squeeze(-2).numpy()
    np.testing.assert_allclose(p, np.tile([1.0, 1.0, 3.0], (5, 1)), rtol=1e-6)  # little interference: all there is


def test_a_step_is_the_textbook_s_and_never_lowers_the_rate():
    G, weights = rayleigh(4, 5, seed=4), torch.rand(4, 5, dtype=torch.float64) + 0.1
    limit = torch.tensor([1.0, 0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
    network = Network.power_control(G, 0.1)
    problem = Problem(SumRate(weights), (PerTransmitterPower(limit),)).bind(network)
    data = LimitedLinks.of(problem, network)
    v = torch.rand(4, 7, 5, dtype=torch.float64)
    after, before = data.step(v)
    for b, s in itertools.product(range(4), range(7)):
        numbers = [x.numpy() for x in (G[b], weights[b], limit, limit * v[b, s].square())]
        expected = limited_wmmse(numbers[0], 0.1, numbers[1], numbers[2], numbers[3], 1)
        np.testing.assert_allclose(limit * after[b, s].square(), expected, rtol=1e-9)
        np.testing.assert_allclose(before[b, s], weighted_rate(numbers[0], 0.1, numbers[1], numbers[3]), rtol=1e-9)
    assert (data.step(after)[1] >= before - 1e-12).all()


def test_other_settings_conform():
    check_solver(LimitedLinkWMMSE(gradient="unrolled", starts=4))


def test_who_serves_which_limits():
    network = Network.power_control(rayleigh(2, 3), 0.1)
    assert methods_for(LIMITS, network)[0] == "wmmse"
    assert isinstance(create(LIMITS, network), LimitedLinkWMMSE)
    both = Problem(SumRate(), (PerTransmitterPower(1.0), TotalPower(2.0)))
    assert not LimitedLinkWMMSE.supports(both, network) and methods_for(both, network)[0] == "wmmse"
    with pytest.raises(UnsupportedProblem):
        LimitedLinkWMMSE().solve(LIMITS, Network.broadcast(torch.ones(3, 4) + 0j, 1.0))


def test_a_link_that_is_off_stays_off():
    G = rayleigh(5, 4, seed=6)
    problem = Problem(SumRate(), (PerTransmitterPower([1.0, 0.0, 1.0, 1.0]),))
    W = create(problem, network := Network.power_control(G, 0.1)).solve(problem, network).W
    assert (W[..., 1] == 0).all() and torch.isfinite(W.real).all()
