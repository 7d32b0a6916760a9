"""Learn the multipliers, let algebra make the beams: this library's own method for the weighted sum rate.

A graph filter over users looks at the K x K Gram matrix and predicts the 2K numbers in which the optimal beams are
written; the structure makes beams of them, and a few steps of reduced WMMSE may polish these. N never enters, K is any
number, and training differentiates through all of it, on the rate itself, without labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from beamforge import batching
from beamforge.classical.wmmse import (
    Cell,
    Multipliers,
    ReducedWMMSE,
    annealed,
    coefficients,
    from_ridge,
    inner,
    receive,
    receivers,
)
from beamforge.constraints import TotalPower
from beamforge.errors import ConfigError
from beamforge.goals import build_problem
from beamforge.instance import Instance
from beamforge.iterate import lengthened
from beamforge.learned.graph_filter import GraphFilter
from beamforge.network import own, squared_magnitude
from beamforge.problem import Problem
from beamforge.solver import Form, Serves, Solution, Solver, Status
from beamforge.training.weights import load
from beamforge.utilities import SumRate

FEATURES = 9
SHIFTS = 4
EMPHASIS = (0.05, 0.25, 0.2, 0.2, 0.3)
"""Of the rates after 0, 1, 2, 3 and 4 steps in the loss."""

RIDGE = 10.0
"""Times the usual ridge ``K s2/P`` of the zero forcing whose multipliers are corrected."""

LIMIT = 8.0
"""Largest correction in nats that the filter can make to a multiplier."""


class SumRateMultipliers(Solver):
    """Weighted sum rate on a broadcast network; O(K^2 N) once, a filter of O(K^2), and O(K^3) a step.

    In units where noise and power are one, with lambda and g from the filter::

        W = H^H (diag(lambda) H H^H + I)^-1 diag(sqrt(lambda) g), scaled to power P,   lambda = r^2 / (c sum r^2)

    r, g [B, K] and c [B] are those of heavily regularised zero forcing times exponentials of the filter's outputs. Then
    `steps` steps of reduced WMMSE, none of which lowers the rate. An instance on which the predicted beams
    are below plain regularised zero forcing is given the same steps from there too, and keeps the better end: so none
    is ever worse than that, nor worse for more steps.

    steps          polishing steps after the predicted beams.
    weights        "shipped", "random" (untrained), or a file that `beamforge train` wrote; only random ones have
                   gradients, unless asked for by `requires_grad_`.
    width, rounds  of the graph filter, where its weights are random; else they come with the weights.
    """

    serves = (Serves(SumRate, (Form.BROADCAST,), needs=(TotalPower,)),)

    def __init__(self, steps: int = 3, weights: str = "shipped", width: int = 32, rounds: int = 3) -> None:
        super().__init__()
        if steps < 0:
            raise ConfigError(f"steps must not be negative, got {steps}")
        if min(width, rounds) < 1:
            raise ConfigError(f"width and rounds must be at least 1, got {width} and {rounds}")
        self.steps = steps
        trained = None if weights == "random" else load("multipliers", None if weights == "shipped" else Path(weights))
        try:
            if trained is not None:
                width, rounds = (int(trained.settings[name]) for name in ("width", "rounds"))
            self.filter = GraphFilter(FEATURES, 3, SHIFTS, width, rounds)
            if trained is not None:
                self.load_state_dict(trained.tensors)
                self.requires_grad_(False)
        except (KeyError, ValueError, RuntimeError):
            raise ConfigError(f"weights must fit this version's graph filter, got others in {weights}") from None

    def solve_batch(
        self, problem: Problem, instance: Instance, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        data = ReducedWMMSE().prepare(problem, instance)
        X, rates = finish(data, *self.predict(observe(data)), self.steps)
        forced, floor = zero_forcing(data)
        doubtful = ~(rates[0] >= floor)
        if doubtful.any():
            again = doubtful.nonzero().squeeze(-1)
            one = batching.take(data, again)
            safe, after = finish(one, batching.take(forced, again), torch.ones_like(floor[again]), self.steps)
            lost = ~(rates[-1][again] >= after[-1])
            again = again[lost]
            X = X.index_copy(0, again, safe[lost])
            rates = [rate.index_copy(0, again, other[lost]) for rate, other in zip(rates, after, strict=True)]
        W = data.H.mH @ X
        spent = squared_magnitude(W).sum((-2, -1))
        W = W * (data.power / torch.where(spent > 0, spent, 1)).sqrt()[:, None, None]
        status = torch.full_like(doubtful, int(Status.CONVERGED), dtype=torch.long)
        return Solution(W, status, torch.full_like(status, self.steps), torch.stack(rates, -1))

    def predict(self, sight: Sight) -> tuple[Multipliers, Tensor]:
        """The corrected multipliers, and the share c [B] by which the ridge ``sum r^2`` is raised."""
        weights = {name: value.to(sight.nodes) for name, value in self.filter.state_dict(keep_vars=True).items()}
        corrections = functional_call(self.filter, weights, (sight.nodes, sight.shifts)).clamp(-LIMIT, LIMIT)
        root, gain, ridge = corrections.unbind(-1)
        return Multipliers(sight.start.root * root.exp(), sight.start.gain * gain.exp()), ridge.mean(-1).exp()

    def loss(self, instance: Instance, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the weighted rates after 0 to 4 steps, each as a share of what annealed WMMSE reaches in eight.

        instance  broadcast channels with `p_max` and, where they are not one, `weights` in their context.
        """
        data = ReducedWMMSE().prepare(build_problem("sum-rate", instance.context).bind(instance.seen), instance)
        with torch.no_grad():
            start = annealed(data, from_ridge(data, 10))
            reference = polish(data, start, torch.ones_like(data.power), 4)[1][-1].clamp_min(1e-3)
        _, rates = polish(data, *self.predict(observe(data)), len(EMPHASIS) - 1)
        shares = [(rate / reference).mean() for rate in rates]
        loss = -torch.stack(shares) @ torch.tensor(EMPHASIS).to(data.power)
        return loss, {"share_after_0": shares[0].detach(), "share_after_1": shares[1].detach()}


