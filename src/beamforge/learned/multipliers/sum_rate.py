"""Learn the multipliers, let algebra make the beams: this library's own method for the weighted sum rate.

A graph filter over users looks at the K x K Gram matrix and predicts the 2K numbers in which the optimal beams are
written; the structure makes beams of them, and a few steps of reduced WMMSE, whose lengths are learned too, may polish
these. N never enters, K is any number, and training differentiates through all of it, on the rate itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from beamforge.classical.structure import loaded_inverse, of_norm_one
from beamforge.classical.sum_rate.reduced_wmmse import (
    Multipliers,
    ReducedWMMSE,
    WhitenedChannel,
    annealed,
    beam_coefficients,
    from_ridge,
    inner_product,
    receivers_for_amplitudes,
    receivers_for_powers,
)
from beamforge.core import batching
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.network import own, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.core.utilities import SumRate
from beamforge.io.weights import trained_weights
from beamforge.learned.graph_filter import GraphFilter
from beamforge.learned.multipliers import features as sight
from beamforge.learned.multipliers.features import HEAVY, Features, observe, preference
from beamforge.learned.multipliers.learned_step import LearnedStep
from beamforge.learned.multipliers.trained_range import TrainedRange
from beamforge.optim.iterate import lengthened

EMPHASIS = (0.5, 0.2, 0.1, 0.05, 0.05, 0.1)
"""Of the rates after 0 to 5 steps in the loss."""

STRIDES = len(EMPHASIS) - 1
"""Steps that are learned strides; what follows are plain ones, extrapolated by SQUAREM."""

AHEAD, SOFT = 1.03, 0.01
"""In the loss: the share of the reference rate from which gaps are counted, and the gap that is as good as none."""

LIMIT = 8.0
"""Largest correction in nats that the filter can make to a multiplier."""


class SumRateMultipliers(Solver):
    """Weighted sum rate on a broadcast network; O(K^2 N) once, a filter of O(K^2), and O(K^3) a step.

    In units where noise and power are one, with lambda and g from the filter::

        W = H^H (diag(lambda) H H^H + I)^-1 diag(sqrt(lambda) g), scaled to power P,   lambda = r^2 / (c sum r^2)

    r, g [B, K] and c [B] are those of heavily regularised zero forcing times exponentials of the filter's outputs. Then
    `steps` steps of reduced WMMSE, the first five of them learned strides along it, and none of which lowers the rate:
    an instance on which a stride would, takes the plain step. An instance on which the predicted beams are below plain
    regularised zero forcing is given the same number of plain steps from there too, and keeps the better end: so none
    is ever worse than that, nor worse for more steps.

    An instance beyond what the weights were trained for, in SNR or in users an antenna (`TrainedRange`, from the recipe
    in their header), is handed over to `ReducedWMMSE`, with its status, iterations and whatever `steps` says;
    ``info["handed_over"]`` [B] tells which are.

    steps          polishing steps after the predicted beams.
    checkpoint     "shipped", "random" (untrained), or a file that `beamforge train` wrote; only random ones have
                   gradients, unless asked for by `requires_grad_`.
    width, rounds  of the graph filter, where its weights are random; else they come with the weights.
    """

    capabilities = (Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower,)),)

    def __init__(self, steps: int = 3, checkpoint: str = "shipped", width: int = 24, rounds: int = 2) -> None:
        super().__init__()
        if steps < 0:
            raise ConfigError(f"steps must not be negative, got {steps}")
        if min(width, rounds) < 1:
            raise ConfigError(f"width and rounds must be at least 1, got {width} and {rounds}")
        self.steps = steps
        trained = trained_weights("multipliers", checkpoint)
        self.trained = None if trained is None else TrainedRange.of(trained.header)
        try:
            if trained is not None:
                width, rounds = (int(trained.settings[name]) for name in ("width", "rounds"))
            self.filter = GraphFilter(sight.FEATURES, 3, sight.SHIFTS, width, rounds)
            self.stride = LearnedStep(width)
            if trained is not None:
                self.load_state_dict(trained.tensors)
                self.requires_grad_(False)
        except (KeyError, ValueError, RuntimeError):
            raise ConfigError(f"checkpoint must fit this version's graph filter, got others in {checkpoint}") from None

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        data = ReducedWMMSE().prepare(problem, observation)
        if self.trained is None:
            return self.learned(data)
        if not (beyond := self.trained.beyond(data)).any():
            return replace(self.learned(data), info={"handed_over": beyond})
        there = beyond.nonzero().squeeze(-1)
        found = ReducedWMMSE().solve_batch(*batching.take((problem, observation), there), None, generator)
        if not beyond.all():
            here = (~beyond).nonzero().squeeze(-1)
            found = joined(self.learned(batching.take(data, here)), here, found, there)
        return replace(found, info={"handed_over": beyond})

    def learned(self, data: WhitenedChannel) -> Solution:
        """The answer where the weights were trained."""
        seen = observe(data)
        X, rates = self.walk(data, seen)
        doubtful = ~(rates[0] >= seen.floor)
        if doubtful.any():
            again = doubtful.nonzero().squeeze(-1)
            part = batching.take(data, again)
            safe, after = finish(part, zero_forcing(part), self.steps)
            lost = ~(rates[-1][again] >= after[-1])
            again = again[lost]
            X = X.index_copy(0, again, safe[lost])
            rates = [rate.index_copy(0, again, other[lost]) for rate, other in zip(rates, after, strict=True)]
        W = data.H.mH @ X
        spent = torch.view_as_real(W).square().sum((-3, -2, -1))
        W = W * (data.power / torch.where(spent > 0, spent, 1)).sqrt()[:, None, None]
        status = torch.full_like(doubtful, int(Status.CONVERGED), dtype=torch.long)
        return Solution(W, status, torch.full_like(status, self.steps), torch.stack(rates, -1))

    def predict(self, data: WhitenedChannel, seen: Features) -> tuple[Multipliers, Tensor]:
        """Multipliers, and the share c [B] by which the ridge ``sum r^2`` is raised."""
        corrections = call(self.filter, seen.nodes, seen.nodes, seen.shifts).clamp(-LIMIT, LIMIT)
        root, gain, ridge = corrections.unbind(-1)
        even = torch.where(data.weights > 0, preference(data).sqrt(), 0)
        return Multipliers(even * root.exp(), even * gain.exp()), HEAVY * ridge.mean(-1).exp()

    def follow(self, data: WhitenedChannel, seen: Features, there: Reached) -> Multipliers:
        """The state a learned stride away from another."""
        power = there.power / torch.where(there.spent > 0, there.spent, 1)[:, None, None]
        return call(self.stride, seen.nodes, data, there.state, there.image, power, seen.shifts[:, 0])

    def walk(self, data: WhitenedChannel, seen: Features) -> tuple[Tensor, list[Tensor]]:
        """Coefficients X after the predicted beams and all steps, and the rates [B] before, between and after them."""
        there = reach(data, *self.predict(data, seen))
        rates = [there.rate]
        for _ in range(min(self.steps, STRIDES)):
            new = reach(data, self.follow(data, seen, there))
            fell = ~(new.rate >= there.rate)
            if fell.any():
                again = fell.nonzero().squeeze(-1)
                plain = reach(batching.take(data, again), batching.take(there.image, again))
                new = batching.put(new, again, plain)
            there = new
            rates.append(torch.maximum(rates[-1], there.rate))
        if self.steps <= STRIDES:
            return there.X, rates
        X, more = finish(data, there.image, self.steps - STRIDES - 1)
        return X, rates + [torch.maximum(rates[-1], rate) for rate in more]

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean logarithm of the gap, after 0 to 5 steps, to a little more than annealed WMMSE reaches in eight.

        instance  broadcast channels with `p_max` and, where they are not one, `weights` in their context.
        """
        known = instance.observation
        data = ReducedWMMSE().prepare(build_problem("sum-rate", known.context).bind(known.network), known)
        with torch.no_grad():
            start = annealed(data, from_ridge(data, 10))
            reference = polish(data, start, 4)[1][-1].clamp_min(1e-3)
        seen = observe(data)
        state, ridge = self.predict(data, seen)
        loss, shares = torch.zeros_like(reference[0]), []
        for emphasis in EMPHASIS:
            there = reach(data, state, ridge)
            share = there.rate / reference
            shares.append(share.detach().mean())
            loss = loss + emphasis * (SOFT + SOFT * softplus((AHEAD - share) / SOFT)).log().mean()
            state, ridge = self.follow(data, seen, there), torch.ones_like(ridge)
        return loss, {f"share_after_{steps}": shares[steps] for steps in (0, 1, STRIDES)}


