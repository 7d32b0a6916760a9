"""Sum rate under sensing SNR targets: constraints in NumPy, local optimality, closed forms, special cases."""

import numpy as np
import pytest
import torch

import beamforge
from beamforge import Instance, Network, Status, evaluate
from beamforge.classical.isac.null_space import NullSpaceSensing
from beamforge.classical.isac.wmmse import SensingWMMSE
from beamforge.core.named_problems import build_problem
from beamforge.scenarios import Isac


def sampled(count=5, seed=1, **config):
    config = {"users": 4, "antennas": 8, "targets": 3} | config
    instance = Isac(**config).sample(count, seed=seed, dtype=torch.complex128)
    return build_problem("isac", instance.context).bind(instance.truth), instance


def scored(instance, W):
    """Sum rate, power and sensing SNR of each instance, in NumPy."""
    H, W, noise = instance.truth.H[:, 0].numpy(), W.numpy(), instance.truth.noise.numpy()
    K = H.shape[1]
    power = np.abs(H @ W) ** 2
    signal = power[:, np.arange(K), np.arange(K)]
    rate = np.log2(1 + signal / (power.sum(-1) - signal + noise)).sum(-1)
    n = np.arange(H.shape[-1])
    a = np.exp(1j * np.pi * n * np.sin(instance.context["target_angles"].numpy())[..., None]) / np.sqrt(len(n))
    gain = np.abs(instance.context["target_gain"].numpy()) ** 2 / instance.context["sensing_noise"].numpy()[:, None]
    return rate, (np.abs(W) ** 2).sum((1, 2)), gain * (np.abs(a.conj() @ W) ** 2).sum(-1)


def test_constraints_hold_and_rates_agree_with_numpy():
    problem, instance = sampled(12)
    solution = SensingWMMSE().solve(problem, instance)
    solved = (solution.status == Status.CONVERGED).numpy()
    assert solved.sum() >= 8
    rate, power, snr = scored(instance, solution.W)
    np.testing.assert_allclose(rate[solved], evaluate(problem, instance, solution.W).utility.numpy()[solved], rtol=1e-9)
    assert (power[solved] <= 1 + 1e-9).all() and (power[solved] > 1 - 1e-4).all()
    assert (snr[solved] >= 10**0.5 * (1 - 1e-9)).all()


def test_solution_is_locally_optimal():
    problem, instance = sampled(4)
    solution = SensingWMMSE(tolerance=1e-10).solve(problem, instance)
    solved = solution.status == Status.CONVERGED
    best = evaluate(problem, instance, solution.W).utility
    generator = torch.Generator().manual_seed(0)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(40):
            W = solution.W + size * torch.randn(solution.W.shape, dtype=torch.complex128, generator=generator) / 8
            W = W / W.abs().square().sum((-2, -1), keepdim=True).sqrt()
            report = evaluate(problem, instance, W)
            inside = report.violation["SensingSnrAtLeast"] <= 0
            assert (report.utility <= best + 1e-5)[solved & inside].all()


def test_very_low_sensing_targets_give_the_sum_rate_of_wmmse():
    problem, instance = sampled(sensing_snr_db=-60.0)
    solution = SensingWMMSE().solve(problem, instance)
    free = beamforge.solve(instance.truth.channel, noise=instance.truth.noise, p_max=1.0)
    torch.testing.assert_close(evaluate(problem, instance, solution.W).utility, free.utility, rtol=1e-4, atol=0)


def test_sum_rate_decreases_with_the_sensing_target():
    last = torch.full((6,), torch.inf, dtype=torch.float64)
    all_solved = torch.ones(6, dtype=torch.bool)
    for level in (-20.0, 0.0, 5.0, 10.0):
        problem, instance = sampled(6, sensing_snr_db=level)
        solution = SensingWMMSE().solve(problem, instance)
        all_solved &= solution.status == Status.CONVERGED
        rate = evaluate(problem, instance, solution.W).utility
        assert (rate <= last + 2e-2 * rate)[all_solved].all()  # local optima differ by that much
        last = rate


