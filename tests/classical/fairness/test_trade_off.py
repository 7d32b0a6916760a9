"""A prescribed fairness: the constraint, the search for the parameter that meets it, and weighted SLNR."""

import numpy as np
import pytest
import torch
from oracles import channels, rates

import beamforge
from beamforge import Network, Problem, evaluate
from beamforge.classical.fairness.pareto import Pareto
from beamforge.classical.fairness.trade_off import least_parameter
from beamforge.classical.linear import WeightedSLNR
from beamforge.core.constraints import EqualPower, JainAtLeast, MeanJainAtLeast, TotalPower, jain_index
from beamforge.core.errors import ConfigError, ShapeError, UnsupportedProblem
from beamforge.core.named_problems import build_problem
from beamforge.core.solution import Status
from beamforge.core.utilities import SumRate
from beamforge.learned.fairness.multipliers import FairMultipliers
from beamforge.scenarios import Fairness
from beamforge.scenarios.base import VALIDATION_SEEDS

CELL = Fairness().sample(200, seed=VALIDATION_SEEDS[0], dtype=torch.complex128)
ALPHAS = np.linspace(0, 5, 201)
SPREAD = channels(40, 3, 4) * np.sqrt([[0.1], [1.0], [10.0]])


def jain(rate):
    """Jain's index by its definition, in NumPy."""
    rate = np.asarray(rate)
    return rate.sum(-1) ** 2 / (rate.shape[-1] * (rate**2).sum(-1))


def asked(limit, instance=CELL):
    return build_problem("fair-sum-rate", {**instance.context, "jain": limit})


# --- the constraints -------------------------------------------------------------------------------------------------
def test_constraints_by_hand():
    """Two users without interference: rates 1 and 3, so J = 16/20; beams of 1 and 7 watts of 8."""
    network = Network.broadcast(torch.eye(2, dtype=torch.complex128), noise=1.0)
    W = torch.diag(torch.tensor([1.0, 7**0.5], dtype=torch.complex128))
    limits = (EqualPower(8.0), JainAtLeast(0.9), MeanJainAtLeast(0.75))
    report = evaluate(Problem(SumRate(), limits), network, W)
    expected = {"EqualPower": 0.75, "JainAtLeast": 1 - 0.8 / 0.9, "MeanJainAtLeast": 1 - 0.8 / 0.75}
    assert {name: value.item() for name, value in report.violation.items()} == pytest.approx(expected, rel=1e-12)
    assert evaluate(Problem(SumRate(), (EqualPower(2.0),)), network, torch.eye(2, dtype=W.dtype)).feasible
    assert not evaluate(Problem(SumRate(), (EqualPower(3.0),)), network, torch.eye(2, dtype=W.dtype)).feasible


def test_a_user_without_a_channel_may_have_no_beam():
    blocked = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.complex128))
    equal = Problem(SumRate(), (EqualPower(2.0),))
    amplitude = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.5], [1.0, 1.5], [0.0, 1.0]], dtype=torch.complex128)
    network = Network.broadcast(blocked.expand(5, 2, 2), noise=1.0)
    assert evaluate(equal, network, amplitude.diag_embed()).feasible.tolist() == [True, True, False, False, False]
    orthogonal = Network.broadcast(torch.eye(2, dtype=torch.complex128), noise=1.0)
    assert not evaluate(equal, orthogonal, blocked).feasible
    some = torch.as_tensor(SPREAD).clone()
    some[3, 1] = 0
    problem = build_problem("fair-sum-rate", {"p_max": 1.0, "jain": 0.7})
    network = Network.broadcast(some, noise=0.1)
    assert evaluate(problem, network, WeightedSLNR().solve(problem, network).W).feasible.all()


@pytest.mark.parametrize("limit", ["p_max_antenna", "p_max_transmitter"])
def test_other_power_limits_are_refused(limit):
    with pytest.raises(ConfigError, match="fair-sum-rate must have one transmitter and p_max alone"):
        build_problem("fair-sum-rate", {"p_max": 1.0, "jain": 0.7, limit: 0.1})


