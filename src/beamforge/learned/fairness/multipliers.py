"""Sum rate and fairness by learned multipliers: this library's own method.

On the frontier between sum rate and Jain's index every beam has the form ``(sum_l mu_l h_l h_l^H + nu_u I)^-1 h_u``:
mu is the price of interference, nu that of power. A graph filter over users predicts these 2K numbers from the K x K
Gram matrix and the price of fairness, so one small network serves the whole frontier and any number of users and
antennas. Training maximises rate and fairness themselves, by gradients through the formula, without labels.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import functional_call

from beamforge.classical.fairness.trade_off import FairnessSolver, equal_weights, fairness_capabilities
from beamforge.classical.power_limits import equal_power
from beamforge.classical.structure import coefficients, unit
from beamforge.core import batching
from beamforge.core.constraints import EqualPower, MeanJainAtLeast, jain_index
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.network import Network, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.io.weights import trained_weights
from beamforge.learned.fairness.features import (
    FEATURES,
    MAX_PRICE,
    SHIFTS,
    Channels,
    PricedFeatures,
    features_at,
    objective,
    observe,
    prepare_channels,
    rates,
    rates_of,
    scaled_channel,
)
from beamforge.learned.graph_filter import GraphFilter

LIMIT = 8.0
"""Largest correction in nats that the filter can make to a multiplier."""

SUBSETS, GRID, EVALUATIONS = (16, 256), 12, 5
"""For the price of a large batch: numbers of instances for rough estimates, prices tried, evaluations of all."""

MARGIN = 1.5e-3
"""By how much the mean of Jain's index may then exceed the target."""

CHUNK = 512
"""Instances that pass through the filter at once."""