def test_target_in_the_direction_of_the_user():
    """The beam of the single user also serves the target: the user reaches its capacity."""
    a = torch.exp(1j * torch.pi * torch.arange(4) * 0.5).to(torch.complex128) / 2
    network = Network.broadcast(a.conj().reshape(1, 1, 4) * 3, 1.0, sensing_streams=4)
    angle = torch.full((1, 1), np.arcsin(0.5), dtype=torch.float64)
    stated = {"p_max": 2.0, "target_angles": angle, "target_gain": torch.ones(1, 1, dtype=torch.complex128)}
    problem = build_problem("isac", stated | {"sensing_snr_target": 100.0})
    solution = SensingWMMSE().solve(problem, network)
    assert evaluate(problem, network, solution.W).utility.item() == pytest.approx(np.log2(1 + 2 * 9), rel=1e-4)


def test_infeasible_instance_does_not_affect_others():
    problem, instance = sampled(3)
    context = dict(instance.context)
    context["target_gain"] = context["target_gain"].clone()
    context["target_gain"][1, 0] = 0
    infeasible = Instance.perfect(instance.truth, **context)
    infeasible_problem = build_problem("isac", infeasible.context)
    for method in (SensingWMMSE(), NullSpaceSensing()):
        one, other = method.solve(problem, instance), method.solve(infeasible_problem, infeasible)
        assert other.status[1] == Status.INFEASIBLE
        assert (other.W[1] == 0).all()
        torch.testing.assert_close(other.W[[0, 2]], one.W[[0, 2]], rtol=1e-6, atol=1e-8)


def test_null_space_streams_cause_no_interference():
    problem, instance = sampled(8, sensing_snr_db=0.0)
    solution = NullSpaceSensing().solve(problem, instance)
    solved = solution.status == Status.CONVERGED
    assert solved.any()
    assert (instance.truth.channel @ solution.W[..., 4:]).abs().amax() < 1e-10
    _, power, snr = scored(instance, solution.W)
    assert (snr[solved.numpy()] >= 1 - 1e-9).all() and (power <= 1 + 1e-9).all()
    ours = evaluate(problem, instance, SensingWMMSE().solve(problem, instance).W).utility
    assert (ours >= evaluate(problem, instance, solution.W).utility - 1e-6)[solved].all()


@pytest.mark.parametrize(("users", "antennas", "targets"), [(1, 4, 2), (6, 4, 1), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_one_user_more_users_and_more_targets_than_antennas(users, antennas, targets, dtype):
    instance = Isac(users, antennas, targets, sensing_snr_db=-5.0).sample(4, seed=3, dtype=dtype)
    problem = build_problem("isac", instance.context)
    solution = SensingWMMSE().solve(problem, instance)
    solved = (solution.status == Status.CONVERGED).numpy()
    assert solved.any() and solution.W.dtype == dtype
    rate, power, snr = scored(instance, solution.W)
    slack = 1e-5 if dtype == torch.complex64 else 1e-8
    assert (power[solved] <= 1 + slack).all() and (snr[solved] >= 10**-0.5 * (1 - slack)).all()
    assert (rate[solved] > 0).all()


def test_user_of_zero_weight_and_user_with_zero_channel():
    _, instance = sampled(3, sensing_snr_db=0.0)
    H = instance.truth.H[:, 0].clone()
    H[:, 3] = 0
    weights = torch.tensor([1.0, 0.0, 2.0, 1.0], dtype=torch.float64).expand(3, 4)
    changed = Instance.perfect(
        Network.broadcast(H, instance.truth.noise, sensing_streams=8), **instance.context, weights=weights
    )
    problem = build_problem("isac", changed.context)
    solution = SensingWMMSE().solve(problem, changed)
    report = evaluate(problem, changed, solution.W)
    assert (solution.status == Status.CONVERGED).all() and report.feasible.all()
    assert (report.rate[:, [1, 3]] < 1e-3).all() and (report.rate[:, [0, 2]] > 1).all()
