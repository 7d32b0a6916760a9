"""Power control for the weighted sum rate by learned steps, one set of weights for any number of links: our own.

The link with most of the initial power decides which local optimum WMMSE finds. So two dozen candidates start, each
with most power on another link, and a few rounds bring them near their optima. A round is a step of WMMSE; a small
network chooses its length for each link from features of that link. The best candidates may continue with classical
steps. Training maximises the rate of the best candidate: it needs no labels and does not make the candidates equal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from beamforge.classical.links.single_link_starts import OVER_RELAXATION, climb, logarithm, moved, single_link_starts
from beamforge.classical.links.wmmse import CAPABILITIES, SharedPower, link_response
from beamforge.core import batching
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.io.weights import trained_weights

LEADERS = 23
"""Candidates with most power on one link; one more starts from equal powers."""

FULL_ROUNDS = 2
"""Rounds applied to all candidates."""

KEPT = 8
"""Candidates, the best ones, that go through the remaining rounds."""

FEATURES = 12

CHUNK = 2**15
"""Shares processed at once, so that intermediate results fit into a processor's cache."""

SHARPNESS = 500.0
"""Sharpness of the soft maximum over candidates in the loss: one percent of the rate counts as e^5."""

LOSS_STEPS = 3
"""Steps, twice as long as WMMSE's, after which the loss evaluates the candidates again."""

MEAN_WEIGHT = 0.01
"""Weight of the mean over candidates in the loss, which gives every candidate a gradient."""


