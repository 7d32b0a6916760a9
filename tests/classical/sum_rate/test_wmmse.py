"""WMMSE with several transmitters and limits, against textbook code, exact boundaries, grids and KKT conditions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles_sumrate import pareto_sum_rate, sum_rate, textbook_wmmse, two_user_power_grid

from beamforge.classical.power_limits import within_limits
from beamforge.classical.sum_rate import limited_newton
from beamforge.classical.sum_rate.power_duals import Limits
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.classical.sum_rate.wmmse import MulticellWMMSE
from beamforge.core import batching
from beamforge.core.constraints import PerAntennaPower, PerTransmitterPower, TotalPower
from beamforge.core.evaluate import evaluate
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.solution import Status
from beamforge.core.utilities import MinRate, SumRate
from beamforge.registry import create

LIMITS = {
    "total": lambda P, T, N: (TotalPower(P * T),),
    "transmitter": lambda P, T, N: (PerTransmitterPower(P),),
    "antenna": lambda P, T, N: (PerAntennaPower(P / N),),
    "all": lambda P, T, N: (TotalPower(0.8 * P * T), PerTransmitterPower(P), PerAntennaPower(2 * P / N)),
}


def network(T, K, N, batch=4, seed=0, dtype=torch.complex128, noise=1.0):
    generator = torch.Generator().manual_seed(seed)
    H = torch.randn(batch, T, K, N, dtype=torch.complex128, generator=generator)
    return Network.multicell(H.to(dtype), noise, torch.arange(K) % T)


def utility(problem, net, W):
    return evaluate(problem, net, W).utility


@pytest.mark.parametrize(("T", "K", "N"), [(1, 4, 6), (2, 4, 3), (3, 3, 2)])
def test_steps_agree_with_the_textbook(T, K, N):
    net, limit, steps = network(T, K, N, batch=2), 5.0, 12
    noise, weights = torch.linspace(0.5, 2, K, dtype=torch.float64), torch.linspace(1, 3, K, dtype=torch.float64)
    net = Network.multicell(net.H, noise, net.streams.transmitter)
    problem = Problem(SumRate(weights), (PerTransmitterPower(limit),))
    start = torch.ones(2, N, K, dtype=torch.complex128) * math.sqrt(limit / (N * K)) + 0.1j
    solver = MulticellWMMSE(acceleration="none", max_iterations=steps, tolerance=0)
    solution = solver.solve(problem, net, start=start)
    for b in range(2):
        args = (net.H[b].numpy(), start[b].numpy(), net.streams.transmitter[b].numpy(), noise.numpy())
        _, rates = textbook_wmmse(*args, [limit] * T, weights.numpy(), steps + 2)
        np.testing.assert_allclose(solution.trace[b].numpy(), rates[1 : steps + 1], rtol=1e-9)
        final = sum_rate(args[0], solution.W[b].numpy(), args[2], args[3], weights.numpy())
        np.testing.assert_allclose(final, rates[steps + 1], rtol=1e-9)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize(("T", "K", "N"), [(1, 3, 5), (2, 5, 3), (3, 3, 1)])
def test_the_rate_never_decreases_and_the_limits_are_met(T, K, N, limits):
    net = network(T, K, N)
    problem = Problem(SumRate(), LIMITS[limits](30.0, T, N))
    solution = MulticellWMMSE(acceleration="none", starts=1, max_iterations=30).solve(problem, net)
    assert (solution.trace.diff(dim=-1) >= -1e-9 * solution.trace[:, 1:]).all()
    report = evaluate(problem, net, solution.W)
    assert max(violation.max() for violation in report.violation.values()) <= 1e-9
    torch.testing.assert_close(report.utility, solution.trace[:, -1], rtol=0.02, atol=0)


@pytest.mark.parametrize("limits", LIMITS)
def test_single_precision(limits):
    T, K, N = 2, 6, 3  # two users too many: some are switched off
    double, single = network(T, K, N), network(T, K, N, dtype=torch.complex64)
    problem = Problem(SumRate(), LIMITS[limits](10.0, T, N))
    solver = MulticellWMMSE(starts=1, acceleration="none", max_iterations=100, tolerance=1e-7)
    solution = solver.solve(problem, single)
    assert solution.W.dtype == torch.complex64
    report = evaluate(problem, single, solution.W)
    assert max(violation.max() for violation in report.violation.values()) <= 1e-5
    reference = utility(problem, double, solver.solve(problem, double).W)
    torch.testing.assert_close(report.utility.double(), reference, rtol=5e-3, atol=0)


@pytest.mark.parametrize("snr_db", [0, 15, 25])
def test_two_transmitters_reach_the_sum_rate_point_of_the_exact_boundary(snr_db):
    P = 10 ** (snr_db / 10)
    H = network(2, 2, 2, batch=6, seed=3).H.clone()
    H[:, 0, 1] *= math.sqrt(0.2)
    H[:, 1, 0] *= math.sqrt(0.2)
    net = Network.interference(H, 1.0)
    problem = Problem(SumRate(), (PerTransmitterPower(P),))
    found = utility(problem, net, MulticellWMMSE().solve(problem, net).W)
    exact = [pareto_sum_rate(h.numpy(), P, 1.0) for h in H]
    np.testing.assert_allclose(found.numpy(), exact, rtol=1e-5)


@pytest.mark.parametrize("total", [True, False])
def test_two_user_power_control_against_a_grid(total):
    generator = torch.Generator().manual_seed(1)
    G = torch.empty(20, 2, 2, dtype=torch.float64).exponential_(generator=generator)
    net = Network.power_control(G, 0.05)
    problem = Problem(SumRate(), (TotalPower(2.0) if total else PerTransmitterPower(2.0),))
    found = utility(problem, net, MulticellWMMSE().solve(problem, net).W).numpy()
    best = np.array([two_user_power_grid(g.numpy(), 0.05, 2.0, total) for g in G])
    assert (found <= best * (1 + 1e-3)).all()
    assert (found >= best * (1 - 1e-3)).mean() >= 0.75  # the rest are in another local optimum


def test_a_published_power_control_instance():
    G = torch.tensor([[1.53, 0.19, 0.01], [0.01, 1.52, 0.02], [0.16, 0.53, 1.78]], dtype=torch.float64)
    net = Network.power_control(G, 0.05)
    problem = Problem(SumRate(1 / 3), (TotalPower(1.85),))
    solution = MulticellWMMSE(tolerance=1e-12).solve(problem, net)
    power = torch.tensor([[0.7421, 0.1912, 0.9167]], dtype=torch.float64)
    torch.testing.assert_close(solution.W.abs().square(), power, rtol=0, atol=1e-4)
    assert utility(problem, net, solution.W) * math.log(2) == pytest.approx(2.0282, abs=1e-4)


def test_one_transmitter_with_sum_power_agrees_with_the_reduced_form():
    problem = Problem(SumRate(), (TotalPower(10.0),))
    settings = {"acceleration": "none", "tolerance": 1e-13, "max_iterations": 3000}
    for N in (8, 4):
        net = network(1, 4, N, batch=8)
        start = net.channel.mH / net.channel.abs().square().sum((-2, -1), keepdim=True).sqrt() * math.sqrt(10)
        full = utility(problem, net, MulticellWMMSE(**settings).solve(problem, net, start=start).W)
        if N == 4:  # the local optimum may differ, but each form has the result of the other as a fixed point
            start = ReducedWMMSE(**settings).solve(problem, net, start=start).W
            full = utility(problem, net, MulticellWMMSE(**settings).solve(problem, net, start=start).W)
        reduced = utility(problem, net, ReducedWMMSE(**settings).solve(problem, net, start=start).W)
        torch.testing.assert_close(full, reduced, rtol=1e-6, atol=0)


@pytest.mark.parametrize("limits", LIMITS)
def test_kkt_residual_at_convergence(limits):
    """At each antenna the gradient of the rate is a non-negative price times the beam; unused limits have price 0."""
    T, K, N, P = 2, 4, 3, 5.0
    net = network(T, K, N, seed=5)
    problem = Problem(SumRate(), LIMITS[limits](P, T, N))
    solution = MulticellWMMSE(tolerance=1e-15, max_iterations=20000, starts=1).solve(problem, net)
    W = solution.W.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net.rate(W).sum(), W)
    sent = torch.nn.functional.one_hot(net.streams.transmitter, T).double()
    along = torch.einsum("bnd,bdt->btn", (gradient * W.conj()).real, sent)
    power = net.antenna_power(W.detach())
    prices = along / power
    residual = gradient - W * torch.einsum("btn,bdt->bnd", prices, sent)
    assert residual.abs().amax() < 2e-4 * gradient.abs().amax()
    assert along.min() > -2e-4 * along.max()  # price times power: an idle transmitter has no price
    if limits == "antenna":
        slack = 1 - power * N / P
        assert ((prices * slack).abs() < 2e-4 * prices.amax()).all()
    if limits == "transmitter":
        common = prices.mean(-1, keepdim=True).expand_as(prices)
        torch.testing.assert_close(prices, common, rtol=2e-3, atol=0)


def test_permuted_users_antennas_and_transmitters():
    net = network(2, 4, 3)
    problem = Problem(SumRate(), (PerTransmitterPower(5.0),))
    solver = MulticellWMMSE(acceleration="none", starts=1, max_iterations=20)
    W = solver.solve(problem, net).W
    users, antennas = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])
    other = Network.multicell(net.H[:, [1, 0]][:, :, users][..., antennas], 1.0, 1 - net.streams.transmitter[:, users])
    torch.testing.assert_close(solver.solve(problem, other).W, W[:, :, users][:, antennas], rtol=1e-6, atol=1e-8)


def test_units_do_not_matter():
    net = network(2, 3, 4)
    solver = MulticellWMMSE(acceleration="none", starts=1, max_iterations=30)
    for limits in (PerTransmitterPower, PerAntennaPower):
        problem, small = (Problem(SumRate(), (limits(watts),)) for watts in (2.0, 2e-3))
        tiny = Network.multicell(net.H * 1e-6, 1e-15, net.streams.transmitter)
        W, V = solver.solve(problem, net).W, solver.solve(small, tiny).W * 1e3**0.5
        torch.testing.assert_close(V, W, rtol=5e-3, atol=5e-3)  # rounding decides where it stops
        torch.testing.assert_close(utility(problem, net, V), utility(problem, net, W), rtol=1e-6, atol=0)


@pytest.mark.parametrize("limits", LIMITS)
def test_degenerate_users_are_solved_and_do_not_affect_other_instances(limits):
    """A user without channel, one without weight, equal users, an idle transmitter, and another instance with NaN."""
    T, K, N = 3, 4, 3
    H = network(T, K, N, batch=3).H.clone()
    H[0, :, 1] = 0
    H[1, :, 2] = H[1, :, 0]
    H[2] = torch.nan
    serving = torch.tensor([0, 1, 0, 1])  # transmitter 2 serves nobody
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    problem = Problem(SumRate(weights), LIMITS[limits](10.0, T, N))
    solver = MulticellWMMSE(max_iterations=50)
    together = solver.solve(problem, Network.multicell(H, 1.0, serving))
    alone = solver.solve(problem, Network.multicell(H[:2], 1.0, serving))
    assert together.status[2] == Status.NUMERICAL_FAILURE and (together.status[:2] <= Status.MAX_ITERATIONS).all()
    torch.testing.assert_close(together.W[:2], alone.W, rtol=1e-6, atol=1e-8)
    assert evaluate(problem, Network.multicell(H[:2], 1.0, serving), alone.W).rate[0, 1] == 0


@pytest.mark.parametrize("limits", LIMITS)
def test_unrolled_gradients_agree_with_finite_differences(limits):
    net = network(2, 3, 2, batch=1)
    problem = Problem(SumRate(), LIMITS[limits](3.0, 2, 2))
    solver = MulticellWMMSE(acceleration="none", starts=1, max_iterations=2, tolerance=0, gradient="unrolled")
    check_gradient(solver, problem, net, rtol=1e-4)


@pytest.mark.parametrize("limits", ["total", "transmitter", "antenna"])
def test_implicit_gradients_agree_with_finite_differences(limits):
    net = network(2, 3, 2, batch=1, seed=2)
    problem = Problem(SumRate(), LIMITS[limits](3.0, 2, 2))
    solver = MulticellWMMSE(starts=1, max_iterations=5000, tolerance=0, gradient="implicit")
    check_gradient(solver, problem, net, rtol=2e-3)


def check_gradient(solver, problem, net, rtol):
    """The derivative of a fixed random projection of |W|^2 (free of the beams' phases) along a random direction."""
    generator = torch.Generator().manual_seed(7)
    direction = torch.randn(net.H.shape, dtype=net.H.dtype, generator=generator)
    mixture = torch.randn(net.antennas, net.users, dtype=torch.float64, generator=generator)

    def value(H):
        W = solver.solve(problem, Network.multicell(H, 1.0, net.streams.transmitter)).W
        return (mixture * W.abs().square()).sum()

    H = net.H.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(H), H)
    found = (gradient.conj() * direction).real.sum().item()
    with torch.no_grad():
        step = 1e-5
        expected = (value(net.H + step * direction) - value(net.H - step * direction)).item() / (2 * step)
    assert found == pytest.approx(expected, rel=rtol, abs=rtol * mixture.abs().max().item())