class FairMultipliers(FairnessSolver):
    """Sum rate ``S`` under fairness on a broadcast network, every beam of power P/K; O(K^2 N + K^3).

    In units where the noise and P/K are one, with mu and nu from the filter::

        w_u ∝ (sum_l mu_l h_l h_l^H + nu_u I)^-1 h_u,     mu_l ∝ |h_l|^(-2 alpha) e^(x_l),     nu_u = e^(y_u)

    Outputs x, y [B, K] of zero give weighted SLNR, with alpha proportional to the price lambda of fairness. lambda is
    an input of the filter, which is trained to maximise ``S + lambda J``, with J Jain's index of the rates. Where the
    weighted SLNR has the larger value of this objective, it is used instead, so the result is never worse.

    price          lambda, bit/s/Hz; left out, the least that meets the fairness that the problem asks for.
    checkpoint     "shipped", "random" (untrained), or a file that `beamforge train` wrote; the weights have gradients
                   only if they are random, or after `requires_grad_`.
    width, rounds  size of a random graph filter; otherwise the weights determine it.
    """

    capabilities = fairness_capabilities(EqualPower)
    scope = "fairness of rates of equal weight"
    parameter = "price"
    grid = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0)
    accuracy = 1e-9

    def __init__(
        self, price: float | None = None, checkpoint: str = "shipped", width: int = 40, rounds: int = 3
    ) -> None:
        super().__init__()
        if price is not None and not 0 <= price < math.inf:
            raise ConfigError(f"price must be finite and not negative, got {price:g}")
        if min(width, rounds) < 1:
            raise ConfigError(f"width and rounds must be at least 1, got {width} and {rounds}")
        self.price = price
        name = "fair-multipliers"
        trained = trained_weights(name, checkpoint)
        try:
            if trained is not None:
                width, rounds = (int(trained.settings[name]) for name in ("width", "rounds"))
            self.filter = GraphFilter(FEATURES, 2, SHIFTS, width, rounds)
            if trained is not None:
                self.load_state_dict(trained.tensors)
                self.requires_grad_(False)
        except (KeyError, ValueError, RuntimeError):
            raise ConfigError(f"checkpoint must fit this version's graph filter, got {checkpoint}") from None

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        return super().supports(problem, network) and equal_weights(problem, network)

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        mean = problem.find(MeanJainAtLeast)
        if self.price is None and mean is not None:
            if (quick := self.solve_large_batch(mean.limit, problem, observation)) is not None:
                return quick
        return super().solve_batch(problem, observation, start, generator)

    def solve_at(self, problem: Problem, observation: Observation, parameter: Tensor, start: Tensor | None) -> Solution:
        channels = prepare_channels(problem, observation)
        return solution_of(problem, observation, channels, self.best(channels, parameter)[0])

    def jain(self, problem: Problem, observation: Observation, parameter: Tensor, start: Tensor | None) -> Tensor:
        return jain_index(self.best(prepare_channels(problem, observation), parameter)[1])

    def solve_large_batch(self, limit: Tensor, problem: Problem, observation: Observation) -> Solution | None:
        """A large batch at nearly the least price for its mean; None if the batch is small or the search fails.

        A few instances give a rough price; more of them, and then all, refine it by the secant method. The last
        evaluation of all instances is the solution; derivatives treat its price as a constant.
        """
        few, more = (-(-len(limit) // size) for size in SUBSETS)
        channels, aim = prepare_channels(problem, observation), limit[:1] + MARGIN / 2
        if more < 2 or (limit != limit[0]).any() or not (channels.features.rate > 0).all():
            return None

        def seen(price: Tensor, every: int) -> tuple[Tensor, Tensor]:
            """Beams of every `every`-th instance, and the excess of their mean fairness [1] over the aim."""
            some = batching.take(channels, slice(None, None, every))
            X, rate = self.best(some, price.expand(len(some.gram)))
            return X, jain_index(rate).detach().double().mean().to(price) - aim

        with torch.no_grad():
            some = batching.take(channels, slice(None, None, few))
            grid = MAX_PRICE * channels.features.rate.mean() * torch.linspace(0, 1, GRID).to(limit).square()
            every_rung = batching.tree_map(lambda leaf: leaf.repeat(GRID, *[1] * (leaf.ndim - 1)), some)
            rate = self.best(every_rung, grid.repeat_interleave(len(some.gram)))[1]
        curve = jain_index(rate).reshape(GRID, -1).mean(-1)
        above = int((curve < aim).sum())
        if not 0 < above < GRID:
            return None
        slope = (curve[above] - curve[above - 1]) / (grid[above] - grid[above - 1])
        price = grid[above - 1] + (aim - curve[above - 1]) / slope
        last = None
        for every in (more, more, *EVALUATIONS * [1]):
            X, gap = seen(price, every)
            if every == 1 and gap.abs() <= MARGIN / 2:
                solution = solution_of(problem, observation, channels, X)
                return replace(solution, info={self.parameter: price.expand_as(limit)})
            if last is not None and last[0] == every:
                secant = (gap - last[2]) / (price - last[1])
                slope = torch.where(secant > 0, secant.clamp(slope / 3, 3 * slope), slope)
            last = every, price, gap
            price = (price - gap / slope).clamp_min(0)
        return None

    def best(self, channels: Channels, price: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients [B, K, K] and rates [B, K] of the predicted beams, or of weighted SLNR where that is better.

        With more users than antennas the Gram matrix is singular, and with little noise its rates are dominated by
        rounding; there the rates are computed from the beams themselves.
        """
        found = []
        for first in range(0, len(price), CHUNK):
            (H, gram, features), part = batching.take((channels, price), slice(first, first + CHUNK))
            view = features_at(gram, features, part)
            X = coefficients(gram, *self.predict(view))
            if H.shape[-2] > H.shape[-1]:
                rate, floor = (rates_of(squared_magnitude(H @ unit(H.mH @ each))) for each in (X, view.X))
            else:
                rate, floor = rates(gram, X), view.rate
            better = (objective(rate, part) >= objective(floor, part)).unsqueeze(-1)
            found.append((torch.where(better.unsqueeze(-1), X, view.X), torch.where(better, rate, floor)))
        X, rate = (torch.cat(parts) for parts in zip(*found, strict=True))
        return X, rate

    def predict(self, view: PricedFeatures) -> tuple[Tensor, Tensor]:
        """The corrected prices mu and ridges nu [B, K]."""
        weights = {name: value.to(view.nodes) for name, value in self.filter.state_dict(keep_vars=True).items()}
        corrections = functional_call(self.filter, weights, (view.nodes, view.shifts)).clamp(-LIMIT, LIMIT)
        return view.mu * corrections[..., 0].exp(), corrections[..., 1].exp()

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus ``(S - lambda (1 - J)) / S_0``: S_0 [B] is the uplink's rate, and lambda / S_0 is drawn from 0 to 7.

        Training scores the predicted beams; validation scores the better of these and weighted SLNR, as in use.
        """
        H = scaled_channel(instance.observation.network, instance.context["p_max"])
        with torch.no_grad():
            gram = H @ H.mH
            features = observe(gram)
            draw = torch.rand(len(gram), generator=generator, dtype=gram.real.dtype, device=gram.device)
            price = MAX_PRICE * draw**1.5 * features.rate
            view = features_at(gram, features, price)
            floor = objective(view.rate, price)
        rate = rates(gram, coefficients(gram, *self.predict(view)))
        value = objective(rate, price)
        value = value if self.training else value.maximum(floor)
        shown = {"rate": rate.sum(-1), "jain": jain_index(rate), "to_slnr": value / floor}
        return -((value - price) / features.rate).mean(), {name: each.detach().mean() for name, each in shown.items()}


def solution_of(problem: Problem, observation: Observation, channels: Channels, X: Tensor) -> Solution:
    """Solution with the beams ``H^H X``, each scaled to its power."""
    return Solution.closed_form(equal_power(problem, observation.network, unit(channels.H.mH @ X)))
