"""Led starts and stretched climbs: who leads, rates that never fall and are NumPy's, optima that stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge import Network
from beamforge.classical.links.single_link_starts import climb, single_link_starts
from beamforge.classical.links.wmmse import LinkWMMSE, SharedPower
from beamforge.core.named_problems import build_problem
from beamforge.scenarios.power_control import Strong


def posed(links=6, count=5, dtype=torch.complex128, **settings):
    """Instances and their data."""
    instance = Strong(links=links, **settings).sample(count, seed=4, dtype=dtype)
    problem = build_problem("sum-rate", instance.context).bind(instance.truth)
    return problem, instance, SharedPower.of(problem, instance.truth)


def rate(G, noise, weights, p):
    """Weighted sum rate in bit/s/Hz by NumPy, link by link."""
    total = 0.0
    for k in range(len(p)):
        interference = sum(G[k, j] * p[j] for j in range(len(p)) if j != k)
        total += weights[k] * np.log2(1 + G[k, k] * p[k] / (interference + noise[k]))
    return total


@pytest.mark.parametrize("count", [0, 3, 40])
def test_each_start_has_another_leader_the_best_alone_first(count):
    _, instance, data = posed(random_weights=True)
    starts = single_link_starts(data, count)
    assert starts.shape == (5, 1 + min(count, 6), 6)
    torch.testing.assert_close(starts.sum(-1), torch.ones(5, 1 + min(count, 6), dtype=torch.float64))
    assert torch.allclose(starts[:, 0], torch.full_like(starts[:, 0], 1 / 6)) and (starts[:, 1:].amax(-1) >= 0.9).all()
    G, weights = instance.truth.gains.numpy(), instance.context["weights"].numpy()
    for i in range(5):
        alone = [weights[i, k] * np.log2(1 + G[i, k, k] * 2.0 / 0.05) for k in range(6)]
        assert starts[i, 1:].argmax(-1).tolist() == np.argsort(alone)[::-1][:count].tolist()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_rates_never_fall_and_are_those_of_the_shares(dtype):
    _, instance, data = posed(12, 8, dtype, random_weights=True)
    p, rates = climb(data, single_link_starts(data, 5), 20)
    assert p.shape == (8, 6, 12) and rates.shape == (8, 6, 21) and p.dtype == dtype.to_real()
    assert (rates.diff(dim=-1) >= 0).all() and (rates[..., -1] > rates[..., 0]).all()
    torch.testing.assert_close(p.sum(-1), torch.ones(8, 6, dtype=p.dtype))
    G, noise, weights = (x.double().numpy() for x in (instance.truth.gains, instance.truth.noise, data.weights))
    expected = [[rate(G[i], noise[i], weights[i], 2.0 * q) for q in p[i].double().numpy()] for i in range(8)]
    np.testing.assert_allclose(rates[..., -1].numpy(), expected, rtol=1e-10 if dtype == torch.complex128 else 1e-5)


def test_more_steps_go_on_where_fewer_stop():
    _, _, data = posed(12, 8)
    _, long = climb(data, single_link_starts(data, 5), 15)
    for steps in (0, 1, 4):
        p, short = climb(data, single_link_starts(data, 5), steps)
        torch.testing.assert_close(short, long[..., : steps + 1], rtol=0, atol=0)
        torch.testing.assert_close(data.rate(p), short[..., -1])


def test_optima_are_left_alone():
    problem, instance, data = posed(8, 6)
    solution = LinkWMMSE(tolerance=1e-14).solve(problem, instance)
    p = data.shares(solution.W)
    after, rates = climb(data, p.unsqueeze(1), 10)
    torch.testing.assert_close(after.squeeze(1), p, rtol=0, atol=1e-4)
    torch.testing.assert_close(rates[:, 0], rates[:, 0, :1].expand(-1, 11), rtol=1e-8, atol=0)


def test_stretched_steps_end_where_plain_ones_do_and_sooner():
    problem, instance, data = posed(16, 30)
    equal = torch.full((30, 1, 16), 1 / 16, dtype=torch.float64)
    plain = LinkWMMSE(starts=1, acceleration="none", tolerance=0.0, max_iterations=10)
    there = problem.value(instance.truth, plain.solve(problem, instance).W)
    assert climb(data, equal, 10)[1][:, 0, -1].mean() > 1.01 * there.mean()


def test_links_that_cannot_be_heard_or_do_not_count_are_switched_off():
    G = torch.tensor([[1.0, 0.1, 0.1], [0.1, 0.0, 0.1], [0.1, 0.1, 1.0]], dtype=torch.float64)
    for weights in ([1.0, 1.0, 1.0], [1.0, 0.0, 0.0]):
        problem = build_problem("sum-rate", {"p_max": 1.0, "weights": torch.tensor(weights, dtype=torch.float64)})
        network = Network.power_control(G.unsqueeze(0), 0.01)
        data = SharedPower.of(problem.bind(network), network)
        p, _ = climb(data, single_link_starts(data, 3), 10)
        assert (p[..., 1] < 1e-12).all() and torch.isfinite(p).all()
    assert (p[..., 0] > 1 - 1e-9).all()