# --- Newton's method within limits, symmetric starts, many antennas ---------------------------------------------------
def random_best(problem, net, starts):
    """The best rate [B] of WMMSE from random beams, all starts in one batch."""
    many = batching.take(net, torch.arange(len(net.H)).repeat(starts))
    shape = (len(many.H), net.antennas, net.users)
    start = torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(5))
    start = within_limits(problem.bind(many), many, 10 * start)
    solution = MulticellWMMSE(tolerance=1e-6, max_iterations=100).solve(problem, many, start=start)
    return utility(problem, many, solution.W).unflatten(0, (starts, -1)).amax(0)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("serving", [[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1]])
def test_one_of_two_identical_users_is_switched_off(limits, serving):
    T, N = max(serving) + 1, 8 // (max(serving) + 1)
    H = network(T, 2, N, batch=3, seed=8).H.repeat_interleave(2, 2)
    net = Network.multicell(H, 0.01, torch.tensor(serving))
    problem = Problem(SumRate(), LIMITS[limits](1.0, T, N))
    solution = create(problem, net, "wmmse").solve(problem, net)
    share = utility(problem, net, solution.W) / random_best(problem, net, starts=8)
    assert share.mean() > 0.995 and share.min() > 0.98, f"{share.tolist()}"
    assert (solution.status == Status.CONVERGED).all()


