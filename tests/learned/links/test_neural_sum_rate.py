"""Neural sum rate: random weights against Algorithm 2 of the paper, untrained ones against Algorithm 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import beamforge
from beamforge import Network, Problem
from beamforge.checks import check_solver
from beamforge.classical.links.many_starts import ManyStarts
from beamforge.core.constraints import TotalPower
from beamforge.core.errors import ConfigError, UnsupportedProblem
from beamforge.core.instance import Instance
from beamforge.core.utilities import SumRate
from beamforge.io import weights
from beamforge.io.weights import Weights
from beamforge.learned.links.neural_sum_rate import DEPTH, PENALTY, NeuralSumRate
from beamforge.learned.links.sized import bound_problem
from beamforge.registry import create
from beamforge.training.data.links import Links
from beamforge.training.stream import Stream


def method(links=4, std=0.1, seed=0, **settings):
    """A method with random weights in all layers; those of an untrained one are zero in the last layer."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        solver = NeuralSumRate(checkpoint="random", links=links, **settings)
    with torch.no_grad():
        for parameter in solver.parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
    return solver


def batch(links, count=5, step=0, dtype=torch.complex128, **fields) -> Instance:
    fields = {"strong_share": 0.5, **fields}
    return Stream.training(Links(links=(links, links), **fields), seed=0, batch=count, dtype=dtype).batch_at(step)


def solved(solver, instance):
    with torch.no_grad():
        return solver.solve(bound_problem(instance)[0], instance.observation.network).W.abs().square().squeeze(-2)


# --- the paper's algorithms in NumPy ---------------------------------------------------------------------------------
def psi(network, vectors, matrix=None):
    """Three hidden layers of 128 on everything in one long vector."""
    get = {name: value.detach().double().numpy() for name, value in network.state_dict().items()}
    h = get["vectors.weight"] @ np.concatenate(vectors) + get["vectors.bias"]
    if matrix is not None:
        h = h + get["matrix.weight"] @ matrix.reshape(-1)
    for layer in (1, 3, 5):
        assert h.shape == (128,)
        h = get[f"hidden.{layer}.weight"] @ np.maximum(h, 0) + get[f"hidden.{layer}.bias"]
    return h


def algorithm_2(nets, G, n, w, P):
    """In watts, with the networks' inputs in units of an equal share, and without sorting the links."""
    L, beta = len(n), PENALTY * len(n) / P**2
    own = np.diag(G)
    unit = P / L
    A = G * unit / n[:, None]
    noise = -np.log(np.diag(A))
    p, z, mu = np.full(L, unit), np.full(L, unit), np.zeros(L)

    def pick(kind, index):
        return nets[kind][index % len(nets[kind])]

    for k in range(DEPTH):
        alpha = G * p / (G @ p + n)[:, None]
        q = (w @ alpha) * np.exp(psi(pick("q", k), [p / unit, noise, w * L], A))
        for t in range(DEPTH):
            for d in range(DEPTH):
                index = t * DEPTH + d
                x = G @ p - own * p + n
                x = x * np.exp(psi(pick("x", index), [noise], A * (p / unit)))
                y = beta * (p - z + mu) + np.array(
                    [sum(w[i] * G[i, l] / x[i] for i in range(L) if i != l) for l in range(L)]
                )
                seen = [p / unit, z / unit, mu / unit, noise]
                y = y * np.exp(psi(pick("y", index), seen, A.T * (w * L * n / x)))
                p = np.where(y > q / P, q / np.where(y > 0, y, 1), P)
            s = p + mu
            z = s - max(0, s.sum() - P) / L + unit * psi(pick("z", t), [p / unit, mu / unit])
            mu = mu + p - z + unit * psi(pick("mu", t), [p / unit, z / unit, mu / unit])
    return P * p / p.sum()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("links", [1, 3, 5])
def test_it_is_algorithm_2(links, shared):
    solver, instance = method(links, shared=shared), batch(links)
    found = solved(solver, instance)
    nets = {name: list(part) for name, part in solver.networks[str(links)].named_children()}
    assert [len(nets[name]) for name in ("q", "x", "y", "z", "mu")] == ([1] * 5 if shared else [4, 16, 16, 4, 4])
    for i in range(len(found)):
        G = instance.truth.gains[i].numpy()
        order = np.argsort(-np.diag(G))
        n, w = instance.truth.noise[i].numpy()[order], instance.context["weights"][i].numpy()[order]
        expected = algorithm_2(nets, G[np.ix_(order, order)], n, w, float(instance.context["p_max"][i]))
        np.testing.assert_allclose(found[i].numpy()[order], expected, rtol=1e-9, atol=1e-13)


def test_before_training_it_is_a_few_iterations_of_algorithm_1():
    instance = batch(4, strong_share=0.0)
    with torch.random.fork_rng():
        solver = NeuralSumRate(checkpoint="random", links=4)
    found = solved(solver, instance)
    beta = PENALTY * 4 / 2.0**2
    for i in range(len(found)):
        G, n, w = (
            value[i].numpy() for value in (instance.truth.gains, instance.truth.noise, instance.context["weights"])
        )
        p, z, mu = np.full(4, 0.5), np.full(4, 0.5), np.zeros(4)
        for _ in range(DEPTH):
            alpha = G * p / (G @ p + n)[:, None]
            for _ in range(DEPTH):
                for _ in range(DEPTH):
                    x = G @ p - np.diag(G) * p + n
                    y = beta * (p - z + mu) + (G - np.diag(np.diag(G))).T @ (w / x)
                    p = np.minimum(2.0, (w @ alpha) / y)
                s = p + mu
                z = s - max(0, s.sum() - 2.0) / 4
                mu = mu + p - z
        np.testing.assert_allclose(found[i].numpy(), 2 * p / p.sum(), rtol=1e-9)


