"""Twin delayed deep deterministic policy gradient (TD3) on the powers of links, a model-free baseline.

A compact implementation of our own: an episode has one step, so the replay buffers, target networks and vectorised
environments of general libraries are not needed, nor the dependencies of stable-baselines3 (Gymnasium, pandas).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from beamforge.classical.links.wmmse import SharedPower
from beamforge.core.instance import Instance
from beamforge.learned.links.sized import Sized, bound_problem, detached

WIDTH = 64
"""Width of the hidden layers of actor and critics."""

FEATURES = 12
"""Entries of a link's state."""

RANGE = 4.0
"""Largest magnitude, in nats, of a power's logarithm up to a constant common to all links."""

EXPLORATION = (0.03, 0.1, 0.3)
"""Standard deviations of the noise added to the actions; each is tried on every state."""

PATIENCE = 200
"""Steps of the critics before the first step of the actor."""

DELAY = 2
"""Steps of the critics per step of the actor."""

LEAST = 1e-4
"""Smaller powers, gains and weights are raised to this before their logarithm is taken."""


class TD3(Sized):
    """Weighted sum rate of L links under one total power, learned from rewards alone; O(L^2).

    The state has, for each link, the logarithms of gain, weight, and interference received and caused at equal powers,
    and their means and maxima over the links. The action is a number in [-1, 1] for each link; the shares of the power
    are a softmax of 4 times the action. The reward is the logarithm of the weighted sum rate divided by that of equal
    powers. An episode has one step, so the value of an action is its expected reward, without bootstrapping. Two
    critics learn it from noisy actions; the actor follows the gradient of the smaller value, once every two steps of
    the critics. All links share one network. A critic's has the link's action, power and interference as further
    inputs, and the value is the mean of its outputs over the links.

    Source: S. Fujimoto, H. van Hoof, D. Meger, "Addressing function approximation error in actor-critic methods",
    ICML 2018, Algorithm 1; sharing networks between links is ours.

    >>> from beamforge.scenarios.power_control import Strong
    >>> instance = Strong(links=4).sample(2)
    >>> TD3().solve(bound_problem(instance)[0], instance).W.abs().square().sum((-2, -1)).round(decimals=3)
    tensor([2., 2.])
    """

    model = "td3"
    training_only = ("critics.", "steps")
    steps: Tensor

    def __init__(self, checkpoint: str = "shipped", links: int = 4) -> None:
        super().__init__(checkpoint, links)
        if checkpoint == "random":
            self.critics = nn.ModuleList(Critic() for _ in range(2))
            self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def network(self, links: int, **settings: Any) -> nn.Module:
        return Actor()

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The critics' squared errors and, every other step, minus their value of the actor's actions.

        In validation: minus the mean reward of the actor's actions. The metric in training is the reward with the least
        noise.
        """
        _, data = bound_problem(instance)
        if not self.training:
            reward = log_reward(data, self.shares(data).unsqueeze(-2)).mean()
            return -reward, {"reward": reward}
        (actor,) = self.networks.values()
        assert isinstance(actor, Actor)
        state = link_states(data)
        action = actor.act(state)
        with torch.no_grad():
            sizes = (len(EXPLORATION), *action.shape)
            noise = torch.randn(sizes, generator=generator, device=action.device).to(action)
            tried = [(action + scale * each).clamp(-1, 1) for scale, each in zip(EXPLORATION, noise, strict=True)]
            actions = torch.stack(tried, -2)
            outcome = log_reward(data, powers(actions))
        errors = [(critic(data, state, actions) - outcome).square().mean() for critic in self.critics]
        loss = torch.stack(errors).sum()
        if self.steps >= PATIENCE and self.steps % DELAY == 0:
            frozen = [detached(dict(critic.named_parameters())) for critic in self.critics]
            judged = (data, state, action.unsqueeze(-2))
            values = [functional_call(*pair, judged) for pair in zip(self.critics, frozen, strict=True)]
            loss = loss - torch.minimum(*values).mean()
        self.steps += 1
        return loss, {"reward": outcome[:, 0].mean()}


class Actor(nn.Module):
    """Maps `SharedPower` to shares [B, L]; equal shares at initialisation."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = perceptron(FEATURES)
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, data: SharedPower) -> Tensor:
        return powers(self.act(link_states(data)))

    def act(self, state: Tensor) -> Tensor:
        """Actions [B, L] in [-1, 1] from states [B, L, 12]."""
        return self.layers(state).squeeze(-1).tanh()


class Critic(nn.Module):
    """Values [B, S] of actions [B, S, L] in states [B, L, 12]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = perceptron(FEATURES + 3)

    def forward(self, data: SharedPower, state: Tensor, action: Tensor) -> Tensor:
        p = powers(action)
        power = (p * p.shape[-1]).clamp_min(LEAST).log()
        told = torch.stack([action, power, data.interference(p).log()], -1)
        seen = torch.cat([state.unsqueeze(-3).expand(*action.shape, -1), told], -1)
        return self.layers(seen).squeeze(-1).mean(-1)


def perceptron(inputs: int) -> nn.Sequential:
    """A network with two hidden layers and one output."""
    hidden = [part for a, b in pairwise([inputs, WIDTH, WIDTH]) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(WIDTH, 1))


def powers(action: Tensor) -> Tensor:
    """Shares [..., L] of the power for actions [..., L]."""
    return (RANGE * action).softmax(-1)


def link_states(data: SharedPower) -> Tensor:
    """States [B, L, 12]: four entries of each link, and their means and maxima over the links."""
    L = data.direct.shape[-1]
    own = [value.clamp_min(LEAST).log() for value in (data.direct / L, data.weights * L)]
    alone = torch.stack([*own, *((data.cross.sum(side) / L).log1p() for side in (-1, -2))], -1)
    return torch.cat([alone, *(each.expand_as(alone) for each in (alone.mean(-2, True), alone.amax(-2, True)))], -1)


def log_reward(data: SharedPower, p: Tensor) -> Tensor:
    """Rewards [B, S] of shares p [B, S, L]: logarithm of the weighted sum rate over that of equal powers."""
    equal = torch.full_like(p[..., :1, :], 1 / p.shape[-1])
    tiny = torch.finfo(p.dtype).tiny
    return (data.rate(p).clamp_min(tiny) / data.rate(equal).clamp_min(tiny)).log()
