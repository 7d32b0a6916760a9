"""The graph network: its messages against NumPy, its loss, learning without labels."""

from __future__ import annotations

import numpy as np
import torch

from beamforge.checks import check_solver
from beamforge.learned.links.gnn import GNN, ROUNDS, WIDTH
from beamforge.learned.links.sized import bound_problem
from beamforge.training.data.links import Links
from beamforge.training.stream import Stream


def method(links=4, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GNN(checkpoint="random", links=links)


def batch(links, count=4, step=0, dtype=torch.complex128):
    return Stream.training(Links(links=(links, links)), seed=0, batch=count, dtype=dtype).batch_at(step)


def test_any_weights_conform():
    check_solver(method())


def test_messages_follow_their_equation():
    solver, instance = method(5), batch(5)
    _, data = bound_problem(instance)
    get = {name: value.detach().double().numpy() for name, value in solver.networks["5"].state_dict().items()}

    def layer(name, x):
        return get[f"{name}.weight"] @ x + get.get(f"{name}.bias", 0)

    with torch.no_grad():
        found = solver.shares(data).numpy()
    for b in range(4):
        A = (data.cross[b] + torch.diag(data.direct[b])).numpy()
        own = [np.array([np.log(A[k, k] / 5), np.log(5 * float(data.weights[b, k]))]) for k in range(5)]
        x = [np.zeros(WIDTH)] * 5
        for _ in range(ROUNDS):
            after = []
            for k in range(5):
                heard = []
                for j in range(5):
                    if j != k:
                        edge = np.log1p(np.array([A[k, j], A[j, k]]))
                        hidden = np.maximum(layer("sender", x[j]) + get["edge.weight"] @ edge, 0)
                        heard.append(np.maximum(layer("message", hidden), 0))
                seen = np.concatenate([x[k], own[k], np.max(heard, 0), np.mean(heard, 0)])
                after.append(layer("update.2", np.maximum(layer("update.0", seen), 0)))
            x = after
        score = np.exp([layer("score", each)[0] for each in x])
        np.testing.assert_allclose(found[b], score / score.sum(), rtol=1e-9)


def test_the_loss_is_minus_the_rate():
    solver, instance = method(3), batch(3)
    problem, _ = bound_problem(instance)
    with torch.no_grad():
        W = solver.solve(problem, instance.observation.network).W
        loss, _ = solver.loss(instance, torch.Generator())
    torch.testing.assert_close(loss, -problem.value(instance.observation.network, W).mean())


def test_it_learns_without_labels():
    solver = method(3)
    optimiser = torch.optim.Adam(solver.parameters(), 3e-3)
    held_out = batch(3, count=64, step=10**6, dtype=torch.complex64)
    with torch.no_grad():
        before = solver.loss(held_out, torch.Generator())[0]
    for step in range(60):
        loss, _ = solver.loss(batch(3, 32, step, torch.complex64), torch.Generator())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    _, data = bound_problem(held_out)
    equal = data.rate(torch.full_like(data.direct, 1 / 3).unsqueeze(-2)).mean()
    with torch.no_grad():
        after = solver.loss(held_out, torch.Generator())[0]
    assert -after > 1.1 * max(float(equal), -float(before))
