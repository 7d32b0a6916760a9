"""Sum rate of links: the published instance, stationarity by NumPy, SciPy's optima, edges, certified optima."""

import math

import numpy as np
import pytest
import torch
from links import solve, strong
from oracles import water_filling
from oracles_links import PAPER_G, PAPER_OPTIMUM, PAPER_RATE, PAPER_STARTS, climb, grid_optimum, nats, slope

import beamforge
from beamforge import Network, Problem, ShapeError, Status, UnsupportedProblem
from beamforge.classical.links.branch_and_bound import LinkBranchAndBound
from beamforge.classical.links.many_starts import ManyStarts
from beamforge.classical.links.mm_admm import MMADMM
from beamforge.classical.links.quasi_inverse import QuasiInverse
from beamforge.classical.links.sca import SuccessiveGP
from beamforge.classical.links.starts import spread
from beamforge.classical.links.wmmse import LinkWMMSE, SharedPower, ascend
from beamforge.core.constraints import TotalPower
from beamforge.core.utilities import SumRate
from beamforge.scenarios import Weak

METHODS = [LinkWMMSE, MMADMM, SuccessiveGP, QuasiInverse, ManyStarts, LinkBranchAndBound]
each_method = pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)


@each_method
@pytest.mark.parametrize("start", [None, *PAPER_STARTS], ids=["equal", "first", "second"])
def test_the_published_instance(kind, start):
    start = None if start is None else [start]
    solution, p = solve(kind, PAPER_G[None], 0.05, 1.85, 1 / 3, start)
    np.testing.assert_allclose(p[0], PAPER_OPTIMUM, atol=2e-4)
    assert nats(PAPER_G, np.full(3, 0.05), np.full(3, 1 / 3), p[0]) == pytest.approx(PAPER_RATE, abs=5e-5)
    assert solution.status[0] == Status.CONVERGED


@pytest.mark.parametrize("kind", [LinkWMMSE, MMADMM, SuccessiveGP, ManyStarts], ids=lambda kind: kind.__name__)
def test_ends_are_stationary(kind):
    G, weights = strong(6, 5)
    _, p = solve(kind, G, 0.05, 2.0, weights, **({} if kind in (ManyStarts, MMADMM) else {"tolerance": 1e-11}))
    for b in range(6):
        gain = slope(G[b], np.full(5, 0.05), weights[b], p[b])
        price = (p[b] * gain).sum() / 2.0
        assert p[b].sum() == pytest.approx(2.0, rel=1e-5)
        assert (gain <= price * (1 + 1e-3)).all(), "a link would rather have more power"
        assert (p[b] * np.abs(gain - price)).sum() <= 1e-3 * price, "a link would rather have less"


def test_wmmse_never_falls_and_is_the_textbook_iteration():
    G, weights = strong(4, 6, seed=1)
    solution, _ = solve(LinkWMMSE, G, 0.05, 2.0, weights, acceleration="none", starts=1, max_iterations=50)
    assert (solution.trace.diff(dim=-1) >= -1e-12).all()
    network = Network.power_control(torch.as_tensor(G), 0.05)
    problem = Problem(SumRate(torch.as_tensor(weights)), (TotalPower(2.0),)).bind(network)
    data = SharedPower.of(problem, network)
    v = spread(data, 3).sqrt()
    after = ascend(data, v)[0].square() * 2.0
    for b in range(4):
        for s in range(3):  # receivers and weights in closed form; the multiplier from noise and power
            amplitude, h = v[b, s].numpy() * np.sqrt(2.0), np.sqrt(np.diag(G[b]))
            total = G[b] @ amplitude**2 + 0.05
            u = h * amplitude / total
            mse = 1 - u * h * amplitude
            q = weights[b] / mse * u**2
            x = weights[b] / mse * u * h / (G[b].T @ q + 0.05 * q.sum() / 2.0)
            np.testing.assert_allclose(after[b, s], 2.0 * x**2 / (x**2).sum(), rtol=1e-9)


