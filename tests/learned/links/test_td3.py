"""TD3: gradients of actor and critics, validation, and what the trained weights contain."""

from __future__ import annotations

import torch

from beamforge.checks import check_solver
from beamforge.io.weights import load
from beamforge.learned.links.sized import bound_problem
from beamforge.learned.links.td3 import DELAY, EXPLORATION, PATIENCE, RANGE, TD3, link_states
from beamforge.training.data.links import Links
from beamforge.training.loop import train
from beamforge.training.recipe import Recipe
from beamforge.training.stream import Stream


def method(links=3, seed=0, std=0.3, steps=PATIENCE):
    """A random actor, and critics past their first `PATIENCE` steps."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        solver = TD3(checkpoint="random", links=links)
        with torch.no_grad():
            for parameter in solver.networks.parameters():
                parameter += std * torch.randn(parameter.shape)
    solver.steps.fill_(steps)
    return solver


def batch(links, count=8, step=0, dtype=torch.complex64):
    return Stream.training(Links(links=(links, links)), seed=0, batch=count, dtype=dtype).batch_at(step)


def gradients(solver, generator_seed=0):
    solver.zero_grad()
    loss, _ = solver.loss(batch(3), torch.Generator().manual_seed(generator_seed))
    loss.backward()
    taken = {"actor": solver.networks.parameters(), "critics": solver.critics.parameters()}
    return {name: [None if p.grad is None else p.grad.clone() for p in part] for name, part in taken.items()}


def test_any_weights_conform():
    check_solver(method(4, std=0.03))


def test_the_actor_waits_and_then_moves_every_other_step():
    moved = []
    for steps in (0, PATIENCE - 1, PATIENCE, PATIENCE + 1, PATIENCE + DELAY):
        solver = method(steps=steps)
        moved.append(any(g is not None and g.abs().max() > 0 for g in gradients(solver)["actor"]))
        assert solver.steps == steps + 1
    assert moved == [False, False, True, False, True]


def test_the_actors_loss_has_no_gradient_for_the_critics():
    """Their gradient is the same whether the actor moves or not."""
    with_actor, without = (gradients(method(steps=steps))["critics"] for steps in (PATIENCE, PATIENCE + 1))
    for one, other in zip(with_actor, without, strict=True):
        torch.testing.assert_close(one, other)


def test_critics_learn_the_rewards_of_the_noisy_actions():
    """The loss of critics with a constant value of one, from the rates of the noisy actions and of equal powers."""
    solver, instance = method(steps=PATIENCE + 1), batch(3)
    with torch.no_grad():
        for critic in solver.critics:
            critic.layers[-1].weight.zero_()
            critic.layers[-1].bias.fill_(1.0)
    _, data = bound_problem(instance)
    (actor,) = solver.networks.values()
    with torch.no_grad():
        action = actor.act(link_states(data))
        torch.testing.assert_close((RANGE * action).softmax(-1), solver.shares(data))
    noise = torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(7))
    tried = [(action + scale * noise[i]).clamp(-1, 1) for i, scale in enumerate(EXPLORATION)]
    wrong = []
    for each in tried:
        p = (RANGE * each).softmax(-1)
        rate, equal = (data.rate(q.unsqueeze(-2)).squeeze(-1) for q in (p, torch.full_like(p, 1 / 3)))
        wrong.append((((rate / equal).log() - 1) ** 2).mean())
    loss, _ = solver.loss(instance, torch.Generator().manual_seed(7))
    torch.testing.assert_close(loss.detach(), 2 * torch.stack(wrong).mean(), rtol=1e-4, atol=0)


def test_validation_is_the_reward_alone():
    solver = method().eval()
    _, data = bound_problem(batch(3))
    with torch.no_grad():
        shares = solver.shares(data)
        rates = [data.rate(p.unsqueeze(-2)).squeeze(-1) for p in (shares, torch.full_like(shares, 1 / 3))]
        loss, _ = solver.loss(batch(3), torch.Generator())
    torch.testing.assert_close(loss, -(rates[0] / rates[1]).log().mean())
    assert solver.steps == PATIENCE


def test_trained_weights_contain_no_critics(tmp_path):
    text = '[model]\nname = "td3"\nweights = "random"\nlinks = 2\n[data]\nsource = "links"\nlinks = 2\n'
    recipe = Recipe.parse(text + "[run]\nsteps = 2\nbatch = 4\nvalidation_batches = 1\n")
    train(recipe, lambda: TD3(checkpoint="random", links=2), tmp_path)
    trained = load("td3", tmp_path / "weights.safetensors")
    assert trained.tensors and all(name.startswith("networks.2.") for name in trained.tensors)
    assert TD3(checkpoint=str(tmp_path / "weights.safetensors")).networks.keys() == {"2"}


def test_it_learns_from_rewards_alone():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        solver = TD3(checkpoint="random", links=3)
    optimiser = torch.optim.Adam(solver.parameters(), 2e-3)
    for step in range(PATIENCE + 200):
        loss, _ = solver.loss(batch(3, 32, step), torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        _, figures = solver.eval().loss(batch(3, 200, 10**6), torch.Generator())
    assert figures["reward"] > 0.15  # 16 % above equal powers