def polish(data: Cell, state: Multipliers, ridge: Tensor, steps: int) -> tuple[Tensor, list[Tensor]]:
    """Coefficients X after `steps` plain steps of reduced WMMSE, and the rates [B] before, between and after them."""
    rates: list[Tensor] = []
    for _ in range(steps + 1):
        X = coefficients(data, state, ridge)
        D = data.gram @ X
        state, rate = receive(data, D, inner(X, D))
        rates.append(rate)
        ridge = torch.ones_like(ridge)
    return X, rates


def finish(data: Cell, state: Multipliers, ridge: Tensor, steps: int) -> tuple[Tensor, list[Tensor]]:
    """`polish` with the steps from the third on extrapolated by SQUAREM, where that is safe."""
    if steps < 3:
        return polish(data, state, ridge, steps)
    X = coefficients(data, state, ridge)
    D = data.gram @ X
    state, rate = receive(data, D, inner(X, D))
    wmmse = ReducedWMMSE(tolerance=0.0, max_iterations=steps - 1, acceleration="squarem", gradient="unrolled")
    outcome = wmmse.run(data, state)
    X, last = polish(data, outcome.state, torch.ones_like(ridge), 0)
    return X, [rate, *lengthened(outcome.trace, steps - 1).unbind(-1), *last]


class Sight(NamedTuple):
    """The multipliers to correct, features [B, K, 9] and shifts [B, 4, K, K]."""

    start: Multipliers
    nodes: Tensor
    shifts: Tensor


def observe(data: Cell) -> Sight:
    """What the filter corrects and sees: heavily regularised zero forcing, where every choice is still open.

    Shifts, one row for each user and nothing of itself: squared correlation of channels, and of the rows of the
    regularised inverse; the share of what reaches the user that comes from each beam; the share of what its own beam
    leaks that reaches each.
    """
    K, gain = data.gram.shape[-1], own(data.gram).real
    tiny = torch.finfo(gain.dtype).tiny ** 0.5
    inverse, level = regularised(data.gram, RIDGE * K)
    square, kept = squared_magnitude(inverse), own(inverse).real
    # G R = I - level R, so that what the beams H^H R do can be told from |R|^2 alone
    heard = torch.diagonal_scatter(level.unsqueeze(-1) ** 2 * square, (1 - level * kept) ** 2, dim1=-2, dim2=-1)
    spent = kept.sum(-1) - (level * square.sum(-2)).sum(-1)
    power = heard / spent.clamp_min(tiny)[:, None, None]
    start, _ = receivers(data.weights, power)
    scale = torch.where(gain > 0, gain, torch.inf).reciprocal()
    shifts = torch.stack(
        [
            squared_magnitude(data.gram) * scale.unsqueeze(-1) * scale.unsqueeze(-2),
            square / (kept.unsqueeze(-1) * kept.unsqueeze(-2)),
            power / (power.sum(-1, keepdim=True) + 1),
            (power / (power.sum(-2, keepdim=True) + 1)).mT,
        ],
        1,
    ).masked_fill(torch.eye(K, dtype=torch.bool, device=gain.device), 0)
    mean = data.weights.mean(-1, keepdim=True).clamp_min(tiny)
    nodes = torch.stack(
        [
            gain.clamp_min(tiny).log() / 5,
            (gain / K).clamp_min(tiny).log() / 5,
            shifts[:, 0].sum(-1),
            shifts[:, 0].square().sum(-1),
            start.root.clamp_min(tiny).log(),
            start.gain.clamp_min(tiny).log(),
            kept * RIDGE * K,
            shifts[:, 1].sum(-1),
            (data.weights / mean).clamp_min(1e-4).log(),
        ],
        -1,
    )
    return Sight(start, nodes, shifts)


def zero_forcing(data: Cell) -> tuple[Multipliers, Tensor]:
    """Multipliers that the beams of regularised zero forcing with equal powers ask for, and its rate [B]."""
    K = data.gram.shape[-1]
    inverse, _ = regularised(data.gram, K)
    D = data.gram @ inverse
    spent = (inverse.real * D.real + inverse.imag * D.imag).sum(-2)  # by each beam
    return receivers(data.weights, squared_magnitude(D) / torch.where(spent > 0, K * spent, 1).unsqueeze(-2))


def regularised(gram: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """``(G + diag(level))^-1`` [B, K, K], and the levels [B, K]: the ridge, and what rounding asks for on top."""
    level = ridge + 4 * torch.finfo(gram.real.dtype).eps * own(gram).real
    factor, _ = torch.linalg.cholesky_ex(gram + torch.diag_embed(level))
    return torch.cholesky_inverse(factor), level
