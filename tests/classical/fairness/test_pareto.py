"""The Pareto frontier against brute force, gradient ascent by Adam, and weighted SLNR."""

import numpy as np
import pytest
import torch
from oracles import channels, rates

import beamforge
from beamforge import Network, Problem
from beamforge.classical.fairness.pareto import AscentData, Pareto, objective
from beamforge.classical.linear import WeightedSLNR
from beamforge.core.constraints import EqualPower, JainAtLeast, MeanJainAtLeast, TotalPower
from beamforge.core.errors import ConfigError
from beamforge.core.named_problems import build_problem
from beamforge.core.solution import Status
from beamforge.core.utilities import SumRate
from beamforge.scenarios import Fairness
from beamforge.scenarios.base import VALIDATION_SEEDS

CELL = Fairness().sample(12, seed=VALIDATION_SEEDS[0])
NOISE, POWER = 0.1, 2.0


def jain(rate):
    return rate.sum(-1) ** 2 / (rate.shape[-1] * (rate**2).sum(-1))


def frontier(H, price, power=EqualPower, **settings):
    """Sum rates and fairness, in NumPy, of the beams at a price."""
    problem = Problem(SumRate(), (power(POWER), MeanJainAtLeast(1.0)))
    solution = Pareto(price, **settings).solve(problem, Network.broadcast(torch.as_tensor(H), NOISE))
    rate = rates(H, solution.W, NOISE)
    return rate.sum(-1), jain(rate)


def grid(h, other, levels=36):
    """Power of a unit beam at its user and at the other one, for a grid of directions of C^2 up to phase."""
    angle, phase = np.meshgrid(np.linspace(0, np.pi / 2, levels), np.linspace(0, 2 * np.pi, levels, endpoint=False))
    f = np.stack([np.cos(angle), np.sin(angle) * np.exp(1j * phase)], -1).reshape(-1, 2) * np.sqrt(POWER / 2)
    return np.abs(f @ h) ** 2, np.abs(f @ other) ** 2


@pytest.mark.parametrize("price", [0.0, 3.0, 30.0])
def test_brute_force_is_not_better(price):
    """Two users, two antennas: a grid of all directions of both beams."""
    H = channels(4, 2, 2, seed=3) * np.sqrt([[0.3], [3.0]])
    S, J = frontier(H, price, starts=3)
    for b in range(len(H)):
        (own0, leak0), (own1, leak1) = grid(H[b, 0], H[b, 1]), grid(H[b, 1], H[b, 0])
        R0 = np.log2(1 + own0[:, None] / (leak1[None] + NOISE))
        R1 = np.log2(1 + own1[None] / (leak0[:, None] + NOISE))
        best = (R0 + R1 + price * (R0 + R1) ** 2 / (2 * (R0**2 + R1**2))).max()
        ours = S[b] + price * J[b]
        assert best <= ours * (1 + 1e-7)
        assert ours <= best * 1.02  # the grid is fine enough to say so


@pytest.mark.parametrize(("K", "N"), [(3, 5), (4, 4), (5, 3)])
@pytest.mark.parametrize("each", [True, False])
@pytest.mark.parametrize("penalty", [0.0, 60.0])
def test_the_gradient_agrees_with_finite_differences(K, N, each, penalty):
    generator = torch.Generator().manual_seed(0)

    def random(*shape, dtype=torch.float64):
        return torch.randn(shape, dtype=dtype, generator=generator)

    n = min(K, N)
    H, basis = 3 * random(2, K, n, dtype=torch.complex128), random(2, N, n, dtype=torch.complex128)
    weights, price = random(2, K).abs(), torch.tensor([0.0, 20.0], dtype=torch.float64)
    aim, penalties = torch.full_like(price, 0.95), torch.full_like(price, penalty)
    scene = AscentData(H, basis, torch.ones_like(price), weights, price, each, aim, penalties)
    point, way = random(2, 2 * n * K), random(2, 2 * n * K)
    slope = (objective(scene, point)[1] * way).sum(-1)
    expected = (objective(scene, point + 1e-6 * way)[0] - objective(scene, point - 1e-6 * way)[0]) / 2e-6
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-6)


def test_the_objective_never_decreases_and_equals_the_trace():
    problem = build_problem("fair-sum-rate", {**CELL.context, "jain": 0.9})
    solution = Pareto(40.0).solve(problem, CELL)
    rate = rates(CELL.truth.channel, solution.W, CELL.truth.noise)
    np.testing.assert_allclose(solution.trace[:, -1], rate.sum(-1) + 40 * jain(rate), rtol=1e-5)
    single = Pareto(40.0, starts=1).solve(problem, CELL)
    assert (single.trace.diff(dim=-1) >= -1e-6 * single.trace[:, 1:]).all()
    assert (single.status == Status.CONVERGED).all()


def test_every_beam_has_its_share_of_power():
    problem = build_problem("fair-sum-rate", {**CELL.context, "jain": 0.9})
    W = Pareto(40.0).solve(problem, CELL).W
    torch.testing.assert_close(W.abs().square().sum(-2), torch.full((12, 12), 10 / 12), rtol=1e-5, atol=0)


