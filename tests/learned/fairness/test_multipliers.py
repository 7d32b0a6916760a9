"""Learned multipliers for sum rate and fairness: properties that hold for any weights, good, random or absurd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learning import all_random, check_gradient_of_loss
from scipy.optimize import minimize

from beamforge import Network, Problem, evaluate
from beamforge.checks import check_solver
from beamforge.classical.linear import WeightedSLNR
from beamforge.classical.structure import coefficients
from beamforge.core.batching import take
from beamforge.core.constraints import EqualPower, JainAtLeast, MeanJainAtLeast, TotalPower, jain_index
from beamforge.core.errors import ConfigError, UnsupportedProblem
from beamforge.core.observation import Observation
from beamforge.core.utilities import SumRate
from beamforge.io import weights
from beamforge.io.weights import Weights
from beamforge.learned.fairness import multipliers as fair_multipliers
from beamforge.learned.fairness.features import (
    EXPONENT_SLOPE,
    features_at,
    marginal,
    objective,
    prepare_channels,
    rates_of,
)
from beamforge.learned.fairness.multipliers import FairMultipliers
from beamforge.registry import configure
from beamforge.scenarios import Fairness
from beamforge.training.data.cells import Cells
from beamforge.training.stream import Stream


def problem(power=10.0, jain=0.9):
    return Problem(SumRate(), (EqualPower(power), MeanJainAtLeast(jain)))


def random_solver(std, seed=0, **settings):
    return all_random(FairMultipliers(checkpoint="random", **settings), std, seed)


def channels(K, N, batch=6, seed=0, dtype=torch.complex128):
    """Rayleigh fading with users up to 30 dB apart."""
    generator = torch.Generator().manual_seed(seed)
    gain = 10 ** (3 * torch.rand(batch, K, 1, dtype=torch.float64, generator=generator) - 1)
    return (gain.sqrt() * torch.randn(batch, K, N, dtype=torch.complex128, generator=generator)).to(dtype)


def networks(batch=16, seed=7, dtype=torch.complex64, **sizes):
    return Fairness(**sizes).sample(batch, seed=seed, dtype=dtype).truth


def rates(solver, network, asked=None):
    with torch.no_grad():
        solution = solver.solve(asked or problem(), network)
    assert solution.solved.all()
    return network.rate(solution.W)


def value(solver, network, price):
    found = rates(solver, network)
    return found.sum(-1) + price * jain_index(found)


def weighted_slnr(network, power, price):
    """The weighted SLNR that is corrected, by its own formula with one watt per user."""
    share = price / prepare_channels(problem(power).bind(network), Observation(network)).features.rate
    found = []
    for i in range(len(network.H)):
        one = take(network, slice(i, i + 1))
        scaled = Network.broadcast(one.channel * (power / one.users) ** 0.5, one.noise)
        found.append(WeightedSLNR(alpha=EXPONENT_SLOPE * share[i].item()).solve(problem(one.users), scaled).W)
    return torch.cat(found) * (power / network.users) ** 0.5


# --- solutions -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("std", [0.0, 0.1, 1.0])
def test_any_weights_conform(std):
    check_solver(random_solver(std))


def test_outputs_of_zero_are_weighted_slnr():
    network = networks(batch=4, dtype=torch.complex128)
    for price in (0.0, 25.0, 60.0):
        W = random_solver(0.0, price=price).solve(problem(), network).W
        torch.testing.assert_close(W.abs(), weighted_slnr(network, 10.0, price).abs(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("K", "N"), [(2, 1), (5, 3), (5, 40), (30, 20)])
def test_one_set_of_weights_for_any_size_and_every_beam_has_its_power(K, N):
    W = random_solver(0.3, price=20.0).solve(problem(6.0), Network.broadcast(channels(K, N), 0.1)).W
    torch.testing.assert_close(W.abs().square().sum(-2), torch.full((6, K), 6.0 / K, dtype=torch.float64))


def test_relabelled_users_get_relabelled_beams():
    H, solver = channels(9, 7), random_solver(0.3, price=30.0)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    there = rates(solver, Network.broadcast(H, 0.01))[:, order]
    here = rates(solver, Network.broadcast(H[:, order], 0.01))
    torch.testing.assert_close(here, there, rtol=1e-6, atol=1e-8)


def test_rates_depend_on_the_gram_matrix_alone():
    """Channels with the same Gram matrix get the same rates, rotated or with antennas without a channel."""
    H, solver = channels(6, 6), random_solver(0.3, price=30.0)
    rotation = torch.linalg.qr(torch.randn(11, 6, dtype=torch.complex128, generator=torch.Generator().manual_seed(4)))[
        0
    ]
    few = rates(solver, Network.broadcast(H, 0.02))
    for more in (H @ rotation.mH, torch.cat([H, torch.zeros_like(H)], -1)):
        torch.testing.assert_close(few, rates(solver, Network.broadcast(more, 0.02)), rtol=1e-7, atol=1e-9)


def test_power_and_noise_matter_only_by_their_ratio():
    H, solver = channels(6, 6), random_solver(0.3, price=30.0)
    loud = rates(solver, Network.broadcast(H, 2.0), problem(40.0))
    torch.testing.assert_close(loud, rates(solver, Network.broadcast(H, 0.1), problem(2.0)), rtol=1e-7, atol=1e-9)


# --- the safeguard ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("std", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("price", [0.0, 40.0, 300.0])
def test_never_worse_than_the_weighted_slnr_it_starts_from(std, price):
    for dtype, slack in ((torch.complex128, 1e-9), (torch.complex64, 1e-3)):
        network = networks(batch=12, dtype=dtype)
        floor = value(random_solver(0.0, price=price), network, price)
        for seed in range(2):
            found = value(random_solver(std, seed, price=price), network, price)
            assert (found >= floor * (1 - slack)).all(), f"short by {(floor - found).max():.2e}"


def hostile(name):
    """Channels far from training: [B, K, N] and the noise."""
    H = channels(6, 6, batch=4)
    if name == "200 users":
        return channels(200, 20, batch=1), 0.01
    if name == "-40 dB":
        return H, 1e4
    if name == "80 dB":
        return H, 1e-8
    if name == "parallel users":
        return H[:, :1].expand(4, 6, 6).clone(), 0.01
    if name == "users without a channel":
        H[:, ::2] = 0
        return H, 0.01
    if name == "no user has a channel":
        return torch.zeros_like(H), 0.01
    return H * torch.logspace(-4, 4, 6, dtype=torch.float64).unsqueeze(-1), 0.01  # 160 dB between users


HOSTILE = ["200 users", "-40 dB", "80 dB", "parallel users", "users without a channel", "160 dB apart"]


@pytest.mark.parametrize("name", [*HOSTILE, "no user has a channel"])
@pytest.mark.parametrize("std", [0.2, 3.0])
def test_channels_far_from_training_get_at_least_weighted_slnr(name, std):
    H, noise = hostile(name)
    for dtype, slack in ((torch.complex128, 1e-7), (torch.complex64, 2e-2)):
        network = Network.broadcast(H.to(dtype), noise)
        for price in (0.0, 30.0, 1e6):
            floor = value(random_solver(0.0, price=price), network, price)
            found = value(random_solver(std, price=price), network, price)
            assert torch.isfinite(found).all()
            assert (found >= floor * (1 - slack)).all(), f"{found.tolist()} below {floor.tolist()}"


@pytest.mark.parametrize("size", [1e-20, 1e12, 1e20])
def test_an_instance_out_of_the_range_of_its_precision_fails_alone(size):
    """In single precision, beside ordinary instances; it has beams where weighted SLNR has."""
    H = channels(4, 5, batch=3, dtype=torch.complex64)
    network = Network.broadcast(H * torch.tensor([size, 1, 1])[:, None, None], 0.1)
    found = random_solver(0.3, price=20.0).solve(problem(), network)
    alone = random_solver(0.3, price=20.0).solve(problem(), Network.broadcast(H[1:], 0.1))
    assert found.solved.tolist() == [size < 1e20, True, True]
    torch.testing.assert_close(found.W[1:], alone.W, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("noise", [1e-3, 1e-8])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_rates_are_right_with_more_users_than_antennas_and_little_noise(noise, dtype):
    """The Gram matrix is nearly singular there; rates by NumPy in double precision meet the target."""
    network = Network.broadcast(channels(6, 3, dtype=dtype), noise)
    for jain in (0.35, 0.5):
        asked = problem(jain=jain)
        solution = shipped().solve(asked, network)
        assert evaluate(asked, network, solution.W).feasible.all()
        power = np.abs(network.channel.numpy().astype(complex) @ solution.W.numpy().astype(complex)) ** 2
        own = np.diagonal(power, axis1=-2, axis2=-1)
        rate = np.log2(1 + own / (power.sum(-1) - own + noise))
        assert (rate.sum(-1) ** 2 / (6 * (rate**2).sum(-1))).mean() >= jain - 1e-4


def test_inputs_of_the_filter_are_finite_and_of_moderate_size():
    for name in [*HOSTILE, "no user has a channel"]:
        H, noise = hostile(name)
        for dtype in (torch.complex64, torch.complex128):
            network = Network.broadcast(H.to(dtype), noise)
            seen = prepare_channels(problem().bind(network), Observation(network))
            for price in (0.0, 30.0, 1e9):
                view = features_at(seen.gram, seen.features, torch.full((len(H),), price).to(network.noise))
                for part in (view.nodes, view.shifts):
                    assert torch.isfinite(part).all() and part.abs().max() < 1e3, name


# --- the price -------------------------------------------------------------------------------------------------------
def shipped(**settings):
    return FairMultipliers(**settings)


def test_a_higher_price_gives_more_fairness_and_less_rate():
    """On average; and at each price, the beams for that price have the largest objective."""
    network, prices = networks(batch=64), torch.tensor([0.0, 10.0, 20.0, 30.0, 45.0, 70.0, 110.0])
    found = [rates(shipped(price=price.item()), network) for price in prices]
    fairness = torch.stack([jain_index(each).mean() for each in found])
    total = torch.stack([each.sum(-1).mean() for each in found])
    assert (fairness.diff() > 0).all() and fairness[0] < 0.66 and fairness[-1] > 0.985
    assert (total.diff() < 0).all()
    worth = total + prices.unsqueeze(-1) * fairness
    assert (worth.argmax(-1) == torch.arange(len(prices))).all()


def test_a_mean_is_met_and_hardly_exceeded_in_small_and_large_batches():
    for batch in (20, 640):
        network = networks(batch=batch)
        for jain in (0.7, 0.95):
            solution = shipped().solve(problem(jain=jain), network)
            mean = jain_index(network.rate(solution.W)).mean().item()
            assert jain - 1e-5 <= mean <= jain + 1.6e-3
            price = solution.info["price"]
            assert (price == price[0]).all()
            again = shipped(price=price[0].item()).solve(problem(jain=jain), network)
            torch.testing.assert_close(again.W, solution.W, rtol=1e-3, atol=1e-3)


def test_the_search_for_large_batches_finds_the_same_price(monkeypatch):
    network = networks(batch=512)
    quick = shipped().solve(problem(jain=0.8), network).info["price"][0].item()
    monkeypatch.setattr(FairMultipliers, "solve_large_batch", lambda *_: None)
    usual = shipped().solve(problem(jain=0.8), network).info["price"][0].item()
    assert usual == pytest.approx(quick, rel=0.02)


def test_each_instance_can_be_asked_for_its_own_fairness():
    network = networks(batch=24, dtype=torch.complex128)
    solution = shipped().solve(Problem(SumRate(), (EqualPower(10.0), JainAtLeast(0.9))), network)
    fairness = jain_index(network.rate(solution.W))[solution.solved]
    assert solution.solved.float().mean() > 0.9
    assert (fairness >= 0.9 - 1e-9).all()
    assert (solution.info["price"].diff() != 0).any()


def test_a_mean_out_of_reach_is_refused_with_the_largest_possible():
    for batch in (20, 640):
        with pytest.raises(ConfigError, match=r"jain must be at most 0\.9\d+, .* got 0.9999"):
            shipped().solve(problem(jain=0.9999), networks(batch=batch))


def test_better_than_weighted_slnr_at_equal_fairness_on_drops_held_out():
    network = Fairness().sample(300, seed=10**9).truth
    for alpha in (0.0, 0.5, 0.85, 1.1, 1.8):
        slnr = rates(WeightedSLNR(alpha=alpha), network)
        found = rates(shipped(), network, problem(jain=jain_index(slnr).mean().item()))
        assert found.sum(-1).mean() > 1.005 * slnr.sum(-1).mean()


# --- the loss --------------------------------------------------------------------------------------------------------
def test_the_derivative_of_the_loss_is_that_of_finite_differences():
    instance = Stream.training(Cells(named_share=0.0, users=(4, 4), varied_share=1.0), 0, 3, torch.complex128).batch_at(
        0
    )
    solver = random_solver(0.1, width=6, rounds=2).double()
    check_gradient_of_loss(solver, instance)


def test_learning_lowers_the_loss():
    stream = Stream.training(Cells(users=(4, 8)), 0, 32)
    torch.manual_seed(0)
    solver = FairMultipliers(checkpoint="random", width=12, rounds=2)
    held_out = Stream.validation(stream.source, 64).batch_at(0)
    before = solver.loss(held_out, torch.Generator().manual_seed(0))[0].item()
    optimiser = torch.optim.AdamW(solver.parameters(), lr=5e-3)
    for step in range(25):
        optimiser.zero_grad()
        solver.loss(stream.batch_at(step), torch.Generator().manual_seed(step))[0].backward()
        optimiser.step()
    with torch.no_grad():
        assert solver.loss(held_out, torch.Generator().manual_seed(0))[0].item() < before - 0.01


def test_marginal_returns_derivatives():
    """By rate, interference and power, against finite differences."""
    generator = torch.Generator().manual_seed(0)
    power, price = torch.rand(2, 4, 4, dtype=torch.float64, generator=generator), torch.tensor([0.0, 20.0]).double()

    def worth_of(power, more=0.0):
        interference = power.masked_fill(torch.eye(4, dtype=torch.bool), 0).sum(-1) + 1 + more
        rate = torch.log1p(torch.diagonal(power, dim1=-2, dim2=-1) / interference) / np.log(2)
        return rate.sum(-1) + price * jain_index(rate), rate

    rate, worth, mu, nu = marginal(power, price)
    torch.testing.assert_close(rate, worth_of(power)[1])
    for u in range(4):
        unit, step = torch.eye(4, dtype=torch.float64)[u], 1e-6
        shifted = [rate + sign * step * unit for sign in (1, -1)]
        by_rate = [each.sum(-1) + price * jain_index(each) for each in shifted]
        by_noise = [worth_of(power, sign * step * unit)[0] for sign in (1, -1)]
        by_power = [worth_of(power * (1 + sign * step * unit))[0] for sign in (1, -1)]
        for (up, down), expected in ((by_rate, worth), (by_noise, -mu / np.log(2)), (by_power, nu / np.log(2))):
            torch.testing.assert_close((up - down) / (2 * step), expected[:, u], rtol=1e-6, atol=1e-7)


def test_on_the_frontier_marginal_returns_the_multipliers():
    """SciPy's L-BFGS maximises the objective over the multipliers; `marginal` returns the maximiser."""
    H = channels(3, 4, batch=1)
    gram, price = H @ H.mH, torch.tensor([8.0], dtype=torch.float64)

    def height(x):
        x = torch.tensor(x.reshape(2, 1, 3), requires_grad=True)
        rate = rates_of((gram @ coefficients(gram, *x.exp())).abs().square())
        merit = objective(rate, price).sum()
        (slope,) = torch.autograd.grad(-merit, x)
        return -merit.item(), slope.numpy().ravel()

    best = minimize(height, np.zeros(6), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10})
    mu, nu = torch.tensor(best.x.reshape(2, 1, 3)).exp()
    _, _, asked, ridge = marginal((gram @ coefficients(gram, mu, nu)).abs().square(), price)
    assert (asked > 0).all() and (ridge > 0).all()
    for u in range(3):  # a direction depends only on the ratios of the other prices to its own ridge
        others = [other for other in range(3) if other != u]
        ratios = [(asked / ridge[:, u : u + 1])[0, others], (mu / nu[:, u : u + 1])[0, others]]
        np.testing.assert_allclose(*[each.numpy() for each in ratios], rtol=1e-3)