def test_a_mean_constraint_holds_for_a_batch_and_not_for_single_instances():
    network = Network.broadcast(torch.eye(2, dtype=torch.complex128).expand(2, 2, 2), noise=1.0)
    W = torch.stack([torch.diag(torch.tensor(a, dtype=torch.complex128)) for a in ([1.0, 1.0], [1.0, 0.0])])
    report = evaluate(Problem(SumRate(), (MeanJainAtLeast(0.75),)), network, W)  # J of 1 and 1/2
    assert report.feasible.all()
    assert report.violation["MeanJainAtLeast"].mean().item() == pytest.approx(0, abs=1e-12)
    assert not evaluate(Problem(SumRate(), (JainAtLeast(0.75),)), network, W).feasible.all()


@pytest.mark.parametrize("limit", [1 / 12, 0.05, 1.0001, 0.0, -0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("settings", [{}, {"alpha": 1.0}])
def test_an_impossible_index_is_refused(limit, settings):
    H = torch.as_tensor(channels(3, 12, 16))
    with pytest.raises(ShapeError, match=f"jain must be above 1/K = 0.08333 and at most 1 for 12 users, got {limit:g}"):
        beamforge.solve(H, noise=0.1, p_max=1.0, problem="fair-sum-rate", method="wslnr", jain=limit, **settings)


@pytest.mark.parametrize("method", ["wslnr", "pareto", "multipliers"])
def test_a_single_user_has_an_index_of_one(method):
    stated = {"noise": 0.1, "p_max": 2.0, "problem": "fair-sum-rate", "method": method}
    H = torch.as_tensor(channels(3, 1, 4))
    found = beamforge.solve(H, jain=1.0, **stated).W
    expected = np.log2(1 + 20 * H.abs().square().sum((-2, -1)).numpy())  # maximum ratio
    np.testing.assert_allclose(rates(H, found, 0.1)[:, 0], expected, rtol=1e-9)
    with pytest.raises(ShapeError, match=r"^jain must be 1 for one user, got 0\.9"):
        beamforge.solve(H, jain=0.9, **stated)


@pytest.mark.parametrize(
    ("limit", "words"), [("some", "jain must be a real number"), (torch.tensor(0.8), "jain must be torch.float64")]
)
def test_an_index_of_the_wrong_type_is_named_in_the_message(limit, words):
    with pytest.raises(ShapeError, match=words):
        beamforge.solve(torch.as_tensor(channels(3, 2, 2)), noise=0.1, p_max=1.0, problem="fair-sum-rate", jain=limit)


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_the_index_does_not_depend_on_the_unit_and_is_nan_for_nan_rates(size):
    rate = torch.tensor([[4.0, 1.0], [0.0, 0.0], [torch.nan, 1.0], [1.0, torch.inf]])
    found = jain_index(rate * size)
    np.testing.assert_allclose(found, [25 / 34, 1, np.nan, np.nan], rtol=1e-6)


@pytest.mark.parametrize("missing", ["p_max", "jain"])
def test_a_missing_number_is_named_in_the_message(missing):
    stated = {"p_max": 1.0, "jain": 0.9}
    del stated[missing]
    with pytest.raises(ConfigError, match=f"{missing} .* must be given"):
        beamforge.solve(torch.as_tensor(channels(3, 2, 2)), noise=0.1, problem="fair-sum-rate", **stated)


# --- the scalar ------------------------------------------------------------------------------------------------------
def test_roots_of_known_functions_are_found_independently():
    target = torch.tensor([0.0, 0.3, 0.7, 0.95, 1.5], dtype=torch.float64)
    found = least_parameter(lambda x: 1 - torch.exp(-x), target, (0.0, 1.0, 10.0), 1e-9)
    assert found.met.tolist() == [True] * 4 + [False]
    expected = -torch.log1p(-target[:4])
    torch.testing.assert_close(found.parameter[:4], expected, rtol=1e-7, atol=1e-9)
    assert (1 - torch.exp(-found.parameter[:4]) >= target[:4]).all()
    assert found.best[4].item() == pytest.approx(1 - np.exp(-10), rel=1e-12)


def test_at_a_jump_the_upper_side_is_returned():
    target = torch.tensor([0.5], dtype=torch.float64)
    found = least_parameter(lambda x: (x > 1.7).double(), target, (0.0, 4.0), 1e-6)
    assert found.met.item() and 1.7 < found.parameter.item() < 1.7 + 1e-6


def test_a_maximum_between_two_grid_points_is_found():
    """1 - (x - top)^2 on the unevenly spaced grid 0, 1, 3."""
    top = torch.tensor([0.4, 1.3, 1.9, 0.6, 0.0], dtype=torch.float64)

    def fairness(x):
        return 1 - (x - top) ** 2

    reached = torch.full_like(top, 0.9995)
    found = least_parameter(fairness, reached, (0.0, 1.0, 3.0), 1e-9)
    assert found.met.all() and (fairness(found.parameter) >= reached).all()
    torch.testing.assert_close(found.parameter[:4], top[:4] - 0.0005**0.5, rtol=0, atol=1e-6)
    beyond = least_parameter(fairness, torch.full_like(top, 1.1), (0.0, 1.0, 3.0), 1e-9)
    assert not beyond.met.any()
    torch.testing.assert_close(beyond.best, torch.ones_like(top), rtol=0, atol=1e-4)


def test_a_root_has_its_implicit_derivatives():
    """x^3 = target / c: dx/dc = -x / (3 c)."""
    c = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    found = least_parameter(lambda x: c * x**3, torch.tensor([0.5, 0.9], dtype=torch.float64), (0.0, 1.0), 1e-12)
    (slope,) = torch.autograd.grad(found.parameter.sum(), c)
    torch.testing.assert_close(slope, (-found.parameter / (3 * c)).detach(), rtol=1e-6, atol=0)


# --- weighted SLNR at it ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("limit", [0.7, 0.86, 0.96])
def test_the_mean_is_met_and_hardly_exceeded(limit):
    solution = WeightedSLNR().solve(asked(limit), CELL)
    mean = jain(rates(CELL.truth.channel, solution.W, CELL.truth.noise)).mean()
    assert limit <= mean < limit + 1e-6
    alpha = solution.info["alpha"]
    assert (alpha == alpha[0]).all() and 0 < alpha[0] < 5
    given = WeightedSLNR(alpha[0].item()).solve(asked(limit), CELL)
    torch.testing.assert_close(given.W, solution.W, rtol=1e-9, atol=0)


def test_the_table_of_weighted_slnr():
    """The sum rates of the reconstructed cell at the alphas of the paper's Table II."""
    table = {0.0: 30.96, 0.5: 29.93, 0.7: 28.33, 0.85: 26.55, 1.0: 24.71, 1.3: 21.87, 1.8: 19.23, 5.0: 15.10}
    for alpha, expected in table.items():
        rate = CELL.truth.rate(WeightedSLNR(alpha).solve(asked(0.9), CELL).W).sum(-1)
        error = 3 * rate.std().item() / len(rate) ** 0.5
        assert abs(rate.mean().item() - expected) < 0.02 * expected + error


def test_an_unreachable_fairness_is_refused_with_the_largest_reachable():
    with pytest.raises(ConfigError, match=r"at most 0\.9[56]\d*, the largest mean .* got 0\.99") as refusal:
        WeightedSLNR().solve(asked(0.99), CELL)
    most = float(str(refusal.value).split(",")[0].split()[-1])
    assert WeightedSLNR().solve(asked(most), CELL).solved.all()


def test_the_largest_reachable_index_in_the_message_agrees_with_a_fine_grid():
    network = Network.broadcast(torch.as_tensor(SPREAD), 0.1)
    asked = build_problem("fair-sum-rate", {"p_max": 10.0, "jain": 1.0})
    grid = np.stack([jain(rates(SPREAD, WeightedSLNR(a).solve(asked, network).W, 0.1)) for a in ALPHAS])
    inside = (grid.argmax(0) % 20 != 0).nonzero()[0]
    assert len(inside) > 10
    for i in inside[:4]:
        with pytest.raises(ConfigError, match="the largest mean") as refusal:
            WeightedSLNR().solve(asked, Network.broadcast(torch.as_tensor(SPREAD[i]), 0.1))
        most = float(str(refusal.value).split(",")[0].split()[-1])
        assert most == pytest.approx(grid[:, i].max(), abs=2e-5)
    each = Problem(SumRate(), (EqualPower(10.0), JainAtLeast(torch.as_tensor(grid.max(0) - 1e-5))))
    assert WeightedSLNR().solve(each, network).solved.all()


def test_a_fairness_that_is_met_anyway_gives_the_least_parameter():
    solution = WeightedSLNR().solve(asked(0.5), CELL)
    assert (solution.info["alpha"] == 0).all()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("sample", [1, 2, 4, 8])
def test_a_large_batch_meets_the_mean_of_all_of_it_not_of_a_sample(sample, dtype, monkeypatch):
    """The samples are so small that the estimate is wrong in either direction."""
    from beamforge.classical.fairness import trade_off as fairness

    cell = Fairness().sample(60, seed=VALIDATION_SEEDS[0], dtype=dtype)
    for limit in (0.66, 0.86):
        monkeypatch.setattr(fairness, "SAMPLE", sample)
        found = WeightedSLNR().solve(asked(limit, cell), cell).info["alpha"][0]
        monkeypatch.setattr(fairness, "SAMPLE", 10**6)
        whole = WeightedSLNR().solve(asked(limit, cell), cell).info["alpha"][0]
        torch.testing.assert_close(whole, found, rtol=1e-4, atol=1e-6)


def test_a_fitted_solver_solves_instances_independently():
    tuned = WeightedSLNR().fitted(asked(0.86), CELL)
    whole = tuned.solve(asked(0.86), CELL).W
    part = build_problem("fair-sum-rate", {"p_max": 10.0, "jain": 0.86})
    for i in (0, 7):
        one = Network.broadcast(CELL.truth.channel[i], CELL.truth.noise[i])
        torch.testing.assert_close(tuned.solve(part, one).W, whole[i], rtol=1e-9, atol=1e-12)
    assert WeightedSLNR(0.3).fitted(asked(0.86), CELL).alpha == 0.3


def test_instances_with_nan_or_without_channels_do_not_count_in_the_mean():
    H = torch.as_tensor(SPREAD).clone()
    good = beamforge.solve(H[2:], noise=0.1, p_max=1.0, problem="fair-sum-rate", method="wslnr", jain=0.85)
    H[0], H[1] = torch.nan, 0
    problem = build_problem("fair-sum-rate", {"p_max": 1.0, "jain": 0.85})
    spoilt = WeightedSLNR().solve(problem, Network.broadcast(H, 0.1))
    torch.testing.assert_close(spoilt.W[2:], good.W, rtol=1e-9, atol=1e-12)
    assert spoilt.status[0] == Status.NUMERICAL_FAILURE and spoilt.solved[1:].all()


def test_an_instance_that_overflows_does_not_count_in_the_mean():
    """Its beams may be NaN: that instance fails, and the others meet the limit."""
    H = torch.as_tensor(SPREAD).to(torch.complex64)
    good = beamforge.solve(H[1:], noise=0.1, p_max=1.0, problem="fair-sum-rate", method="wslnr", jain=0.85)
    H[0] *= 1e25
    for loud in (H, H[:1]):
        network = Network.broadcast(loud, 0.1)
        solution = WeightedSLNR().solve(build_problem("fair-sum-rate", {"p_max": 1.0, "jain": 0.85}), network)
        assert solution.status[0] == Status.NUMERICAL_FAILURE and solution.solved[1:].all()
        torch.testing.assert_close(solution.W[1:], good.W[: len(loud) - 1], rtol=1e-4, atol=1e-5)
        each = WeightedSLNR().solve(Problem(SumRate(), (EqualPower(1.0), JainAtLeast(0.85))), network)
        assert each.status[0] == Status.NUMERICAL_FAILURE


def test_every_instance_can_have_its_own_limit():
    network = Network.broadcast(torch.as_tensor(SPREAD), 0.1)
    alone = Problem(SumRate(), (TotalPower(1.0),))
    tried = [jain(rates(SPREAD, WeightedSLNR(a).solve(alone, network).W, 0.1)) for a in np.linspace(0, 5, 40)]
    for power in (EqualPower(1.0), TotalPower(1.0)):
        solution = WeightedSLNR().solve(Problem(SumRate(), (power, JainAtLeast(0.9))), network)
        able = solution.solved.numpy()
        alpha = solution.info["alpha"].numpy()
        J = jain(rates(SPREAD[able], solution.W[solution.solved], 0.1))
        assert 20 < able.sum() < 40 and (J >= 0.9).all()
        assert (J[alpha[able] > 0] < 0.9 + 1e-6).all()
        assert (solution.status[~solution.solved] == Status.INFEASIBLE).all()
        for i in np.flatnonzero(~able)[:3]:  # no alpha on a fine grid meets the limit
            assert max(J[i] for J in tried) < 0.9


def test_several_limits_for_the_mean_are_refused():
    network = Network.broadcast(torch.as_tensor(SPREAD), 0.1)
    limit = MeanJainAtLeast(torch.linspace(0.8, 0.9, 40, dtype=torch.float64))
    with pytest.raises(ConfigError, match="one number"):
        WeightedSLNR().solve(Problem(SumRate(), (EqualPower(1.0), limit)), network)


@pytest.mark.parametrize(("method", "serves"), [("wslnr", False), ("multipliers", False), ("pareto", True)])
def test_unequal_weights_are_used_or_refused(method, serves):
    stated = {"noise": 0.1, "p_max": 1.0, "problem": "fair-sum-rate", "method": method, "jain": 0.4}
    H = torch.as_tensor(SPREAD[:3])
    plain = beamforge.solve(H, **stated).W
    same = beamforge.solve(H, weights=2.0, **stated).W
    np.testing.assert_allclose(rates(H, same, 0.1), rates(H, plain, 0.1), rtol=0.05)
    words = Problem(SumRate("some"), (EqualPower(1.0), MeanJainAtLeast(0.4)))
    with pytest.raises(ShapeError, match="weights of SumRate must be a real number"):
        beamforge.solve(H, noise=0.1, problem=words, method=method)
    if serves:
        found = beamforge.solve(H, weights=[5.0, 1.0, 1.0], **stated).W
        assert (rates(H, found, 0.1)[:, 0] > rates(H, plain, 0.1)[:, 0]).all()
    else:
        with pytest.raises(UnsupportedProblem, match=r"fairness of rates of equal weight.*methods that do: pareto"):
            beamforge.solve(H, weights=[5.0, 1.0, 1.0], **stated)


@pytest.mark.parametrize("kind", [WeightedSLNR, Pareto, FairMultipliers])
def test_streams_without_a_user_are_refused(kind):
    network = Network.broadcast(torch.as_tensor(SPREAD), 0.1, sensing_streams=1)
    with pytest.raises(UnsupportedProblem):
        kind().solve(Problem(SumRate(), (EqualPower(1.0), MeanJainAtLeast(0.8))), network)


@pytest.mark.parametrize("alpha", [-1.0, np.inf])
def test_exponents_out_of_range_are_refused(alpha):
    with pytest.raises(ConfigError, match="alpha must be finite and not negative"):
        WeightedSLNR(alpha)


def test_single_precision_meets_it_too():
    H = torch.as_tensor(SPREAD).to(torch.complex64)
    solution = beamforge.solve(H, noise=0.1, p_max=1.0, problem="fair-sum-rate", method="wslnr", jain=0.85)
    assert solution.W.dtype == torch.complex64
    assert jain_index(Network.broadcast(H, 0.1).rate(solution.W)).mean() >= 0.85 - 1e-6
