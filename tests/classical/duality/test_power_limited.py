"""Power limits of antennas, transmitters and the total: cone programs, the feasible boundary, and the certificate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.classical.duality.max_min import MaxMin
from beamforge.classical.duality.min_power import Duality
from beamforge.classical.duality.power_limited import PowerLimitedMaxMin, PowerLimitedMinPower
from beamforge.core.beams import Beams
from beamforge.core.constraints import PerAntennaPower, PerTransmitterPower, SinrAtLeast, TotalPower
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.solution import Status
from beamforge.core.utilities import MinRate, MinSinr, TransmitPower
from tests.oracles_convex import LeastPower, max_min

CASES = [  # T, N, serving, which limits
    (1, 5, [0, 0, 0, 0], "antenna"),
    (2, 3, [0, 1, 1, 0], "antenna"),
    (2, 3, [0, 1, 1, 0], "transmitter"),
    (4, 1, [0, 1, 2, 3], "transmitter"),
    (2, 3, [0, 1, 1, 0], "antenna transmitter total"),
]


def channels(*shape, seed=0, dtype=torch.complex128):
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed)).to(dtype)


def limits(kinds, each):
    """Constraints from the limit of every antenna [T, N], watts, and the same for the cone program."""
    wanted, numbers = [], {}
    if "antenna" in kinds:
        wanted.append(PerAntennaPower(each))
        numbers["antenna"] = each.numpy()
    if "transmitter" in kinds:
        wanted.append(PerTransmitterPower(0.8 * each.sum(-1)))
        numbers["transmitter"] = 0.8 * each.sum(-1).numpy()
    if "total" in kinds:
        wanted.append(TotalPower(0.7 * each.sum().item()))
        numbers["total"] = 0.7 * each.sum().item()
    return tuple(wanted), numbers


def violation(network, solution, constraints):
    return torch.stack(
        [limit.bind(network).violation(Instance.perfect(network), Beams(solution.W)) for limit in constraints]
    ).amax(0)


@pytest.mark.parametrize(("T", "N", "serving", "kinds"), CASES)
def test_least_power_agrees_with_the_cone_program(T, N, serving, kinds):
    target = 0.1 if N == 1 else 0.7
    H = channels(4, T, 4, N, seed=T + N)
    network = Network.multicell(H, 1.0, torch.tensor(serving))
    free = Duality().solve(Problem(TransmitPower(), (SinrAtLeast(target),)), network)
    each = 1.3 * network.antenna_power(free.W)[free.status == 0].mean(0)
    constraints, numbers = limits(kinds, each)
    solution = PowerLimitedMinPower().solve(Problem(TransmitPower(), (SinrAtLeast(target), *constraints)), network)
    oracle = LeastPower(T, 4, N, serving, **numbers)
    expected = np.array([oracle(h.numpy(), np.ones(4), np.full(4, target)) for h in H])
    feasible = np.isfinite(expected)
    assert feasible.any()
    np.testing.assert_array_equal(solution.status == Status.CONVERGED, feasible)
    np.testing.assert_array_equal(solution.status == Status.INFEASIBLE, ~feasible)
    found = network.transmit_power(solution.W).sum(-1)
    np.testing.assert_allclose(found[feasible], expected[feasible], rtol=1e-6)
    assert (violation(network, solution, constraints)[feasible] < 1e-7).all()
    assert (solution.info["duality_gap"][feasible] < 1e-7).all()


def test_feasible_exactly_above_the_balanced_level():
    H, each = channels(1, 1, 4, 6, seed=1), torch.linspace(0.5, 1.5, 6, dtype=torch.float64).unsqueeze(0)
    network = Network.multicell(H, 1.0, torch.zeros(4, dtype=torch.long))
    oracle = LeastPower(1, 4, 6, [0] * 4, antenna=each.numpy(), peak=True)
    edge = oracle(H[0].numpy(), np.ones(4), np.full(4, 3.0))
    for share, status in [(0.9, 2), (0.999, 2), (1 - 1e-5, 2), (1 + 1e-5, 0), (1.001, 0), (1.1, 0)]:
        question = Problem(TransmitPower(), (SinrAtLeast(3.0), PerAntennaPower(share * edge * each)))
        assert PowerLimitedMinPower().solve(question, network).status.item() == status


def test_loose_limits_change_nothing():
    network = Network.broadcast(channels(3, 4, 6, seed=2), 1.0)
    free = Duality().solve(Problem(TransmitPower(), (SinrAtLeast(2.0),)), network)
    loose = PowerLimitedMinPower().solve(Problem(TransmitPower(), (SinrAtLeast(2.0), PerAntennaPower(100.0))), network)
    torch.testing.assert_close(loose.W, free.W, rtol=1e-5, atol=1e-7)
    goal = MinSinr(1.0)
    total = MaxMin().solve(Problem(goal, (TotalPower(3.0),)), network)
    both = PowerLimitedMaxMin().solve(Problem(goal, (TotalPower(3.0), PerAntennaPower(100.0))), network)
    torch.testing.assert_close(network.sinr(both.W), network.sinr(total.W), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("T", "N", "serving", "kinds"), CASES)
@pytest.mark.parametrize("rates", [False, True])
def test_balanced_levels_agree_with_bisected_cone_programs(T, N, serving, kinds, rates):
    H = channels(1, T, 4, N, seed=T + N)
    network = Network.multicell(H, 1.0, torch.tensor(serving))
    constraints, numbers = limits(kinds, torch.linspace(0.4, 1.6, T * N, dtype=torch.float64).reshape(T, N))
    shares = torch.linspace(0.5, 1.5, 4, dtype=torch.float64)
    goal = MinRate(shares) if rates else MinSinr(shares)
    solution = PowerLimitedMaxMin().solve(Problem(goal, constraints), network)
    assert solution.status.item() == Status.CONVERGED
    assert violation(network, solution, constraints).item() < 1e-9
    level = goal.bind(network).value(Instance.perfect(network), Beams(solution.W)).item()
    wanted = (lambda r: 2 ** (r / shares.numpy()) - 1) if rates else (lambda r: r * shares.numpy())
    peak = LeastPower(T, 4, N, serving, peak=True, **numbers)
    expected = max_min(peak, H[0].numpy(), np.ones(4), wanted, 0.98 * level, 1.01 * level, steps=18)
    assert level == pytest.approx(expected, rel=1e-6)
    assert abs(solution.info["duality_gap"].item()) < 1e-6


def test_infeasible_instances_and_users_without_a_channel_do_not_affect_others():
    H = channels(3, 4, 6, seed=3)
    question = Problem(TransmitPower(), (SinrAtLeast(1.0), PerAntennaPower(3.0)))
    alone = PowerLimitedMinPower().solve(question, Network.broadcast(H, 1.0))
    level = Problem(MinRate(), (PerAntennaPower(1.0),))
    balanced = PowerLimitedMaxMin().solve(level, Network.broadcast(H, 1.0))
    H[1, 2] = 0
    together = PowerLimitedMinPower().solve(question, Network.broadcast(H, 1.0))
    assert together.status.tolist() == [0, 2, 0]
    assert (together.W[[0, 2]] - alone.W[[0, 2]]).abs().max() < 1e-7
    left = PowerLimitedMaxMin().solve(level, Network.broadcast(H, 1.0))
    assert left.status.tolist() == [0, 0, 0]
    assert (left.W[1, :, 2] == 0).all()
    assert (left.W[[0, 2]] - balanced.W[[0, 2]]).abs().max() < 1e-6


def test_float32_within_1e_4():
    H = channels(5, 4, 6, seed=4)
    exact, rough = (Network.broadcast(H.to(t), 1.0) for t in (torch.complex128, torch.complex64))
    question = Problem(MinRate(), (PerAntennaPower(1.0),))
    one, other = PowerLimitedMaxMin().solve(question, exact), PowerLimitedMaxMin().solve(question, rough)
    assert other.W.dtype == torch.complex64
    torch.testing.assert_close(rough.rate(other.W).amin(-1).double(), exact.rate(one.W).amin(-1), rtol=1e-4, atol=0)


def test_gradients_match_finite_differences():
    H = channels(1, 3, 4, seed=5).requires_grad_()
    each = torch.tensor([[0.3, 0.6, 0.9, 1.2]], dtype=torch.float64, requires_grad=True)

    def level(H, each):
        network = Network.broadcast(H, 0.7)
        solution = PowerLimitedMaxMin(tolerance=1e-9).solve(Problem(MinSinr(1.0), (PerAntennaPower(each),)), network)
        return network.sinr(solution.W).mean(-1)

    assert torch.autograd.gradcheck(level, (H, each), eps=1e-5, atol=1e-4, rtol=1e-3)

    def least(H, each):
        network = Network.broadcast(H, 0.7)
        question = Problem(TransmitPower(), (SinrAtLeast(1.0), PerAntennaPower(each)))
        solution = PowerLimitedMinPower(tolerance=1e-10).solve(question, network)
        assert solution.status.item() == Status.CONVERGED
        return network.transmit_power(solution.W).sum(-1)

    assert torch.autograd.gradcheck(least, (H, each), eps=1e-5, atol=1e-4, rtol=1e-3)