# --- weights and settings --------------------------------------------------------------------------------------------
def test_weights_come_back_from_a_file(tmp_path):
    path, solver = tmp_path / "w.safetensors", random_solver(0.3, width=10, rounds=2, price=30.0)
    header = {"model": "fair-multipliers", "settings": {"checkpoint": "random", "width": 10, "rounds": 2}}
    weights.save(path, Weights(solver.state_dict(), header))
    again = FairMultipliers(checkpoint=str(path), price=30.0)
    assert not any(parameter.requires_grad for parameter in again.parameters()), "loaded weights require gradients"
    network = Network.broadcast(channels(5, 5), 0.01)
    with torch.no_grad():
        assert torch.equal(again.solve(problem(), network).W, solver.solve(problem(), network).W)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"price": "-1"}, "price must be finite and not negative, got -1"),
        ({"price": "inf"}, "price must be finite"),
        ({"price": "some"}, "price must be"),
        ({"width": "0", "checkpoint": "random"}, "width and rounds must be at least 1, got 0"),
        ({"checkpoint": "/nowhere.safetensors"}, "checkpoint must be a safetensors file, got /nowhere.safetensors"),
        ({"prize": "3"}, "did you mean 'price'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        configure(FairMultipliers, settings)


def test_weights_of_another_shape_are_refused(tmp_path):
    header = {"model": "fair-multipliers", "settings": {"width": 99, "rounds": 2}}
    weights.save(tmp_path / "w.safetensors", Weights(random_solver(0.3, width=10, rounds=2).state_dict(), header))
    with pytest.raises(ConfigError, match="checkpoint must fit this version's graph filter"):
        FairMultipliers(checkpoint=str(tmp_path / "w.safetensors"))


def test_other_questions_are_refused():
    network = Network.broadcast(channels(3, 3), 1.0)
    weight = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    for asked in (
        Problem(SumRate(), (TotalPower(1.0), MeanJainAtLeast(0.9))),
        Problem(SumRate(weight), (EqualPower(1.0), MeanJainAtLeast(0.9))),
        Problem(SumRate(), (EqualPower(1.0),)),
    ):
        with pytest.raises(UnsupportedProblem):
            random_solver(0.1).solve(asked, network)


def test_the_chunk_size_does_not_matter(monkeypatch):
    network, solver = networks(batch=20), random_solver(0.2, price=20.0)
    together = rates(solver, network)
    monkeypatch.setattr(fair_multipliers, "CHUNK", 7)
    torch.testing.assert_close(rates(solver, network), together, rtol=1e-4, atol=1e-4)