def test_distributed_antennas_with_limits_are_at_least_as_good_as_with_other_methods():
    generator = torch.Generator().manual_seed(0)
    gain = 10 ** -(7 + 4 * torch.rand(1, 6, 10, 1, dtype=torch.float64, generator=generator)).expand(1, 6, 10, 4)
    H = torch.randn(1, 6, 40, dtype=torch.complex128, generator=generator) * gain.reshape(1, 6, 40).sqrt()
    net, problem = Network.broadcast(H, 1e-13), Problem(SumRate(), (PerAntennaPower(0.05),))
    solution = create(problem, net, "wmmse").solve(problem, net)
    found = utility(problem, net, solution.W)
    assert (solution.status == Status.CONVERGED).all()
    assert evaluate(problem, net, solution.W).feasible.all()
    for method in ("fastfp", "rzf", "zf", "mrt"):
        assert (found >= utility(problem, net, create(problem, net, method).solve(problem, net).W)).all(), method
    balanced = Problem(MinRate(), (PerAntennaPower(0.05),))
    assert (found >= utility(problem, net, create(balanced, net).solve(balanced, net).W)).all()


@pytest.mark.parametrize("limits", LIMITS)
def test_derivatives_of_the_saddle_function_agree_with_automatic_differentiation(limits):
    net = network(2, 3, 3, batch=1, seed=4)
    problem = Problem(SumRate(torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)), LIMITS[limits](2.0, 2, 3)).bind(net)
    bounds = Limits.of(problem, 2, 3)
    scene = limited_newton.NewtonData(net.H, problem.maximise.weights, bounds, net.streams.sent_by(2))
    y = torch.randn(3 + bounds.bound.shape[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def value(y):
        x, z = y[None, :3], y[None, 3:]
        noise = limited_newton.antenna_multipliers(scene, z)
        A = x.exp().sqrt()[:, None, :, None] * net.H * noise.rsqrt().unsqueeze(-2)
        inverse = torch.linalg.inv(torch.eye(3) + A @ A.mH)
        errors = (inverse * scene.serves.unsqueeze(-1)).sum(1).diagonal(dim1=-2, dim2=-1).real
        rate = -(problem.maximise.weights * errors.log()).sum()
        return rate - x.exp().sum() + (z.exp() * bounds.bound).sum()

    found = limited_newton.terms(scene, limited_newton.Point(y[None, :3], y[None, 3:]))
    torch.testing.assert_close(found.gradient[0], torch.autograd.functional.jacobian(value, y))
    torch.testing.assert_close(found.hessian[0], torch.autograd.functional.hessian(value, y))


@pytest.mark.parametrize("limits", LIMITS)
def test_the_solution_is_the_same_with_and_without_derivatives(limits):
    net = network(2, 3, 3, batch=3, noise=0.2)
    problem = Problem(SumRate(), LIMITS[limits](1.0, 2, 3))
    plain = MulticellWMMSE().solve(problem, net).W
    asked = Network.multicell(net.H.clone().requires_grad_(), 0.2, net.streams.transmitter)
    W = MulticellWMMSE().solve(problem, asked).W
    assert W.requires_grad
    torch.testing.assert_close(net.rate(W.detach()), net.rate(plain), rtol=1e-4, atol=1e-6)