@pytest.mark.parametrize("price", [0.0, 40.0, 120.0])
def test_adam_on_the_directions_is_not_better(price):
    """Gradients by autograd, 240 steps from two starts of weighted SLNR, for the same objective."""
    problem = build_problem("fair-sum-rate", {**CELL.context, "jain": 0.9})

    def merit(V):
        rate = CELL.truth.rate(V / V.norm(dim=-2, keepdim=True) * (10 / 12) ** 0.5)
        S = rate.sum(-1)
        return S + price * S**2 / (12 * rate.square().sum(-1))

    best = torch.full((12,), -torch.inf)
    for alpha in (0.5, 2.0):
        V = WeightedSLNR(alpha).solve(problem, CELL).W.requires_grad_()
        optimiser = torch.optim.Adam([V], lr=0.03)
        for _ in range(240):
            optimiser.zero_grad()
            (-merit(V).sum()).backward()
            optimiser.step()
        best = best.maximum(merit(V).detach())
    ours = merit(Pareto(price).solve(problem, CELL).W)
    assert ours.mean() >= best.mean() - 1e-4 * best.mean().abs()
    assert (ours >= 0.998 * best).all()


@pytest.mark.parametrize("price", [20.0, 43.0, 64.0])
def test_it_is_above_weighted_slnr_at_the_same_mean(price):
    problem = build_problem("fair-sum-rate", {**CELL.context, "jain": 0.9})
    rate = rates(CELL.truth.channel, Pareto(price, starts=1).solve(problem, CELL).W, CELL.truth.noise)
    same = build_problem("fair-sum-rate", {**CELL.context, "jain": min(jain(rate).mean(), 0.96)})
    slnr = rates(CELL.truth.channel, WeightedSLNR().solve(same, CELL).W, CELL.truth.noise)
    assert jain(rate).mean() > jain(slnr).mean() - 1e-4
    assert rate.sum() > 1.01 * slnr.sum()


def test_the_mean_is_met_up_to_almost_equal_rates_but_not_with_a_user_without_channel():
    H = channels(3, 3, 3, seed=1) * np.sqrt([[0.1], [1.0], [10.0]])

    def solve(H, limit):
        stated = {"noise": NOISE, "p_max": POWER, "problem": "fair-sum-rate", "method": "pareto", "jain": limit}
        return beamforge.solve(torch.as_tensor(H), starts=1, max_iterations=60, **stated)

    assert jain(rates(H, solve(H, 0.995).W, NOISE)).mean() >= 0.995 - 1e-9
    H[:, 2] = 0
    solution = solve(H, 0.6)
    assert jain(rates(H, solution.W, NOISE)).mean() >= 0.6 - 1e-9
    assert torch.isfinite(solution.W.abs()).all()
    with pytest.raises(ConfigError, match=r"at most 0\.6[56]"):  # two of three
        solve(H, 0.7)


def per_instance(H, limit, **settings):
    """Sum rates and fairness, in NumPy, with a limit on each instance."""
    problem = Problem(SumRate(), (EqualPower(POWER), JainAtLeast(limit)))
    solution = Pareto(**settings).solve(problem, Network.broadcast(torch.as_tensor(H), NOISE))
    assert solution.solved.all()
    rate = rates(H, solution.W, NOISE)
    return rate.sum(-1), jain(rate)


@pytest.mark.parametrize("limit", [0.7, 0.9, 0.98])
def test_brute_force_is_not_better_at_the_same_fairness(limit):
    """Two users, two antennas: no pair of directions on a grid that is fair enough has a higher rate, also in gaps."""
    H = channels(6, 2, 2, seed=3) * np.sqrt([[0.1], [3.0]])
    S, J = per_instance(H, limit)
    assert (limit - 1e-9 <= J).all()
    for b in range(len(H)):
        (own0, leak0), (own1, leak1) = grid(H[b, 0], H[b, 1]), grid(H[b, 1], H[b, 0])
        R0 = np.log2(1 + own0[:, None] / (leak1[None] + NOISE))
        R1 = np.log2(1 + own1[None] / (leak0[:, None] + NOISE))
        fair = limit <= (R0 + R1) ** 2 / (2 * (R0**2 + R1**2))
        best = (R0 + R1)[fair].max()
        assert best * (1 - 1e-3) <= S[b]
        assert S[b] <= best * 1.05  # the grid is fine enough to say so


