"""Sum of communication and sensing rates: closed forms, grid search, local optimality, monotonic convergence."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from beamforge import Network, Status, evaluate
from beamforge.classical.isac.dual import lagrangian
from beamforge.classical.isac.wmmse import SensingWMMSE
from beamforge.core.named_problems import build_problem
from beamforge.scenarios import Isac


def sampled(weight, count=4, **config):
    config = {"users": 4, "antennas": 6, "targets": 3} | config
    instance = Isac(**config).sample(count, seed=2, dtype=torch.complex128)
    stated = {name: value for name, value in instance.context.items() if name != "sensing_snr_target"}
    return build_problem("isac", stated | {"sensing_weight": weight}).bind(instance.truth), instance


def test_users_of_zero_weight_leave_all_power_to_the_target():
    problem, instance = sampled(1.0, targets=1)
    stated = {**instance.context, "sensing_weight": 1.0, "weights": torch.zeros(4, 4, dtype=torch.float64)}
    del stated["sensing_snr_target"]
    problem = build_problem("isac", stated)
    found = evaluate(problem, instance, SensingWMMSE().solve(problem, instance).W).utility
    best = torch.log2(1 + instance.context["target_gain"][:, 0].abs().square() / 0.01)
    torch.testing.assert_close(found, best, rtol=1e-4, atol=1e-4)


def test_one_user_and_one_target_against_grid_search():
    """Optimal beams lie in the span of both channels: a grid over a data and a sensing beam."""
    h, a = np.array([1.0, 0.0]), np.array([1.0, 1.0]) / np.sqrt(2)
    network = Network.broadcast(torch.tensor([[[2.0 + 0j, 0]]], dtype=torch.complex128), 1.0, sensing_streams=2)
    stated = {"p_max": 1.0, "target_angles": torch.zeros(1, 1, dtype=torch.float64), "sensing_noise": 0.05}
    stated["target_gain"] = torch.ones(1, 1, dtype=torch.complex128)
    problem = build_problem("isac", stated | {"sensing_weight": 0.8})
    found = evaluate(problem, network, SensingWMMSE().solve(problem, network).W).utility.item()
    angle = np.linspace(0, np.pi, 721)
    w = np.stack([np.cos(angle), np.sin(angle)], -1)
    best = 0
    for share in np.linspace(0, 1, 101):
        signal, noise = 4 * share * (w @ h) ** 2, 1 + 4 * (1 - share) * (w @ h) ** 2
        sensing = share * (w @ a)[:, None] ** 2 + (1 - share) * (w @ a)[None] ** 2
        value = np.log2(1 + signal[:, None] / noise[None]) + 0.8 * np.log2(1 + sensing / 0.05)
        best = max(best, value.max())
    assert found == pytest.approx(best, abs=2e-3) and found >= best - 1e-4


def test_solution_is_locally_optimal():
    problem, instance = sampled(0.5)
    solution = SensingWMMSE(tolerance=1e-10).solve(problem, instance)
    assert (solution.status == Status.CONVERGED).all()
    best = evaluate(problem, instance, solution.W).utility
    generator = torch.Generator().manual_seed(0)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(40):
            W = solution.W + size * torch.randn(solution.W.shape, dtype=torch.complex128, generator=generator) / 8
            W = W / W.abs().square().sum((-2, -1), keepdim=True).sqrt()
            assert (evaluate(problem, instance, W).utility <= best + 1e-5).all()


def test_weight_moves_power_from_users_to_targets():
    rates = []
    for weight in (0.0, 0.3, 3.0):
        problem, instance = sampled(weight)
        report = evaluate(problem, instance, SensingWMMSE().solve(problem, instance).W)
        rates.append((report.rate.sum(-1), torch.log2(1 + report.figures["sensing_snr"]).sum(-1)))
    for (users, targets), (fewer, more) in pairwise(rates):
        assert (fewer <= users + 1e-3).all() and (more >= targets - 1e-3).all()


def test_rate_with_its_barrier_never_falls():
    """By the step itself, for a fixed barrier and without acceleration."""
    for weight in (None, 0.5):
        problem, instance = sampled(0.5)
        if weight is None:
            problem = build_problem("isac", {**instance.context, "sensing_snr_target": 1.0}).bind(instance.truth)
        solver = SensingWMMSE(acceleration="none")
        data = solver.prepare(problem, instance.observation)
        data = data._replace(barrier=1e-2 * data.weights.sum(-1))
        state, last = next(iter(solver.init(data, None, None))), None
        for _ in range(30):
            quadratic = solver.quadratic(data, state)
            state, rate = solver.step(data, state)
            X = lagrangian(quadratic, state.x)
            W = torch.linalg.solve(X, quadratic.B)
            T = torch.linalg.inv(X)
            S = W @ W.mH + data.barrier[:, None, None] * T
            slack = 1 - S.diagonal(dim1=-2, dim2=-1).real.sum(-1)
            sensing = (data.C.conj() * (S @ data.C)).sum(-2).real - data.level
            logs = torch.logdet(S - W @ W.mH).real + slack.log() + sensing.log().sum(-1)
            value = rate * np.log(2) + data.barrier * logs
            assert last is None or (value >= last - 1e-9 * value.abs()).all()
            last = value
