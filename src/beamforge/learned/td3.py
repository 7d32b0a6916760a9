"""Twin delayed deep deterministic policy gradient (TD3) on the powers of links, a baseline without a model.

Own and compact: an instance is an episode of one step, so the general libraries' replay, target networks and vectorised
environments have nothing to do here, and stable-baselines3 would bring Gymnasium and pandas with it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from beamforge.classical.links import SharedPower
from beamforge.instance import Instance
from beamforge.learned.sized import Sized, detached, ordered, posed, restored

WIDTH = 128
"""Of the hidden layers of actor and critics."""

RANGE = 4.0
"""Largest logarithm of a power relative to one of the others' geometric mean, in nats, either way."""

EXPLORATION = (0.05, 0.2)
"""Standard deviations of the noise on actions, each tried on every state, beside one action out of the blue."""

PATIENCE = 500
"""Steps of the critics before the first of the actor."""

DELAY = 2
"""Steps of the critics for one of the actor."""


class TD3(Sized):
    """Weighted sum rate of L links under one total power, learned from rewards alone; O(L^2).

    The state is the instance: logarithms of gains and weights, links in the order of their direct gains. The action is
    a number in [-1, 1] for each link, and the shares of the power a softmax of its multiple; the reward is the weighted
    sum rate as a multiple of what equal powers reach. An episode ends after one step, so the value of an action is its
    expected reward: nothing is bootstrapped. Two critics learn it from actions with noise; the actor follows the
    gradient of the lesser of the two, once for every two steps of theirs.

    Source: S. Fujimoto, H. van Hoof, D. Meger, "Addressing function approximation error in actor-critic methods",
    ICML 2018, Algorithm 1.
    """

    model = "td3"
    scaffold = ("critics.", "steps")
    steps: Tensor

    def __init__(self, weights: str = "shipped", links: int = 4) -> None:
        super().__init__(weights, links)
        if weights == "random":
            self.critics = nn.ModuleList(perceptron(links * (links + 2), 1) for _ in range(2))
            self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def network(self, links: int, **settings: Any) -> nn.Module:
        return Actor(links)

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The critics' squared errors and, every other time, minus the value that they give to the actor's actions.

        In validation it is minus the mean reward of the actor's actions; in training that of actions close by is shown.
        """
        _, data = posed(instance)
        if not self.training:
            reward = rewarded(data, self.shares(data).unsqueeze(-2)).mean()
            return -reward, {"reward": reward}
        (actor,) = self.networks.values()
        assert isinstance(actor, Actor)
        data, _ = ordered(data)
        state = observed(data)
        action = actor.act(state)
        with torch.no_grad():
            sizes = (len(EXPLORATION) + 1, *action.shape)
            noise = torch.randn(sizes, generator=generator, device=action.device).to(action)
            tried = [(action + scale * each).clamp(-1, 1) for scale, each in zip(EXPLORATION, noise, strict=False)]
            tried.append(torch.erf(noise[-1] / 2**0.5))  # uniform
            actions = torch.stack(tried, -2)
            outcome = rewarded(data, powers(actions))
        seen = torch.cat([state.unsqueeze(-2).expand(*actions.shape[:-1], -1), actions], -1)
        errors = [(critic(seen).squeeze(-1) - outcome).square().mean() for critic in self.critics]
        loss = torch.stack(errors).sum()
        if self.steps >= PATIENCE and self.steps % DELAY == 0:
            judged = torch.cat([state, action], -1)
            frozen = [detached(dict(critic.named_parameters())) for critic in self.critics]
            values = [functional_call(*pair, (judged,)) for pair in zip(self.critics, frozen, strict=True)]
            loss = loss - torch.minimum(*values).mean()
        self.steps += 1
        return loss, {"reward": outcome[:, 0].mean()}


class Actor(nn.Module):
    """`SharedPower` to shares [B, L]; equal ones at initialisation."""

    def __init__(self, links: int) -> None:
        super().__init__()
        self.layers = perceptron(links * (links + 1), links)
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, data: SharedPower) -> Tensor:
        data, order = ordered(data)
        return restored(powers(self.act(observed(data))), order)

    def act(self, state: Tensor) -> Tensor:
        """Actions [B, L] in [-1, 1]."""
        return self.layers(state).tanh()


def powers(action: Tensor) -> Tensor:
    """Shares [..., L] of the power."""
    return (RANGE * action).softmax(-1)


def perceptron(inputs: int, outputs: int) -> nn.Sequential:
    """Three hidden layers."""
    sizes = [inputs, WIDTH, WIDTH, WIDTH]
    hidden = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(WIDTH, outputs))


def observed(data: SharedPower) -> Tensor:
    """The state [B, L (L + 1)] of ordered links: logarithms of gains and weights."""
    L = data.direct.shape[-1]
    gains = data.cross.log1p() + torch.diag_embed((data.direct / L).clamp_min(1e-4).log())
    return torch.cat([gains.flatten(-2), (data.weights * L).clamp_min(1e-4).log()], -1)


def rewarded(data: SharedPower, p: Tensor) -> Tensor:
    """Weighted sum rates [B, S] of shares p [B, S, L] as multiples of that of equal powers."""
    equal = torch.full_like(p[..., :1, :], 1 / p.shape[-1])
    return data.rate(p) / data.rate(equal).clamp_min(torch.finfo(p.dtype).tiny)