@pytest.mark.parametrize("limit", [0.6, 0.9])
def test_solutions_in_a_gap_of_the_frontier_are_above_weighted_slnr(limit):
    """With a limit on each instance, in a gap that no price leads into: compared at the fairness of each instance."""
    H = channels(6, 3, 4, seed=1) * np.sqrt(10.0 ** np.linspace(-2, 1, 3))[:, None]
    S, J = per_instance(H, limit)
    problem = Problem(SumRate(), (EqualPower(POWER), JainAtLeast(limit)))
    slnr = WeightedSLNR().solve(problem, Network.broadcast(torch.as_tensor(H), NOISE))
    known = rates(H, slnr.W, NOISE).sum(-1) * slnr.solved.numpy()
    assert (limit - 1e-9 <= J).all() and (0.999 * known <= S).all()
    alone = beamforge.solve(
        torch.as_tensor(H[:1]), noise=NOISE, p_max=POWER, problem="fair-sum-rate", jain=limit, method="pareto"
    )
    np.testing.assert_allclose(rates(H[:1], alone.W, NOISE).sum(-1), S[:1], rtol=1e-4)


def test_every_instance_can_have_its_own_limit():
    H = channels(4, 3, 4, seed=2) * np.sqrt([[0.1], [1.0], [10.0]])
    problem = Problem(SumRate(), (EqualPower(POWER), JainAtLeast(0.9)))
    solution = Pareto(starts=1).solve(problem, Network.broadcast(torch.as_tensor(H), NOISE))
    price = solution.info["price"].numpy()
    assert solution.solved.all() and len(np.unique(price)) == len(H)
    assert (jain(rates(H, solution.W, NOISE)) >= 0.9 - 1e-9).all()
    for b in range(len(H)):  # a lower price is not enough: the limit is met exactly, or by a jump to another optimum
        _, J = frontier(H[b : b + 1], 0.99 * price[b], starts=1)
        assert J[0] < 0.9


def test_power_control_is_better_and_a_price_of_zero_gives_the_sum_rate():
    H = channels(8, 4, 4, seed=5) * np.sqrt([[0.1], [1.0], [10.0], [3.0]])
    for price in (0.0, 20.0):
        equal, control = (frontier(H, price, power) for power in (EqualPower, TotalPower))
        assert (control[0] + price * control[1]).mean() > (equal[0] + price * equal[1]).mean()
    wmmse = beamforge.solve(torch.as_tensor(H), noise=NOISE, p_max=POWER, method="wmmse").W
    assert frontier(H, 0.0, TotalPower, starts=5)[0].mean() > 0.99 * rates(H, wmmse, NOISE).sum(-1).mean()


def test_results_at_a_given_price_do_not_depend_on_the_batch():
    H = channels(7, 4, 6, seed=6)
    network = Network.broadcast(torch.as_tensor(H), NOISE)
    problem = Problem(SumRate(), (EqualPower(POWER), MeanJainAtLeast(0.9)))
    tuned = Pareto().fitted(problem, network)
    whole = tuned.solve(problem, network).W
    parts = [tuned.solve(problem, Network.broadcast(torch.as_tensor(part), NOISE)).W for part in (H[:2], H[2:])]
    gap = torch.cat(parts).sub(whole).abs().max()
    assert gap < 1e-4 * whole.abs().max()


def test_a_given_start_replaces_the_others_and_weights_are_used():
    H = torch.as_tensor(channels(4, 3, 4, seed=7))
    network = Network.broadcast(H, NOISE)
    weights = torch.tensor([5.0, 1.0, 0.2], dtype=torch.float64)
    problem = Problem(SumRate(weights), (EqualPower(POWER), MeanJainAtLeast(0.9)))
    first = Pareto(0.0).solve(problem, network)
    again = Pareto(0.0).solve(problem, network, start=first.W)
    torch.testing.assert_close(again.trace[:, 0], first.trace[:, -1], rtol=1e-6, atol=0)
    torch.testing.assert_close(again.trace[:, -1], first.trace[:, -1], rtol=1e-6, atol=0)
    plain = Pareto(0.0).solve(Problem(SumRate(), problem.subject_to), network)
    value = [(weights * network.rate(s.W)).sum(-1) for s in (first, plain)]
    assert (value[0] > value[1]).all()


def test_almost_equal_rates_can_be_reached():
    network = Network.broadcast(torch.as_tensor(1e3 * channels(3, 3, 4, seed=8)), NOISE)
    problem = Problem(SumRate(), (EqualPower(POWER), MeanJainAtLeast(0.99995)))
    solution = Pareto(starts=1).solve(problem, network)
    assert jain(rates(network.channel, solution.W, NOISE)).mean() >= 0.99995


@pytest.mark.parametrize(
    "settings", [{"price": -1.0}, {"price": float("inf")}, {"starts": 0}, {"starts": 6}, {"tolerance": -1.0}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError):
        Pareto(**settings)


def test_a_start_without_beams_ends_with_beams_of_equal_power():
    network = Network.broadcast(torch.as_tensor(channels(3, 3, 4, seed=8)), NOISE)
    problem = Problem(SumRate(), (EqualPower(POWER), MeanJainAtLeast(0.9)))
    start = torch.ones(3, 4, 3, dtype=torch.complex128)
    start[0], start[1, :, 1] = 0, 0
    solution = Pareto(10.0).solve(problem, network, start=start)
    torch.testing.assert_close(solution.W.abs().square().sum(-2), torch.full((3, 3), POWER / 3, dtype=torch.float64))