def joined(one: Solution, first: Tensor, other: Solution, second: Tensor) -> Solution:
    """Two solutions as one, at the given places of a batch; the shorter trace goes on with its last value."""
    assert one.trace is not None and other.trace is not None
    length = max(one.trace.shape[-1], other.trace.shape[-1])
    one = replace(one, trace=lengthened(one.trace, length))
    other = replace(other, trace=lengthened(other.trace, length))
    back = torch.cat([first, second]).argsort()
    return batching.tree_map(lambda a, b: torch.cat([a, b])[back], one, other)


class Reached(NamedTuple):
    """A state, the X of its beams, the powers [B, K, K] they deliver when they spend so much, and what follows: their
    rate [B] within the power limit, and the state a plain step on."""

    state: Multipliers
    X: Tensor
    power: Tensor
    spent: Tensor
    rate: Tensor
    image: Multipliers


def reach(data: WhitenedChannel, state: Multipliers, ridge: Tensor | float = 1.0) -> Reached:
    """All that follows from a state, its ridge raised by a factor."""
    X = beam_coefficients(data, state, ridge)
    D = data.gram @ X
    power, spent = squared_magnitude(D), inner_product(X, D)
    image, rate = receivers_for_powers(data, power, spent)
    return Reached(state, X, power, spent, rate, image)


