"""The trained range of the shipped multipliers: WMMSE solves the instances outside it, the network those inside."""

from __future__ import annotations

import pytest
import torch

from beamforge import Network, Problem
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.core.constraints import TotalPower
from beamforge.core.observation import Observation
from beamforge.core.utilities import SumRate
from beamforge.io.weights import load
from beamforge.learned.multipliers.sum_rate import SumRateMultipliers
from beamforge.learned.multipliers.trained_range import TrainedRange

PROBLEM = Problem(SumRate(), (TotalPower(1.0),))


def network(K, N, snr_db, batch=10, dtype=torch.complex128):
    H = torch.randn(batch, K, N, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    return Network.broadcast(H.to(dtype), 10 ** (-snr_db / 10))


def rate(solver, network):
    solution = solver.solve(PROBLEM, network)
    return network.rate(solution.W).sum(-1), solution


def test_the_range_is_the_one_in_the_header():
    header = load("multipliers").header
    found = TrainedRange.of(header)
    assert found is not None
    assert [*found.snr_db] == header["recipe"]["data"]["snr_db"] and found.load == header["recipe"]["data"]["load"][1]
    assert TrainedRange.of({"model": "multipliers"}) is None


@pytest.mark.parametrize(("K", "N", "snr_db"), [(20, 8, 60), (16, 16, 40), (16, 8, 20), (4, 4, 100), (4, 4, -25)])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_outside_the_range_the_solution_is_that_of_wmmse_and_marked(K, N, snr_db, dtype):
    net = network(K, N, snr_db, dtype=dtype)
    (found, solution), (classical, theirs) = rate(SumRateMultipliers(), net), rate(ReducedWMMSE(), net)
    assert solution.info["handed_over"].all()
    assert torch.equal(solution.status, theirs.status)
    torch.testing.assert_close(found, classical, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("K", "N", "snr_db"), [(16, 16, 20), (16, 16, 30), (2, 2, 15), (16, 10, 0), (4, 64, 10), (64, 64, 20)]
)
def test_inside_the_range_nothing_is_handed_over(K, N, snr_db):
    net = network(K, N, snr_db)
    _, solution = rate(solver := SumRateMultipliers(), net)
    assert not solution.info["handed_over"].any()
    learned = solver.solve_learned(ReducedWMMSE().prepare(PROBLEM.bind(net), Observation(net)))
    assert torch.equal(solution.W, learned.W) and (solution.iterations == solver.steps).all()


def test_a_batch_with_instances_of_both_kinds_is_split():
    inside, outside = network(6, 6, 10, batch=3), network(6, 6, 60, batch=2)
    noise = torch.cat([inside.noise, outside.noise])
    order = torch.tensor([3, 0, 1, 4, 2])
    mixed = Network.broadcast(torch.cat([inside.channel, outside.channel])[order], noise[order])
    found, solution = rate(SumRateMultipliers(), mixed)
    assert solution.info["handed_over"].tolist() == [True, False, False, True, False]
    alone = torch.cat([rate(SumRateMultipliers(), inside)[0], rate(SumRateMultipliers(), outside)[0]])[order]
    torch.testing.assert_close(found, alone, rtol=1e-7, atol=0)
    torch.testing.assert_close(solution.trace[:, -1], alone, rtol=1e-7, atol=0)
    assert (solution.iterations[1:3] == 3).all() and (solution.iterations[[0, 3]] != 3).all()