def test_many_starts_end_above_scipy():
    G, weights = strong(5, 6, seed=2)
    _, p = solve(ManyStarts, G, 0.05, 2.0, weights)
    generator = np.random.default_rng(0)
    for b in range(5):
        ours = nats(G[b], np.full(6, 0.05), weights[b], p[b])
        starts = 2 * generator.dirichlet(np.ones(6), 8)
        theirs = [climb(G[b], np.full(6, 0.05), weights[b], 2.0, start)[1] for start in starts]
        assert ours >= max(theirs) * (1 - 1e-7)


@pytest.mark.parametrize("setting", [{}, {"least_coupling": 1.0}], ids=["strong", "strongest"])
def test_the_certified_optimum_is_that_of_a_grid(setting):
    G, weights = strong(6, 3, seed=3, **setting)
    solution, p = solve(LinkBranchAndBound, G, 0.05, 2.0, weights)
    assert (solution.status == Status.CONVERGED).all()
    bound = solution.info["bound"].numpy() * math.log(2)
    for b in range(6):
        ours = nats(G[b], np.full(3, 0.05), weights[b], p[b])
        best = grid_optimum(G[b], np.full(3, 0.05), weights[b], 2.0, 200)
        assert best <= bound[b] <= ours * (1 + 1.001e-4)
        assert best * (1 - 1e-9) <= ours <= best * (1 + 2e-3)


def test_certified_optima_of_four_links_are_above_every_point():
    G, weights = strong(20, 4, seed=4)
    solution, p = solve(LinkBranchAndBound, G, 0.05, 2.0, weights)
    generator = np.random.default_rng(1)
    for b in range(20):
        bound = solution.info["bound"][b].item() * math.log(2)
        points = [*(generator.dirichlet(np.full(4, 0.3), 200) * 2), p[b]]
        assert max(nats(G[b], np.full(4, 0.05), weights[b], point) for point in points) <= bound


def test_the_search_leaves_a_poor_local_optimum(monkeypatch):
    G, weights = strong(12, 4, seed=5, least_coupling=1.0)
    _, best = solve(LinkBranchAndBound, G, 0.05, 2.0, weights)
    poor = lambda self, *_: LinkWMMSE(starts=1).solve_batch(*_)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(ManyStarts, "solve_batch", poor)
        solution, found = solve(LinkBranchAndBound, G, 0.05, 2.0, weights)
    _, trapped = solve(LinkWMMSE, G, 0.05, 2.0, weights, starts=1)
    noise = np.full(4, 0.05)
    rates = np.array([[nats(G[b], noise, weights[b], p[b]) for p in (best, found, trapped)] for b in range(12)])
    assert (rates[:, 2] < 0.99 * rates[:, 0]).any(), "the test needs an instance in which one start is not enough"
    np.testing.assert_allclose(rates[:, 1], rates[:, 0], rtol=1.1e-4)
    assert (solution.status == Status.CONVERGED).all()


def test_a_search_cut_short_says_so_with_a_true_bound():
    G, weights = strong(4, 4, seed=6)
    full, _ = solve(LinkBranchAndBound, G, 0.05, 2.0, weights, gap=1e-6)
    short, _ = solve(LinkBranchAndBound, G, 0.05, 2.0, weights, gap=1e-6, max_cells=5)
    assert (short.status == Status.MAX_ITERATIONS).all() and (short.info["cells"] <= 5).all()
    assert (short.info["bound"] >= full.info["bound"]).all()


@each_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edges(kind, dtype):
    """No interference, a dead link, a link without weight, hopeless links, gains over twelve decades."""
    eye = torch.eye(4, dtype=dtype)
    free = torch.diag(torch.tensor([1.0, 0.3, 2.0, 0.01], dtype=dtype))
    dead = 0.1 + free
    dead[1, 1] = 0
    decades = torch.logspace(0, -12, 16, dtype=dtype).reshape(4, 4).flip(1)
    G = torch.stack([free, dead, eye + 0.1, 0 * eye, decades])
    weights = torch.ones(5, 4, dtype=dtype)
    weights[2, 3] = 0
    solution, p = solve(kind, G, 0.1, 1.0, weights)
    loose = 2e-3 if dtype is torch.float32 or kind is MMADMM else 1e-5
    assert np.isfinite(p).all() and (p.sum(-1) <= 1 + 1e-4).all()
    np.testing.assert_allclose(p[0], water_filling(np.diag(free) / 0.1, 1.0), atol=loose)
    assert p[1, 1] <= loose and p[2, 3] <= loose
    np.testing.assert_allclose(p[2, :3], 1 / 3, atol=loose)
    assert (solution.status != Status.NUMERICAL_FAILURE).all()
    hard, noise, ones = decades.double().numpy(), np.full(4, 0.1), np.ones(4)
    ends = [climb(hard, noise, ones, 1.0, start)[1] for start in np.full((4, 4), 0.1) + 0.6 * np.eye(4)]
    assert nats(hard, noise, ones, p[4]) >= min(ends) * (1 - 1e-3)