def zero_forcing(data: WhitenedChannel) -> Multipliers:
    """Multipliers that the beams of regularised zero forcing with equal powers ask for."""
    K = data.gram.shape[-1]
    X = loaded_inverse(data.gram, K + 4 * torch.finfo(data.weights.dtype).eps * own(data.gram).real)
    X = of_norm_one(data.gram, X)
    return receivers_for_amplitudes(data, data.gram @ X, torch.full_like(data.power, K))[0]


def polish(data: WhitenedChannel, state: Multipliers, steps: int) -> tuple[Tensor, list[Tensor]]:
    """Coefficients X after `steps` plain steps of reduced WMMSE, and the rates [B] before, between and after them."""
    rates: list[Tensor] = []
    for _ in range(steps + 1):
        there = reach(data, state)
        state = there.image
        rates.append(there.rate)
    return there.X, rates


def finish(data: WhitenedChannel, state: Multipliers, steps: int) -> tuple[Tensor, list[Tensor]]:
    """`polish`, extrapolated by SQUAREM where that is safe."""
    if steps < 3:
        return polish(data, state, steps)
    wmmse = ReducedWMMSE(tolerance=0.0, max_iterations=steps, acceleration="squarem", gradient="unrolled")
    outcome = wmmse.run(data, state)
    X, last = polish(data, outcome.state, 0)
    return X, [*lengthened(outcome.trace, steps).unbind(-1), *last]


def call(module: nn.Module, like: Tensor, *arguments: Any) -> Any:
    """A module in the precision and on the device of some real tensor, whatever its own."""
    own = next(module.parameters())
    if (own.dtype, own.device) == (like.dtype, like.device):
        return module(*arguments)
    weights = {name: value.to(like) for name, value in module.state_dict(keep_vars=True).items()}
    return functional_call(module, weights, arguments)
