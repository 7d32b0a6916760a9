"""Sum rate under sensing SNR targets by learned multipliers: this library's own method.

The optimal beams are determined by two numbers of each user and one multiplier of each target. A graph filter over
users and targets predicts these from the Gram matrix of their channels, and a few exact steps of `isac-wmmse` with a
decreasing barrier follow, so every solution keeps the sensing SNRs and the power limit. Training maximises the sum rate
itself, with derivatives of the multipliers by the implicit function theorem.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from beamforge.classical.isac.dual import attainable, decreased, multipliers, separate_powers
from beamforge.classical.isac.wmmse import SensingChannel, SensingWMMSE, State, beams_of
from beamforge.classical.sum_rate.reduced_wmmse import doubled
from beamforge.core import batching
from beamforge.core.capability import Capability, Feature, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.network import squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.sensing import SensingSnrAtLeast
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.core.utilities import SumRate
from beamforge.io.weights import trained_weights
from beamforge.learned.graph_filter import GraphFilter
from beamforge.learned.isac.derivatives import attached
from beamforge.learned.isac.features import FEATURES, SHIFTS, Features, observe, without_targets

BARRIER = 1e-4
"""Weight of the barrier in the exact steps, relative to the sum of the weights of all rates."""

DECREASE = (1e-2,)
"""Factors of this weight, one after the other, for the multipliers of the beams."""

LIMIT = 8.0
"""Largest correction in nats that the filter can make to a multiplier."""

PRICE_WEIGHT = 0.05
"""Weight in the loss of the error of predicted prices."""

TRAINED_SHARE = 0.9
"""In training, the largest share of the power that separate beams to all targets need; levels are lowered to that."""


class SensingMultipliers(Solver):
    """Weighted sum rate of K users, the sensing SNR of M targets at least `level_m`; O(K^3 + N^3) a step.

    In units where the noise is one, with q and g of the users and x of the targets::

        w_k = g_k (sum_j q_j h_j h_j^H + x_0 I - sum_m x_m c_m c_m^H)^-1 sqrt(q_k) h_k

    q and g are those of `multipliers` without targets times exponentials of the filter's outputs, and
    ``x_m level_m = p_m sum q`` with ``p_m = r_m e^(z_m) / (1 - sum r)``, where r_m is the share of the power that
    target m needs alone and z_m an output of the filter. At the optimum ``x_0 P = sum q (1 + sum p)``.

    With these initial values Newton's method finds the x that is optimal for the predicted q and g: an exact step of
    `isac-wmmse`, after which all limits hold. The same is done without corrections of q and g, and the larger rate of
    the two continues with `steps` further exact steps. In the last of these problems the barrier then decreases. An
    instance whose beams miss a limit in spite of that is solved by `isac-wmmse`, and ``info["handed_over"]`` [B] marks
    it. Instances whose sensing SNRs alone need more than the power limit are infeasible.

    steps          exact steps after the first, each with the receivers of the beams before.
    checkpoint     "shipped", "random" (untrained), or a file that `beamforge train` wrote; the weights have gradients
                   only if they are random, or after `requires_grad_`.
    width, rounds  size of a random graph filter; otherwise the weights determine it.

    Raises `ConfigError` for a setting out of range, or a checkpoint of other sizes.

    Source: the problem is the masked-transformer paper's Eq. 29. The method is new here.

    >>> from beamforge.scenarios import Isac
    >>> instance = Isac(users=3, antennas=6, targets=2, sensing_snr_db=0.0).sample(2, dtype=torch.complex128)
    >>> solution = SensingMultipliers().solve(build_problem("isac", instance.context), instance)
    >>> solution.W.shape, solution.W.abs().square().sum((-2, -1)).round(decimals=3)
    (torch.Size([2, 6, 9]), tensor([1., 1.], dtype=torch.float64))
    """

    capabilities = (
        Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower, SensingSnrAtLeast), handles=(Feature.SENSING,)),
    )
    differentiable = False

    def __init__(self, steps: int = 2, checkpoint: str = "shipped", width: int = 32, rounds: int = 3) -> None:
        super().__init__()
        if steps < 0:
            raise ConfigError(f"steps must not be negative, got {steps}")
        if min(width, rounds) < 1:
            raise ConfigError(f"width and rounds must be at least 1, got {width} and {rounds}")
        self.steps = steps
        trained = trained_weights("isac-multipliers", checkpoint)
        try:
            if trained is not None:
                width, rounds = (int(trained.settings[name]) for name in ("width", "rounds"))
            self.filter = GraphFilter(FEATURES, 3, SHIFTS, width, rounds)
            if trained is not None:
                self.load_state_dict(trained.tensors)
                self.requires_grad_(False)
        except (KeyError, ValueError, RuntimeError):
            raise ConfigError(f"checkpoint must fit this version's graph filter, got {checkpoint}") from None

    @torch.no_grad()
    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        wide = batching.tree_map(doubled, (problem, observation))
        data = WMMSE.prepare(*wide)
        feasible = attainable(data.C, data.level, data.power)
        count = observation.network.streams.count - observation.network.users
        W = data.H.new_zeros(len(data.power), observation.network.antennas, data.H.shape[-2] + count)
        handed_over = torch.zeros_like(feasible)
        if feasible.any():
            places = feasible.nonzero().squeeze(-1)
            part = batching.take(data, places)
            found = part.basis @ self.run(part, count)
            W = W.index_copy(0, places, found)
            handed_over = handed_over.index_copy(0, places, ~keeps_limits(part, found))
        status = torch.where(feasible, int(Status.CONVERGED), int(Status.INFEASIBLE))
        iterations = torch.full_like(status, self.steps + 1)
        solution = Solution(W.to(observation.network.H.dtype), status, iterations)
        if handed_over.any():
            places = handed_over.nonzero().squeeze(-1)
            other = WMMSE.solve_batch(*batching.take((problem, observation), places), None, generator)
            solution = batching.put(solution, places, replace(other, trace=None))
        return replace(solution, info={"handed_over": handed_over})

    def run(self, data: SensingChannel, count: int) -> Tensor:
        """Beams [B, r, K + count] of feasible instances, in the basis of `data`."""
        data = with_barrier(data)
        seen = observe(data)
        corrections = self.corrections(seen)
        predicted = initial_state(data, seen, corrections)
        less = seen._replace(start=without_targets(data, seen.left * data.power)[0])
        plain = initial_state(data, less, corrections * corrections.new_tensor([0.0, 0.0, 1.0]))
        twice = batching.tree_map(lambda leaf: torch.cat([leaf, leaf]), data)
        after, rate = WMMSE.step(twice, batching.tree_map(lambda *pair: torch.cat(pair), predicted, plain))
        first, second = slice(len(data.power)), slice(len(data.power), None)
        better = rate[first] >= rate[second]
        before = batching.where(better, predicted, plain)
        after = batching.where(better, batching.take(after, first), batching.take(after, second))
        if self.steps > 1:
            accelerated = SensingWMMSE(tolerance=0.0, max_iterations=self.steps - 1)
            after = accelerated.run(data, after).state
        if self.steps > 0:
            before, after = after, WMMSE.step(data, after)[0]
        quadratic = WMMSE.quadratic(data, before)
        x = decreased(quadratic, after.x, DECREASE)
        return beams_of(quadratic._replace(barrier=math.prod(DECREASE) * data.barrier), x, count)

    def corrections(self, seen: Features) -> Tensor:
        """Outputs [B, K + M, 3] of the filter: alpha and beta of a user, z of a target."""
        kind = self.filter.enter.weight.dtype
        found: Tensor = self.filter(seen.nodes.to(kind), seen.shifts.to(kind))
        return found.clamp(-LIMIT, LIMIT).to(seen.nodes.dtype)

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the mean of the rate after the first exact step, over the rate of the initial values without targets.

        A small share of the loss is the error of the predicted prices; those that Newton's method finds are constants
        there. Where the separate beams to all targets need more than `TRAINED_SHARE` of the power, their levels are
        lowered in proportion.

        instance  of the problem `isac`.
        """
        known = batching.tree_map(doubled, instance.observation)
        problem = batching.tree_map(doubled, build_problem("isac", known.context).bind(known.network).merged())
        data = with_barrier(WMMSE.prepare(problem, known))
        needed = separate_powers(data.C, data.level).sum(-1) / data.power
        data = data._replace(level=data.level * (TRAINED_SHARE / needed).clamp_max(1).unsqueeze(-1))
        seen = observe(data)
        state = initial_state(data, seen, self.corrections(seen))
        quadratic = WMMSE.quadratic(data, state)
        with torch.no_grad():
            x = multipliers(batching.tree_map(torch.Tensor.detach, quadratic), state.x.detach())
        share = WMMSE.respond(data, quadratic, attached(quadratic, x))[1] / seen.rate
        error = (state.x[:, 1:] / x[:, 1:]).log().abs().mean()
        loss = PRICE_WEIGHT * error - share.mean()
        return loss, {"share": share.detach().mean(), "price_error": error.detach()}


