"""FastFP: monotone, within limits, at the stationary points of WMMSE, differentiable, one instance at a time."""

from __future__ import annotations

import math

import pytest
import torch

from beamforge.classical.sum_rate.fastfp import FastFP, norm_bound, project
from beamforge.classical.sum_rate.wmmse import MulticellWMMSE
from beamforge.core.constraints import PerAntennaPower, PerTransmitterPower, TotalPower
from beamforge.core.evaluate import evaluate
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.solution import Status
from beamforge.core.utilities import SumRate

LIMITS = {
    "total": lambda P, T, N: TotalPower(P * T),
    "transmitter": lambda P, T, N: PerTransmitterPower(P),
    "antenna": lambda P, T, N: PerAntennaPower(P / N),
}


def network(T, K, N, batch=4, seed=0, dtype=torch.complex128):
    generator = torch.Generator().manual_seed(seed)
    H = torch.randn(batch, T, K, N, dtype=torch.complex128, generator=generator)
    return Network.multicell(H.to(dtype), 1.0, torch.arange(K) % T)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize(("T", "K", "N"), [(1, 4, 6), (2, 5, 3), (3, 3, 1)])
@pytest.mark.parametrize("acceleration", ["none", "nesterov"])
def test_the_rate_never_decreases_and_the_limits_are_met(T, K, N, limits, acceleration):
    net = network(T, K, N)
    problem = Problem(SumRate(torch.linspace(1, 2, K, dtype=torch.float64)), (LIMITS[limits](30.0, T, N),))
    solution = FastFP(acceleration=acceleration, max_iterations=60, tolerance=0).solve(problem, net)
    assert (solution.trace.diff(dim=-1) >= -1e-12 * solution.trace[:, 1:]).all()
    report = evaluate(problem, net, solution.W)
    assert max(violation.max() for violation in report.violation.values()) <= 1e-9
    assert (report.utility >= solution.trace[:, -1] * (1 - 1e-12)).all()


@pytest.mark.parametrize("limits", LIMITS)
def test_it_has_the_stationary_points_of_wmmse(limits):
    net = network(2, 4, 3)
    problem = Problem(SumRate(), (LIMITS[limits](5.0, 2, 3),))
    wmmse = MulticellWMMSE(starts=1, tolerance=1e-13, max_iterations=5000).solve(problem, net)
    stay = FastFP(tolerance=0, max_iterations=30).solve(problem, net, start=wmmse.W)
    best = evaluate(problem, net, wmmse.W).utility
    torch.testing.assert_close(evaluate(problem, net, stay.W).utility, best, rtol=1e-6, atol=0)
    fast = FastFP(tolerance=1e-12).solve(problem, net)
    stay = MulticellWMMSE(acceleration="none", tolerance=0, max_iterations=5).solve(problem, net, start=fast.W)
    best = evaluate(problem, net, fast.W).utility
    torch.testing.assert_close(evaluate(problem, net, stay.W).utility, best, rtol=1e-5, atol=0)


def test_one_user_gets_maximum_ratio_transmission():
    net = network(1, 1, 5)
    problem = Problem(SumRate(), (TotalPower(3.0),))
    rate = evaluate(problem, net, FastFP().solve(problem, net).W).utility
    torch.testing.assert_close(rate, torch.log2(1 + 3 * net.H.abs().square().sum((-3, -2, -1))))


def test_single_precision():
    double, single = network(2, 6, 3), network(2, 6, 3, dtype=torch.complex64)
    problem = Problem(SumRate(), (PerTransmitterPower(10.0),))
    solver = FastFP(max_iterations=200, tolerance=0)
    W = solver.solve(problem, single).W
    assert W.dtype == torch.complex64
    report, reference = evaluate(problem, single, W), evaluate(problem, double, solver.solve(problem, double).W)
    assert report.violation["PerTransmitterPower"].max() <= 1e-5
    torch.testing.assert_close(report.utility.double(), reference.utility, rtol=5e-3, atol=0)


def test_the_bound_on_the_norm_holds_and_is_tight():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(50, 8, 5, dtype=torch.complex128, generator=generator)
    largest = torch.linalg.eigvalsh(A @ A.mH)[:, -1]
    bound = norm_bound(A @ A.mH)
    assert ((bound >= largest) & (bound <= largest * 8**0.125)).all()
    torch.testing.assert_close(norm_bound(1e-12 * A @ A.mH), 1e-12 * bound, rtol=1e-10, atol=0)
    assert norm_bound(torch.zeros(2, 2, dtype=torch.complex64)) == 1


@pytest.mark.parametrize("limits", LIMITS)
def test_projection_is_the_nearest_point(limits):
    net = network(2, 4, 3)
    problem = Problem(SumRate(), (LIMITS[limits](1.0, 2, 3),)).bind(net)
    generator = torch.Generator().manual_seed(1)
    W, other = (torch.randn(4, 3, 4, dtype=torch.complex128, generator=generator) for _ in range(2))
    nearest, inside = project(problem, net, W), project(problem, net, other)
    torch.testing.assert_close(project(problem, net, nearest), nearest)
    assert (((W - nearest).conj() * (inside - nearest)).real.sum((-2, -1)) <= 1e-12).all()  # the obtuse-angle criterion


def test_permuted_users_have_permuted_beams():
    net, order = network(1, 4, 3), torch.tensor([2, 0, 3, 1])
    problem, solver = Problem(SumRate(), (TotalPower(5.0),)), FastFP(max_iterations=20)
    other = Network.broadcast(net.channel[:, order], 1.0)
    torch.testing.assert_close(solver.solve(problem, other).W, solver.solve(problem, net).W[..., order])


@pytest.mark.parametrize("limits", LIMITS)
def test_degenerate_users_are_solved_and_do_not_affect_other_instances(limits):
    H = network(2, 3, 2, batch=3).H.clone()
    H[0, :, 1] = 0
    H[1] = 0
    H[2] = torch.nan
    problem = Problem(SumRate(), (LIMITS[limits](5.0, 2, 2),))
    serving = torch.tensor([0, 1, 0])
    together = FastFP(max_iterations=50).solve(problem, Network.multicell(H, 1.0, serving))
    alone = FastFP(max_iterations=50).solve(problem, Network.multicell(H[:1], 1.0, serving))
    assert together.status[2] == Status.NUMERICAL_FAILURE and (together.status[:2] <= Status.MAX_ITERATIONS).all()
    torch.testing.assert_close(together.W[:1], alone.W)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("mode", ["unrolled", "implicit"])
def test_gradients_agree_with_finite_differences(limits, mode):
    net = network(2, 3, 2, batch=1, seed=2)
    problem = Problem(SumRate(), (LIMITS[limits](3.0, 2, 2),))
    few = {"max_iterations": 3, "tolerance": 0, "acceleration": "none"}
    enough = {"max_iterations": 3000, "tolerance": 0, "gradient": "implicit"}
    solver = FastFP(**(few if mode == "unrolled" else enough))
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
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_a_published_power_control_instance():
    G = torch.tensor([[1.53, 0.19, 0.01], [0.01, 1.52, 0.02], [0.16, 0.53, 1.78]], dtype=torch.float64)
    net, problem = Network.power_control(G, 0.05), Problem(SumRate(1 / 3), (TotalPower(1.85),))
    utility = evaluate(problem, net, FastFP(tolerance=1e-12).solve(problem, net).W).utility
    assert utility.item() * math.log(2) == pytest.approx(2.0282, abs=1e-4)
