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

from beamforge.classical.links.wmmse import SharedPower
from beamforge.core.instance import Instance
from beamforge.learned.links.sized import Sized, detached, posed

WIDTH = 64
"""Of the hidden layers of actor and critics."""

FEATURES = 12
"""Of a link's state."""

RANGE = 4.0
"""Largest logarithm of a power relative to one of the others' geometric mean, in nats, either way."""

EXPLORATION = (0.03, 0.1, 0.3)
"""Standard deviations of the noise on actions, each tried on every state."""

PATIENCE = 200
"""Steps of the critics before the first of the actor."""

DELAY = 2
"""Steps of the critics for one of the actor."""

FAINT = 1e-4
"""Least power, gain or weight whose logarithm is told."""


class TD3(Sized):
    """Weighted sum rate of L links under one total power, learned from rewards alone; O(L^2).

    The state is the instance, as each link sees it: own gain and weight, interference heard and caused at equal powers,
    in logarithms, and their means and maxima over the links. The action is a number in [-1, 1] for each link, and the
    shares of the power a softmax of its multiple; the reward is the logarithm of the weighted sum rate as a multiple of
    what equal powers reach. An episode ends after one step, so the value of an action is its expected reward: nothing
    is bootstrapped. Two critics learn it from actions with noise; the actor follows the gradient of the lesser of the
    two, once for every two steps of theirs. All links share one network; a critic's is told the link's action, power
    and interference too, and the value is the mean of what it says of all links.

    Source: S. Fujimoto, H. van Hoof, D. Meger, "Addressing function approximation error in actor-critic methods",
    ICML 2018, Algorithm 1; networks shared by the links are ours.

    >>> from beamforge.scenarios.power_control import Strong
    >>> instance = Strong(links=4).sample(2)
    >>> TD3().solve(posed(instance)[0], instance).W.abs().square().sum((-2, -1)).round(decimals=3)
    tensor([2., 2.])
    """

    model = "td3"
    scaffold = ("critics.", "steps")
    steps: Tensor

    def __init__(self, weights: str = "shipped", links: int = 4) -> None:
        super().__init__(weights, links)
        if weights == "random":
            self.critics = nn.ModuleList(Critic() for _ in range(2))
            self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def network(self, links: int, **settings: Any) -> nn.Module:
        return Actor()

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
        state = observed(data)
        action = actor.act(state)
        with torch.no_grad():
            sizes = (len(EXPLORATION), *action.shape)
            noise = torch.randn(sizes, generator=generator, device=action.device).to(action)
            tried = [(action + scale * each).clamp(-1, 1) for scale, each in zip(EXPLORATION, noise, strict=True)]
            actions = torch.stack(tried, -2)
            outcome = rewarded(data, powers(actions))
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
    """`SharedPower` to shares [B, L]; equal ones at initialisation."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = perceptron(FEATURES)
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, data: SharedPower) -> Tensor:
        return powers(self.act(observed(data)))

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
        power = (p * p.shape[-1]).clamp_min(FAINT).log()
        told = torch.stack([action, power, data.interference(p).log()], -1)
        seen = torch.cat([state.unsqueeze(-3).expand(*action.shape, -1), told], -1)
        return self.layers(seen).squeeze(-1).mean(-1)


def perceptron(inputs: int) -> nn.Sequential:
    """Two hidden layers, to one number."""
    hidden = [part for a, b in pairwise([inputs, WIDTH, WIDTH]) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(WIDTH, 1))


def powers(action: Tensor) -> Tensor:
    """Shares [..., L] of the power."""
    return (RANGE * action).softmax(-1)


def observed(data: SharedPower) -> Tensor:
    """The state [B, L, 12]: of each link, and the means and maxima of all."""
    L = data.direct.shape[-1]
    own = [value.clamp_min(FAINT).log() for value in (data.direct / L, data.weights * L)]
    alone = torch.stack([*own, *((data.cross.sum(side) / L).log1p() for side in (-1, -2))], -1)
    return torch.cat([alone, *(each.expand_as(alone) for each in (alone.mean(-2, True), alone.amax(-2, True)))], -1)


def rewarded(data: SharedPower, p: Tensor) -> Tensor:
    """Logarithms [B, S] of the weighted sum rates of shares p [B, S, L] as multiples of that of equal powers."""
    equal = torch.full_like(p[..., :1, :], 1 / p.shape[-1])
    tiny = torch.finfo(p.dtype).tiny
    return (data.rate(p).clamp_min(tiny) / data.rate(equal).clamp_min(tiny)).log()