WMMSE = SensingWMMSE()
"""Its exact steps, and the method for instances that are handed over."""


def with_barrier(data: SensingChannel) -> SensingChannel:
    """Data with the barrier of the exact steps."""
    total = data.weights.sum(-1)
    return data._replace(barrier=BARRIER * torch.where(total > 0, total, 1))


def initial_state(data: SensingChannel, seen: Features, corrections: Tensor) -> State:
    """The initial state without targets and guessed prices, times exponentials of corrections [B, K + M, 3]."""
    K, r = data.H.shape[-2:]
    root, gain = (seen.start.root * corrections[:, :K, 0].exp(), seen.start.gain * corrections[:, :K, 1].exp())
    prices = seen.prices * corrections[:, K:, 2].exp()
    total = root.square().sum(-1, keepdim=True)
    total = torch.where(total > 0, total, data.barrier.unsqueeze(-1))
    barrier = data.barrier.unsqueeze(-1) * (r + data.C.shape[-1] + 1)
    power = (total * (1 + prices.sum(-1, keepdim=True)) + barrier) / data.power.unsqueeze(-1)
    return State(root, gain, torch.cat([power, total * prices / data.level], -1))


def keeps_limits(data: SensingChannel, W: Tensor) -> Tensor:
    """Whether beams W [B, N, D] keep the power limit and all sensing SNRs; level and C of `data` have a margin."""
    snr = squared_magnitude(W.mH @ (data.basis @ data.C)).sum(-2)
    power = squared_magnitude(W).sum((-2, -1))
    return (power <= data.power * (1 + TOLERANCE)) & (snr >= data.level * (1 - TOLERANCE)).all(-1)


TOLERANCE = 1e-8
"""Relative error of a limit that is put down to rounding."""