# --- what holds for any weights --------------------------------------------------------------------------------------
def test_any_weights_conform():
    check_solver(method())


@pytest.mark.parametrize("std", [0.0, 3.0])
def test_hostile_instances_keep_the_limit(std):
    G = torch.rand(6, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    G[1, 2, 2] = 0  # a link without a direct gain
    G[2] = torch.eye(4)  # no interference
    G[3] *= 1e14
    G[4] *= 1e-14
    G[5, :, 1] = 0  # a transmitter that no user receives
    problem = Problem(SumRate(torch.tensor([1.0, 0.0, 2.0, 1e-9], dtype=torch.float64)), (TotalPower(3.0),))
    for dtype in (torch.float64, torch.float32):
        network = Network.power_control(G.to(dtype), noise=0.1)
        bound = Problem(SumRate(problem.maximise.weights.to(dtype)), problem.subject_to)
        solution = method(std=std).solve(bound, network)
        assert solution.solved.all()
        torch.testing.assert_close(network.transmit_power(solution.W).sum(-1), torch.full((6,), 3.0, dtype=dtype))


# --- learning --------------------------------------------------------------------------------------------------------
def test_the_loss_is_that_of_the_labels():
    solver, instance = method(), batch(4)
    found = solved(solver, instance)
    problem, _ = bound_problem(instance)
    best = ManyStarts().solve(problem, instance.observation.network).W.abs().square().squeeze(-2)
    expected = ((found - best).square().sum(-1) / best.square().sum(-1)).mean()
    loss, figures = solver.loss(instance, torch.Generator())
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-3, atol=0)
    accuracy = (1 - (found - best).norm(dim=-1) / best.norm(dim=-1)).mean()
    torch.testing.assert_close(figures["power_accuracy"], accuracy, rtol=1e-3, atol=0)
    stated = Instance.perfect(instance.truth, {"p": found}, **instance.context)
    assert solver.loss(stated, torch.Generator())[0] < 1e-25


def test_gradients_agree_with_differences():
    solver, instance = method(3).double(), batch(3)
    generator = torch.Generator().manual_seed(2)
    parameters = list(solver.parameters())
    direction = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in parameters]
    gradient = torch.autograd.grad(solver.loss(instance, generator)[0], parameters)
    slope = sum((g * v).sum() for g, v in zip(gradient, direction, strict=True))

    def moved(h):
        with torch.no_grad():
            for p, v in zip(parameters, direction, strict=True):
                p += h * v
            value = solver.loss(instance, generator)[0]
            for p, v in zip(parameters, direction, strict=True):
                p -= h * v
        return value

    h = 1e-8  # in larger steps, 64 layers of ReLU are not differentiable
    assert slope.abs() > 1e-2
    torch.testing.assert_close(slope, (moved(h) - moved(-h)) / (2 * h), rtol=1e-4, atol=1e-7)


def test_it_fits_a_few_labels():
    instance = batch(3, count=6, dtype=torch.complex64, strong_share=0.0, weighted_share=1.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        solver = NeuralSumRate(checkpoint="random", links=3)
    optimiser = torch.optim.Adam(solver.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        loss, _ = solver.loss(instance, torch.Generator())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3


# --- sizes -----------------------------------------------------------------------------------------------------------
def test_other_sizes_are_refused_with_the_methods_that_serve_them():
    G = torch.eye(7, dtype=torch.float64) + 0.1
    with pytest.raises(
        UnsupportedProblem, match=r"neural-sum-rate \(4, 16 or 64 links.*7 users; methods that do: .*global"
    ):
        beamforge.solve(G, noise=0.1, p_max=1.0, method="neural-sum-rate")


def test_own_weights_serve_their_own_size(tmp_path):
    solver, path = method(3), tmp_path / "own.safetensors"
    header = {"model": "neural-sum-rate", "settings": {"checkpoint": "random", "links": 3}}
    weights.save(path, Weights(solver.state_dict(), header))
    instance = batch(3)
    problem, network = bound_problem(instance)[0], instance.observation.network
    found = create(problem, network, "neural-sum-rate", {"checkpoint": str(path)}).solve(problem, network)
    torch.testing.assert_close(found.W.abs().square().squeeze(-2), solved(solver, instance))
    with pytest.raises(UnsupportedProblem, match="4 users"):
        NeuralSumRate(checkpoint=str(path)).solve(*(bound_problem(batch(4))[0], batch(4).observation))
    weights.save(path, Weights(solver.state_dict(), {**header, "settings": {"links": 4}}))
    with pytest.raises(ConfigError, match="checkpoint must fit"):
        NeuralSumRate(checkpoint=str(path))
    with pytest.raises(ConfigError, match="links must be at least 1"):
        NeuralSumRate(checkpoint="random", links=0)
