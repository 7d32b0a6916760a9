"""The beam update of WMMSE against a conic solver, for all combinations of limits."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest
import torch

from beamforge.classical.sum_rate.least_squares import LeastSquares
from beamforge.classical.sum_rate.power_duals import Limits, projected_newton, separate_newton
from beamforge.core.beams import Beams
from beamforge.core.constraints import PerAntennaPower, PerTransmitterPower, TotalPower
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.utilities import SumRate

LIMITS = {
    "total": (TotalPower(1.0),),
    "transmitter": (PerTransmitterPower(0.3),),
    "total and transmitter": (TotalPower(1.0), PerTransmitterPower(0.45)),
    "antenna": (PerAntennaPower(0.1),),
    "antenna, hardly any": (PerAntennaPower(1e-3),),
    "antenna, plenty": (PerAntennaPower(20.0),),
    "all": (PerAntennaPower(0.2), TotalPower(0.9), PerTransmitterPower(0.5)),
}


def conic(F, c, serving, limits):
    """Least cost for F [T, K, N] and c [K], by a second-order cone solver."""
    T, K, N = F.shape
    W = cvxpy.Variable((N, K), complex=True)
    cost = sum(cvxpy.sum_squares(F[serving[k]] @ W[:, k] - c[k] * np.eye(K)[k]) for k in range(K))
    streams = [[k for k in range(K) if serving[k] == t] for t in range(T)]
    within = []
    for limit in limits:
        if isinstance(limit, TotalPower):
            within.append(cvxpy.sum_squares(W) <= limit.limit)
        elif isinstance(limit, PerTransmitterPower):
            within += [cvxpy.sum_squares(W[:, mine]) <= limit.limit for mine in streams]
        else:
            within += [cvxpy.sum_squares(W[n, mine]) <= limit.limit for mine in streams for n in range(N)]
    problem = cvxpy.Problem(cvxpy.Minimize(cost), within)
    problem.solve(solver=cvxpy.CLARABEL)
    return problem.value


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize(("T", "K", "N"), [(1, 2, 5), (2, 4, 3), (2, 4, 1)])
def test_the_cost_agrees_with_a_conic_solver(T, K, N, name):
    generator = torch.Generator().manual_seed(0)
    limits = LIMITS[name]
    H = torch.randn(2, T, K, N, dtype=torch.complex128, generator=generator)
    network = Network.multicell(H, 1.0, torch.arange(K) % T)
    problem = Problem(SumRate(), limits).bind(network)
    c = 0.5 + 3 * torch.rand(2, K, dtype=torch.float64, generator=generator)
    root = torch.rand(2, K, dtype=torch.float64, generator=generator)
    sends = network.streams.transmitter.unsqueeze(-2) == torch.arange(T).unsqueeze(-1)
    F = root[:, None, :, None] * H
    worth = (root.square().unsqueeze(-2) * sends).sum(-1)
    W = LeastSquares(F, c.unsqueeze(-2) * sends, Limits.of(problem, T, N)).solve(worth).sum(1)
    assert all((limit.violation(Instance.perfect(network), Beams(W)) <= 1e-9).all() for limit in problem.subject_to)
    for b in range(2):
        serving = network.streams.transmitter[b]
        error = torch.stack([F[b, serving[k]] @ W[b, :, k] for k in range(K)], 1) - torch.diag(c[b])
        least = conic(F[b].numpy(), c[b].numpy(), serving.numpy(), limits)
        assert error.abs().square().sum().item() <= least + 1e-6 * c[b].square().sum().item()


@pytest.mark.parametrize("guess", [0.0, 1e-6, 1.0, 1e6])
def test_prices_of_separate_limits_are_those_of_the_projected_newton_method(guess):
    """Also where a limit is not reached, for a Gram matrix without full rank, and beside an instance of NaN."""
    generator = torch.Generator().manual_seed(3)
    F = torch.randn(4, 3, 2, 4, dtype=torch.complex128, generator=generator)
    F[1] *= 1e-3
    F[2, 0] = 0
    F[3] = torch.nan
    limits = Limits(
        torch.eye(3, dtype=torch.float64).expand(4, 3, 3), torch.tensor([1e-4, 0.1, 1e4]).expand(4, 3).double()
    )
    task = LeastSquares(F, torch.ones(4, 3, 2, dtype=torch.float64), limits)
    prices = torch.full((4, 3), guess, dtype=torch.float64)
    assert limits.separate
    separate, general = (newton(task.spectral(), limits, prices) for newton in (separate_newton, projected_newton))
    assert separate.prices[2, 0] == 0  # a transmitter without channels
    sending = (F[:3] != 0).any(-1).any(-1)
    torch.testing.assert_close(separate.prices[:3][sending], general.prices[:3][sending], rtol=1e-6, atol=1e-9)
    assert torch.equal(separate.active[:3][sending], general.active[:3][sending])
    power = task.spectral()(separate.prices).power[:3]
    assert (power <= limits.bound[:3] * (1 + 1e-6)).all()
    assert ((power - limits.bound[:3]).abs() <= 1e-6 * limits.bound[:3])[separate.active[:3]].all()


def test_limits_that_share_units_are_not_separate():
    eye = torch.eye(2).expand(3, 2, 2)
    assert Limits(eye, torch.ones(3, 2)).separate
    for groups in (torch.ones(3, 1, 2), torch.ones(3, 2, 2), eye.flip(-1), torch.cat([eye, torch.ones(3, 1, 2)], -2)):
        assert not Limits(groups, torch.ones(3, groups.shape[-2])).separate
