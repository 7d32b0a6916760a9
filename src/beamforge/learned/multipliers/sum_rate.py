"""Weighted sum rate by learned multipliers: this library's own method.

A graph filter over users takes the K x K Gram matrix and predicts the 2K multipliers that determine the optimal beams;
the beams follow from a formula. A few steps of reduced WMMSE, of learned lengths, may refine them. K and N are
arbitrary. Training maximises the rate itself, by gradients through all these operations.
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
from beamforge.learned.multipliers.features import FEATURES, RIDGE_FACTOR, SHIFTS, Features, observe, preference
from beamforge.learned.multipliers.learned_step import LearnedStep
from beamforge.learned.multipliers.trained_range import TrainedRange
from beamforge.optim.iterate import lengthened

LOSS_WEIGHTS = (0.5, 0.2, 0.1, 0.05, 0.05, 0.1)
"""Weights in the loss of the rates after 0 to 5 steps."""

LEARNED_STEPS = len(LOSS_WEIGHTS) - 1
"""Number of learned steps; further steps are plain ones, extrapolated by SQUAREM."""

TARGET, SOFTNESS = 1.03, 0.01
"""In the loss: the target as a multiple of the reference rate, and the gap below which the loss flattens."""

LIMIT = 8.0
"""Largest correction in nats that the filter can make to a multiplier."""


class SumRateMultipliers(Solver):
    """Weighted sum rate on a broadcast network; O(K^2 N) once, O(K^2) for the filter, and O(K^3) a step.

    In units where noise and power are one, with lambda and g from the filter::

        W = H^H (diag(lambda) H H^H + I)^-1 diag(sqrt(lambda) g), scaled to power P,   lambda = r^2 / (c sum r^2)

    r, g [B, K] and c [B] are those of heavily regularised zero forcing times exponentials of the filter's outputs.
    `steps` steps of reduced WMMSE follow. The first five are learned steps; where one of them would lower the rate, the
    plain step replaces it, so no step lowers the rate. Where the predicted beams have a lower rate than plain
    regularised zero forcing, the same number of plain steps from the latter is tried too, and the better result kept:
    no instance ends below regularised zero forcing, and more steps never give less.

    An instance outside the trained range of SNR and of users per antenna (`TrainedRange`, from the recipe in the header
    of the weights) is solved by `ReducedWMMSE`, whatever `steps` is; status and iterations are those of that method.
    ``info["handed_over"]`` [B] marks these instances.

    steps          steps of reduced WMMSE after the predicted beams.
    checkpoint     "shipped", "random" (untrained), or a file that `beamforge train` wrote; the weights have gradients
                   only if they are random, or after `requires_grad_`.
    width, rounds  size of a random graph filter; otherwise the weights determine it.
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
            self.filter = GraphFilter(FEATURES, 3, SHIFTS, width, rounds)
            self.stride = LearnedStep(width)
            if trained is not None:
                self.load_state_dict(trained.tensors)
                self.requires_grad_(False)
        except (KeyError, ValueError, RuntimeError):
            raise ConfigError(f"checkpoint must fit this version's graph filter, got {checkpoint}") from None

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        data = ReducedWMMSE().prepare(problem, observation)
        if self.trained is None:
            return self.solve_learned(data)
        if not (outside := self.trained.outside(data)).any():
            return replace(self.solve_learned(data), info={"handed_over": outside})
        there = outside.nonzero().squeeze(-1)
        found = ReducedWMMSE().solve_batch(*batching.take((problem, observation), there), None, generator)
        if not outside.all():
            here = (~outside).nonzero().squeeze(-1)
            found = merged(self.solve_learned(batching.take(data, here)), here, found, there)
        return replace(found, info={"handed_over": outside})

    def solve_learned(self, data: WhitenedChannel) -> Solution:
        """The solution by the network, for instances in the trained range."""
        seen = observe(data)
        X, rates = self.run_steps(data, seen)
        doubtful = ~(rates[0] >= seen.floor)
        if doubtful.any():
            again = doubtful.nonzero().squeeze(-1)
            part = batching.take(data, again)
            safe, after = accelerated_steps(part, zero_forcing(part), self.steps)
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
        """Multipliers, and the factor c [B] of the ridge ``sum r^2``."""
        corrections = call_like(self.filter, seen.nodes, seen.nodes, seen.shifts).clamp(-LIMIT, LIMIT)
        root, gain, ridge = corrections.unbind(-1)
        even = torch.where(data.weights > 0, preference(data).sqrt(), 0)
        return Multipliers(even * root.exp(), even * gain.exp()), RIDGE_FACTOR * ridge.mean(-1).exp()

    def learned_step(self, data: WhitenedChannel, seen: Features, there: Evaluated) -> Multipliers:
        """The state after a learned step from another."""
        power = there.power / torch.where(there.spent > 0, there.spent, 1)[:, None, None]
        return call_like(self.stride, seen.nodes, data, there.state, there.image, power, seen.shifts[:, 0])

    def run_steps(self, data: WhitenedChannel, seen: Features) -> tuple[Tensor, list[Tensor]]:
        """Coefficients X after prediction and all steps, and the rates [B] before the first and after every step."""
        there = evaluate_state(data, *self.predict(data, seen))
        rates = [there.rate]
        for _ in range(min(self.steps, LEARNED_STEPS)):
            new = evaluate_state(data, self.learned_step(data, seen, there))
            fell = ~(new.rate >= there.rate)
            if fell.any():
                again = fell.nonzero().squeeze(-1)
                plain = evaluate_state(batching.take(data, again), batching.take(there.image, again))
                new = batching.put(new, again, plain)
            there = new
            rates.append(torch.maximum(rates[-1], there.rate))
        if self.steps <= LEARNED_STEPS:
            return there.X, rates
        X, more = accelerated_steps(data, there.image, self.steps - LEARNED_STEPS - 1)
        return X, rates + [torch.maximum(rates[-1], rate) for rate in more]

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Log gap to 1.03 times the rate of annealed WMMSE in eight steps, a weighted mean over 0 to 5 steps.

        instance  broadcast channels with `p_max` in their context, and `weights` unless they are one.
        """
        known = instance.observation
        data = ReducedWMMSE().prepare(build_problem("sum-rate", known.context).bind(known.network), known)
        with torch.no_grad():
            start = annealed(data, from_ridge(data, 10))
            reference = plain_steps(data, start, 4)[1][-1].clamp_min(1e-3)
        seen = observe(data)
        state, ridge = self.predict(data, seen)
        loss, shares = torch.zeros_like(reference[0]), []
        for emphasis in LOSS_WEIGHTS:
            there = evaluate_state(data, state, ridge)
            share = there.rate / reference
            shares.append(share.detach().mean())
            loss = loss + emphasis * (SOFTNESS + SOFTNESS * softplus((TARGET - share) / SOFTNESS)).log().mean()
            state, ridge = self.learned_step(data, seen, there), torch.ones_like(ridge)
        return loss, {f"share_after_{steps}": shares[steps] for steps in (0, 1, LEARNED_STEPS)}


def merged(one: Solution, first: Tensor, other: Solution, second: Tensor) -> Solution:
    """Two solutions merged at the given places of a batch; the shorter trace is padded with its last value."""
    assert one.trace is not None and other.trace is not None
    length = max(one.trace.shape[-1], other.trace.shape[-1])
    one = replace(one, trace=lengthened(one.trace, length))
    other = replace(other, trace=lengthened(other.trace, length))
    back = torch.cat([first, second]).argsort()
    return batching.tree_map(lambda a, b: torch.cat([a, b])[back], one, other)


class Evaluated(NamedTuple):
    """A state and the quantities of its beams.

    X      coefficients of the beams.
    power  received powers [B, K, K] of these beams, before scaling to the power limit.
    spent  their transmit power [B].
    rate   weighted sum rate [B] after scaling to the power limit.
    image  the state after a plain WMMSE step.
    """

    state: Multipliers
    X: Tensor
    power: Tensor
    spent: Tensor
    rate: Tensor
    image: Multipliers


def evaluate_state(data: WhitenedChannel, state: Multipliers, ridge: Tensor | float = 1.0) -> Evaluated:
    """The beams of a state, their rate and the next state; `ridge` multiplies the ridge."""
    X = beam_coefficients(data, state, ridge)
    D = data.gram @ X
    power, spent = squared_magnitude(D), inner_product(X, D)
    image, rate = receivers_for_powers(data, power, spent)
    return Evaluated(state, X, power, spent, rate, image)


def zero_forcing(data: WhitenedChannel) -> Multipliers:
    """Multipliers after one WMMSE step from regularised zero forcing with equal powers."""
    K = data.gram.shape[-1]
    X = loaded_inverse(data.gram, K + 4 * torch.finfo(data.weights.dtype).eps * own(data.gram).real)
    X = of_norm_one(data.gram, X)
    return receivers_for_amplitudes(data, data.gram @ X, torch.full_like(data.power, K))[0]


def plain_steps(data: WhitenedChannel, state: Multipliers, steps: int) -> tuple[Tensor, list[Tensor]]:
    """Coefficients X after `steps` steps of reduced WMMSE, and the rates [B] before the first and after every one."""
    rates: list[Tensor] = []
    for _ in range(steps + 1):
        there = evaluate_state(data, state)
        state = there.image
        rates.append(there.rate)
    return there.X, rates


def accelerated_steps(data: WhitenedChannel, state: Multipliers, steps: int) -> tuple[Tensor, list[Tensor]]:
    """`plain_steps`, extrapolated by SQUAREM from three steps on."""
    if steps < 3:
        return plain_steps(data, state, steps)
    wmmse = ReducedWMMSE(tolerance=0.0, max_iterations=steps, acceleration="squarem", gradient="unrolled")
    outcome = wmmse.run(data, state)
    X, last = plain_steps(data, outcome.state, 0)
    return X, [*lengthened(outcome.trace, steps).unbind(-1), *last]


def call_like(module: nn.Module, like: Tensor, *arguments: Any) -> Any:
    """Call a module in the precision and on the device of the real tensor `like`."""
    own = next(module.parameters(), like)
    if (own.dtype, own.device) == (like.dtype, like.device):
        return module(*arguments)
    weights = {name: value.to(like) for name, value in module.state_dict(keep_vars=True).items()}
    return functional_call(module, weights, arguments)
