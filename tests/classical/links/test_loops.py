"""What the published methods for links do on the way: Algorithm 1 literally, geometric programs by CVXPY."""

import numpy as np
import pytest
import torch
from links import solve, strong
from oracles_links import PAPER_G, PAPER_STARTS, algorithm_one, geometric_program, nats, quasi_inverse_program

from beamforge.classical.links import mm_admm
from beamforge.classical.links.mm_admm import MMADMM, positive_root
from beamforge.classical.links.quasi_inverse import QuasiInverse
from beamforge.classical.links.sca import Program, SuccessiveGP, solve_program
from beamforge.scenarios import Weak


@pytest.mark.parametrize("start", PAPER_STARTS, ids=["first", "second"])
@pytest.mark.parametrize("outer", [1, 4])
def test_mm_admm_follows_algorithm_one(start, outer, monkeypatch):
    monkeypatch.setattr(mm_admm, "SLACK", 0.0)  # every loop to its end
    beta = 0.3
    path = algorithm_one(PAPER_G, np.full(3, 0.05), np.full(3, 1 / 3), 1.85, np.array(start), beta, outer)
    settings = {"max_iterations": outer, "admm_tolerance": 1e-11, "inner_tolerance": 1e-12, "tolerance": 0.0}
    _, p = solve(MMADMM, PAPER_G[None], 0.05, 1.85, 1 / 3, [start], beta=beta, **settings)
    np.testing.assert_allclose(p[0], path[-1], atol=1e-8)


def test_the_penalty_is_in_no_unit_of_power():
    G, weights = strong(2, 4, seed=8)
    one, p = solve(MMADMM, G, 0.05, 2.0, weights, max_iterations=5)
    other, q = solve(MMADMM, G, 0.05e-6, 2e-6, weights, max_iterations=5)
    np.testing.assert_allclose(q * 1e6, p, rtol=1e-9)
    assert torch.equal(one.info["inner_iterations"], other.info["inner_iterations"])


def test_mm_never_falls():
    weak = Weak(links=8).sample(4, dtype=torch.complex128).truth.gains
    for G, weights in (strong(6, 6, seed=9), (weak, np.ones((4, 8)))):
        for kind in (MMADMM, SuccessiveGP):
            solution, _ = solve(kind, G, 0.05, 2.0, weights, max_iterations=40)
            assert (solution.trace.diff(dim=-1) >= -1e-6 * solution.trace[:, 1:]).all()
    assert solution.trace.shape[-1] > 1


def test_counts_of_inner_steps():
    solution, _ = solve(MMADMM, PAPER_G[None], 0.05, 1.85, 1 / 3)
    assert solution.info["inner_iterations"] >= solution.info["admm_iterations"] >= solution.iterations


def test_positive_root():
    b = torch.tensor([3.0, -3.0, 0.0, 1e8, -1e-8, 0.0], dtype=torch.float64)
    c = torch.tensor([2.0, 2.0, 2.0, 1e-8, 0.0, 0.0], dtype=torch.float64)
    x = positive_root(0.5, b, c)
    assert (x >= 0).all()
    torch.testing.assert_close(0.5 * x**2 + b * x, c, rtol=1e-12, atol=1e-22)


def test_geometric_programs_are_those_of_cvxpy():
    generator = np.random.default_rng(0)
    C = generator.exponential(size=(6, 4, 4)) + 0.01
    w, b = generator.dirichlet(np.ones(4), 6), generator.dirichlet(np.ones(4), 6)
    start = torch.as_tensor(generator.dirichlet(np.ones(4), 6))
    found = solve_program(Program(*map(torch.as_tensor, (C, w, b))), start)
    for i in range(6):
        np.testing.assert_allclose(found[i], geometric_program(C[i], w[i], b[i]), rtol=1e-4, atol=1e-6)
        gradient = (w[i] / (C[i] @ found[i].numpy())) @ C[i] * found[i].numpy() - b[i]
        assert np.abs(gradient).max() <= 1e-10


def test_geometric_programs_from_afar():
    C = torch.tensor([[[1.0, 1e-6], [1e6, 1.0]]], dtype=torch.float64)
    w = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    b = torch.tensor([[0.4, 0.6]], dtype=torch.float64)
    near = solve_program(Program(C, w, b), torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    far = solve_program(Program(C, w, b), torch.tensor([[1.0, 1e-25]], dtype=torch.float64))
    torch.testing.assert_close(far, near, rtol=1e-8, atol=0)


@pytest.mark.parametrize("random_weights", [False, True])
@pytest.mark.parametrize("links", [4, 8])
def test_the_quasi_inverse_reaches_the_optimum_where_it_says_so(links, random_weights):
    instance = Weak(links=links, random_weights=random_weights).sample(6, seed=1, dtype=torch.complex128)
    G, weights = instance.truth.gains.numpy(), instance.context["weights"].numpy()
    solution, p = solve(QuasiInverse, G, 0.05, 2.0, weights)
    assert solution.info["certified"].all()
    assert solution.info["interior"].all() != random_weights
    for b in range(6):
        value, there = quasi_inverse_program(G[b], np.full(links, 0.05), weights[b], 2.0)
        ours = nats(G[b], np.full(links, 0.05), weights[b], p[b])
        assert ours == pytest.approx(value, rel=1e-7)
        assert ours >= nats(G[b], np.full(links, 0.05), weights[b], there.clip(0)) * (1 - 1e-8)


def test_the_quasi_inverse_claims_nothing_else():
    G, weights = strong(10, 4, seed=10)
    solution, p = solve(QuasiInverse, G, 0.05, 2.0, weights)
    for b in range(10):
        B = G[b] / np.diag(G[b])[:, None] - np.eye(4) + 0.05 / np.diag(G[b])[:, None] / 2.0
        assert bool(solution.info["certified"][b]) == bool((np.linalg.solve(np.eye(4) + B, B) >= 0).all())
    assert not solution.info["certified"].all() and np.isfinite(p).all()
