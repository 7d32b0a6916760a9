"""SINRs in the proportions of RZF: constraints, the largest factor by a semidefinite program, special cases."""

import numpy as np
import pytest
import torch

from beamforge import Instance, Network, Status, evaluate
from beamforge.classical.isac.sdr import SensingSDR, rzf_sinr
from beamforge.classical.isac.wmmse import SensingWMMSE
from beamforge.core.named_problems import build_problem
from beamforge.core.sensing import SensingSnrAtLeast
from beamforge.scenarios import Isac
from tests.oracles_convex import least_power_with_sensing


def sampled(count=3, seed=1, **config):
    config = {"users": 3, "antennas": 6, "targets": 2} | config
    instance = Isac(**config).sample(count, seed=seed, dtype=torch.complex128)
    return build_problem("isac", instance.context).bind(instance.truth), instance


def test_constraints_hold_and_sinrs_are_proportional():
    problem, instance = sampled(6)
    solution = SensingSDR().solve(problem, instance)
    solved = solution.status == Status.CONVERGED
    assert solved.sum() >= 4
    report = evaluate(problem, instance, solution.W)
    assert report.feasible[solved].all()
    network = instance.truth.whitened()
    changed_problem = solution.info["factor"].unsqueeze(-1) * rzf_sinr(
        network.channel, torch.ones(6, dtype=torch.float64)
    )
    torch.testing.assert_close(report.sinr[solved], changed_problem[solved], rtol=1e-4, atol=0)
    wmmse = evaluate(problem, instance, SensingWMMSE().solve(problem, instance).W)
    assert (wmmse.utility >= report.utility)[solved].all()


def test_factor_is_the_largest_feasible_one():
    """Its minimum power by a semidefinite program is the power limit."""
    problem, instance = sampled(2, seed=3)
    factor = SensingSDR().solve(problem, instance).info["factor"]
    H, one = instance.truth.whitened().channel, torch.ones(2, dtype=torch.float64)
    sinr = (factor.unsqueeze(-1) * rzf_sinr(H, one)).numpy()
    limit = problem.get(SensingSnrAtLeast)
    C = limit.unit_channels(6).mT.numpy()
    for b in range(2):
        level = np.full(2, limit.level[b, 0].item())
        assert least_power_with_sensing(H[b].numpy(), C[b], sinr[b], level) == pytest.approx(1, rel=2e-5)


def test_target_in_the_direction_of_the_user():
    """One target, whose steering vector is the user's channel: the user reaches its capacity."""
    a = torch.exp(1j * torch.pi * torch.arange(4) * 0.5).to(torch.complex128) / 2
    network = Network.broadcast(a.conj().reshape(1, 1, 4) * 3, 1.0, sensing_streams=4)
    angle = torch.full((1, 1), np.arcsin(0.5), dtype=torch.float64)
    stated = {"p_max": 2.0, "target_angles": angle, "target_gain": torch.ones(1, 1, dtype=torch.complex128)}
    problem = build_problem("isac", stated | {"sensing_snr_target": 100.0})
    solution = SensingSDR().solve(problem, network)
    assert evaluate(problem, network, solution.W).utility.item() == pytest.approx(np.log2(1 + 2 * 9), rel=1e-4)


def test_infeasible_instance_zero_weight_and_zero_channel():
    problem, instance = sampled(4)
    unchanged = SensingSDR().solve(problem, instance)
    context = {**instance.context, "target_gain": instance.context["target_gain"].clone()}
    context["target_gain"][1, 0] = 0  # infeasible
    context["weights"] = torch.ones(4, 3, dtype=torch.float64)
    context["weights"][2, 1] = 0  # zero weight
    H = instance.truth.H.clone()
    H[3, 0, 2] = 0  # zero channel
    changed = Instance.perfect(Network.broadcast(H[:, 0], instance.truth.noise, sensing_streams=6), **context)
    changed_problem = build_problem("isac", changed.context)
    solution = SensingSDR().solve(changed_problem, changed)
    assert solution.status.tolist() == [0, Status.INFEASIBLE, 0, 0]
    report = evaluate(changed_problem, changed, solution.W)
    assert report.feasible[[0, 2, 3]].all() and (solution.W[1] == 0).all()
    assert report.sinr[2, 1] < 1e-3 and report.sinr[3, 2] == 0
    assert (report.rate[2, [0, 2]] > 1).all() and (report.rate[3, :2] > 1).all()
    torch.testing.assert_close(solution.W[0], unchanged.W[0], rtol=1e-4, atol=1e-5)


def test_more_users_and_targets_than_antennas():
    problem, instance = sampled(3, seed=5, users=6, antennas=4, targets=5, sensing_snr_db=-5.0)
    solution = SensingSDR().solve(problem, instance)
    solved = solution.status == Status.CONVERGED
    assert solved.any() and evaluate(problem, instance, solution.W).feasible[solved].all()


def test_single_precision():
    problem, instance = sampled(3)
    single = Isac(users=3, antennas=6, targets=2).sample(3, seed=1, dtype=torch.complex64)
    changed_problem = build_problem("isac", single.context)
    found = SensingSDR().solve(changed_problem, single)
    assert found.W.dtype == torch.complex64
    rate = evaluate(changed_problem, single, found.W).utility.double()
    expected = evaluate(problem, instance, SensingSDR().solve(problem, instance).W).utility
    torch.testing.assert_close(rate, expected, rtol=1e-4, atol=0)