@each_method
def test_one_link_has_all_the_power(kind):
    _, p = solve(kind, torch.full((2, 1, 1), 0.5), 0.1, 3.0)
    np.testing.assert_allclose(p, 3.0, rtol=1e-5)


def test_gains_over_twelve_decades_are_certified():
    exponent = torch.rand(6, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    G = 10 ** (-12 * exponent)
    solution, p = solve(LinkBranchAndBound, G, 1e-10, 1.0)
    assert (solution.status == Status.CONVERGED).all()
    for b in range(6):
        best = grid_optimum(G[b].numpy(), np.full(3, 1e-10), np.ones(3), 1.0, 200)
        assert nats(G[b].numpy(), np.full(3, 1e-10), np.ones(3), p[b]) >= best * (1 - 1e-4)


def test_starts_do_not_depend_on_the_batch_and_follow_the_links():
    G, weights = strong(3, 7, seed=7)
    network = Network.power_control(torch.as_tensor(G), 0.05)
    problem = Problem(SumRate(torch.as_tensor(weights)), (TotalPower(2.0),)).bind(network)
    data = SharedPower.of(problem, network)
    points = spread(data, 9)
    torch.testing.assert_close(points.sum(-1), torch.ones_like(points[..., 0]))
    assert (points > 0).all() and len(points[0].unique(dim=0)) >= 7
    torch.testing.assert_close(spread(SharedPower(*(leaf[1:2] for leaf in data)), 9), points[1:2])
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    moved = SharedPower(data.cross[:, order][..., order], data.direct[:, order], data.weights[:, order], data.power)
    torch.testing.assert_close(spread(moved, 9), points[..., order])


@pytest.mark.parametrize("kind", [LinkWMMSE, QuasiInverse, SuccessiveGP], ids=lambda kind: kind.__name__)
def test_single_precision_is_double_to_its_rounding(kind):
    instance = Weak(links=8, random_weights=True).sample(5, dtype=torch.complex128)
    G, weights = instance.truth.gains, instance.context["weights"]
    problem = Problem(SumRate(weights), (TotalPower(2.0),))
    rate = problem.bind(instance.truth).value
    one, _ = solve(kind, G, 0.05, 2.0, weights)
    other, _ = solve(kind, G.float(), 0.05, 2.0, weights.float())
    assert other.W.dtype == torch.complex64
    reached = rate(instance.truth, other.W.to(one.W.dtype))
    torch.testing.assert_close(reached, rate(instance.truth, one.W), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("G", "noise", "word"),
    [
        (-torch.eye(2), 1.0, "non-negative"),
        (torch.full((2, 2), torch.nan), 1.0, "finite"),
        (torch.ones(2, 3), 1.0, "rx, tx"),
        (torch.eye(2), 0.0, "noise must be positive"),
        (torch.eye(2), -1.0, "noise must be positive"),
    ],
)
def test_what_is_no_network_is_refused(G, noise, word):
    with pytest.raises(ShapeError, match=word):
        beamforge.solve(G, noise=noise, p_max=1.0, method="mm-admm")


def test_what_is_not_served_is_refused_with_what_would_do():
    H = torch.ones(2, 2, dtype=torch.complex64)
    for name in ("mm-admm", "sca", "quasi-inverse", "global"):
        with pytest.raises(UnsupportedProblem, match="wmmse"):
            beamforge.solve(H, noise=1.0, p_max=1.0, method=name)
    with pytest.raises(beamforge.ConfigError, match="beta must be positive"):
        beamforge.solve(torch.eye(2), noise=1.0, p_max=1.0, method="mm-admm", beta=0.0)
