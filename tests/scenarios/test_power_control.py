"""Families of gain matrices: their distributions, the spectral condition of `weak`, and the worked example."""

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from beamforge.scenarios import Strong, ThreeLinks, Weak


def gains(scenario, count, seed=0):
    """G [B, L, L] (rx, tx), by its definition |H[t, k]|^2 = G[k, t]."""
    H = scenario.sample(count, seed=seed, dtype=torch.complex128).truth.H.numpy()
    return np.abs(H[..., 0].swapaxes(-1, -2)) ** 2


def split(G):
    own = np.eye(G.shape[-1], dtype=bool)
    return G[:, own], G[:, ~own]


@pytest.mark.parametrize("links", [4, 16, 64])
def test_weak_links_meet_the_spectral_condition(links):
    """(I + B)^-1 B >= 0 entrywise with B = F + v 1^T / P, in every instance."""
    for G in gains(Weak(links=links), 30):
        direct = np.diag(G)
        B = G / direct[:, None] - np.eye(links) + (0.05 / direct)[:, None] / 2.0
        assert (np.linalg.solve(np.eye(links) + B, B) > -1e-12).all()


def test_weak_gains_are_uniform():
    direct, cross = split(gains(Weak(links=8), 300))
    assert stats.kstest(direct.ravel() - 1, "uniform").pvalue > 1e-3
    assert stats.kstest(cross.ravel() * 8 / 0.1, "uniform").pvalue > 1e-3


def test_strong_gains_are_exponential_at_full_coupling():
    direct, cross = split(gains(Strong(links=8, least_coupling=1.0), 300))
    assert stats.kstest(direct.ravel(), "expon").pvalue > 1e-3
    assert stats.kstest(cross.ravel(), "expon").pvalue > 1e-3


def test_the_coupling_is_uniform_and_the_same_for_all_links_of_an_instance():
    """With 64 links the mean cross gain of an instance is its coupling to within 2 %."""
    coupling = split(gains(Strong(links=64), 300))[1].mean(-1)
    assert 0.05 < coupling.min() < 0.08 and 0.97 < coupling.max() < 1.06
    assert stats.kstest(coupling, stats.uniform(0.05, 0.95).cdf).pvalue > 1e-3


def test_gains_differ_between_the_two_directions_of_a_pair():
    G = gains(Strong(links=2, least_coupling=1.0), 2000)
    assert abs(np.corrcoef(G[:, 0, 1], G[:, 1, 0])[0, 1]) < 5 / np.sqrt(2000)


def test_limits_and_equal_weights():
    instance = Strong(links=5).sample(3, dtype=torch.complex128)
    np.testing.assert_allclose(instance.context["weights"], 0.2, rtol=1e-12)
    np.testing.assert_allclose(instance.truth.noise, 0.05, rtol=1e-12)
    assert instance.context["p_max"].tolist() == [2.0] * 3


def test_random_weights_are_uniform_on_the_simplex_and_do_not_change_the_gains():
    plain, weighted = (Weak(random_weights=choice).sample(3000, seed=1, dtype=torch.complex128) for choice in (0, 1))
    weights = weighted.context["weights"].numpy()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-12)
    assert stats.kstest(weights[:, 2], stats.beta(1, 3).cdf).pvalue > 1e-3
    assert torch.equal(plain.truth.H, weighted.truth.H)


def test_the_worked_example_has_the_published_optimum():
    instance = ThreeLinks().sample(1, dtype=torch.complex128)
    G, weights = instance.truth.gains[0].numpy(), instance.context["weights"][0].numpy()
    noise, limit = instance.truth.noise[0].numpy(), instance.context["p_max"].item()

    def loss(p):
        signal = np.diag(G) * p
        return -(weights * np.log(1 + signal / (G @ p - signal + noise))).sum()

    start, total = np.full(3, limit / 3), {"type": "ineq", "fun": lambda p: limit - p.sum()}
    best = optimize.minimize(loss, start, bounds=[(0, limit)] * 3, constraints=[total], options={"ftol": 1e-14})
    np.testing.assert_allclose(best.x, [0.7421, 0.1912, 0.9167], atol=2e-4)
    assert abs(-best.fun - 2.0282) < 1e-4