class NeuralSumRateShared(Solver):
    """Weighted sum rate of L links under one total power; O(L^2) a round and candidate, and a step.

    Candidates: equal powers, and 0.9 of the power on one of the 23 links with the best rates when alone. With p the
    shares of the power and d the change of their logarithms in a WMMSE step, a round takes each candidate to ::

        log p_l + 3 exp(a_l) d_l + b_l + const,     sum_l p_l = 1

    A network gives a, b and a memory for the next round from p_l, d_l, the link's SINR, interference, price, rate and
    weight, and the candidate's distance to the best rate; all links and candidates share it. At initialisation a and b
    are zero. Equal powers are a further candidate after the rounds, so no result is worse than these.

    steps       classical steps after the rounds, none of which lowers the rate: see `climb`.
    samples     number of candidates, the best ones, that take these steps; the best of them at the end is the result.
                A `start` given to `solve` joins the candidates after the rounds.
    checkpoint  "shipped", "random" (untrained), or a file that `beamforge train` wrote; the weights have gradients only
                if they are random, or after `requires_grad_`.
    width       width of a random network; otherwise the weights determine it.
    rounds      number of rounds, likewise.

    >>> from beamforge.scenarios.power_control import ThreeLinks
    >>> instance = ThreeLinks().sample(1, dtype=torch.complex128)
    >>> problem = build_problem("sum-rate", instance.context)
    >>> solution = NeuralSumRateShared(checkpoint="random").solve(problem, instance)
    >>> solution.W.detach().abs().square().squeeze(-2).round(decimals=3)
    tensor([[0.7420, 0.1910, 0.9170]], dtype=torch.float64)
    """

    capabilities = CAPABILITIES

    def __init__(
        self, steps: int = 10, samples: int = 1, checkpoint: str = "shipped", width: int = 16, rounds: int = 6
    ) -> None:
        super().__init__()
        if steps < 0:
            raise ConfigError(f"steps must not be negative, got {steps}")
        if min(samples, width, rounds) < 1:
            raise ConfigError(f"samples, width and rounds must be at least 1, got {samples}, {width} and {rounds}")
        self.steps, self.samples = steps, samples
        model = "neural-sum-rate-shared"
        trained = trained_weights(model, checkpoint)
        try:
            if trained is not None:
                width, rounds = (int(trained.settings[name]) for name in ("width", "rounds"))
            self.rounds = Rounds(width, rounds)
            if trained is not None:
                self.load_state_dict(trained.tensors)
                self.requires_grad_(False)
        except (KeyError, ValueError, RuntimeError):
            raise ConfigError(f"checkpoint must fit this version's network, got {checkpoint}") from None

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        data = SharedPower.of(problem, observation.network)
        B, L = data.direct.shape
        pieces = torch.arange(B, device=data.direct.device).split(max(1, CHUNK // ((LEADERS + 1) * L)))
        p = torch.cat([self.candidates(batching.take(data, piece)) for piece in pieces])
        p = torch.cat([torch.full_like(p[:, :1], 1 / L), p], 1)
        if start is not None:
            p = torch.cat([p, moved(logarithm(data.shares(start)), 0 * p[:, 0]).exp().unsqueeze(1)], 1)
        order = data.rate(p).nan_to_num(-torch.inf).argsort(dim=-1, descending=True, stable=True)[:, : self.samples]
        p, rates = climb(data, p.take_along_dim(order.unsqueeze(-1), 1), self.steps)
        best = rates[..., -1].argmax(-1)
        p = p.take_along_dim(best[:, None, None], 1).squeeze(1)
        status = torch.full_like(best, int(Status.CONVERGED))
        return Solution(data.beams(p), status, torch.full_like(best, self.steps), rates.amax(1))

    def candidates(self, data: SharedPower) -> Tensor:
        """Shares [B, S, L] after the rounds, in the precision and on the device of the data."""
        total = data.weights.sum(-1, keepdim=True)
        data = data._replace(weights=data.weights / torch.where(total > 0, total, 1))
        weights = {name: value.to(data.direct) for name, value in self.rounds.state_dict(keep_vars=True).items()}
        return functional_call(self.rounds, weights, (data, single_link_starts(data, LEADERS))).exp()

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the logarithm of the best rate, a soft maximum over candidates; half before and half after three steps.

        instance  links with `p_max` and `weights` in their context.
        """
        problem = build_problem("sum-rate", instance.context).bind(instance.observation.network)
        data = SharedPower.of(problem, instance.observation.network)
        p = self.candidates(data)
        before = data.rate(p)
        for _ in range(LOSS_STEPS):
            p = moved(logarithm(p), 4 * logarithm(link_response(data, p).pull)).exp()
        after = data.rate(p)
        tiny = torch.finfo(p.dtype).tiny ** 0.5
        loss = sum(-soft_maximum(rate.clamp_min(tiny).log()).mean() / 2 for rate in (before, after))
        loss = loss - MEAN_WEIGHT * after.clamp_min(tiny).log().mean()
        return loss, {"rate": before.detach().amax(-1).mean(), "rate_afterwards": after.detach().amax(-1).mean()}


def soft_maximum(x: Tensor) -> Tensor:
    """``log mean exp(c x) / c`` over the last dimension, c being `SHARPNESS`."""
    return (torch.logsumexp(SHARPNESS * x, -1) - math.log(x.shape[-1])) / SHARPNESS


class Rounds(nn.Module):
    """The rounds of `NeuralSumRateShared`: maps data and shares [B, S, L] to logarithms of shares [B, S, L].

    >>> from beamforge.classical.links.wmmse import SharedPower
    >>> data = SharedPower(torch.zeros(2, 3, 3), torch.ones(2, 3), torch.full((2, 3), 1 / 3), torch.ones(2))
    >>> Rounds(width=8, rounds=2)(data, single_link_starts(data, 3)).shape
    torch.Size([2, 4, 3])
    """

    def __init__(self, width: int, rounds: int) -> None:
        super().__init__()
        self.see = nn.ModuleList(nn.Linear(FEATURES, width) for _ in range(rounds))
        say = [nn.Linear(width, 3) for _ in range(rounds)]
        for layer in say:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.say = nn.ModuleList(say)

    def forward(self, data: SharedPower, p: Tensor) -> Tensor:
        z, memory = logarithm(p), [torch.zeros_like(p)] * 2
        for number, (see, say) in enumerate(zip(self.see, self.say, strict=True)):
            if number == FULL_ROUNDS:
                best = data.rate(z.exp()).nan_to_num(-torch.inf).argsort(dim=-1, descending=True, stable=True)
                z, *memory = (x.take_along_dim(best[:, :KEPT, None], 1) for x in (z, *memory))
            d, features = link_features(data, z)
            x = torch.stack([*features, *memory], 1).flatten(2)
            a, b, told = affine(say, affine(see, x).relu_()).unflatten(-1, z.shape[1:]).unbind(1)
            memory = [d.clamp(-8, 8) / 2, told]
            z = moved(z, (OVER_RELAXATION * d).clamp(-30, 30) * a.clamp(-3, 2).exp() + b)
        return z


def affine(layer: nn.Module, x: Tensor) -> Tensor:
    """The linear layer applied along dimension 1 of x [B, inputs, n], without a transpose."""
    assert isinstance(layer, nn.Linear)
    weight = layer.weight.expand(x.shape[0], -1, -1)
    return torch.baddbmm(layer.bias.unsqueeze(-1), weight, x)


def link_features(data: SharedPower, z: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Change of the logarithms z of shares [B, S, L] in a WMMSE step, and ten features of each link."""
    tiny = torch.finfo(z.dtype).tiny ** 0.5
    p = z.exp()
    seen = link_response(data, p)
    nats = torch.log1p(seen.sinr)
    rate = data.weights.unsqueeze(-2) * nats
    total = rate.sum(-1, keepdim=True).clamp_min(tiny)
    behind = (total / total.amax(-2, keepdim=True)).log().clamp_min(-2)
    d = 2 * logarithm(seen.pull)
    usual = data.weights.mean(-1, keepdim=True).clamp_min(tiny)
    alone = torch.stack([(data.weights / usual).clamp_min(1e-4).log() / 2, torch.log1p(data.direct) / 3], 1)
    features = [
        z.clamp_min(-15) / 4,
        2 * p,
        torch.log1p(seen.interference) / 3,
        nats / 2,
        d.clamp(-8, 8) / 2,
        2 * rate / total,
        seen.price.clamp_min(1e-9).log() / 2,
        3 * behind.expand_as(z),
        *alone.unsqueeze(-2).expand(-1, -1, *z.shape[1:]).unbind(1),
    ]
    return d, features
