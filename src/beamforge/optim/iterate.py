"""The loop of all iterative methods: stopping of each instance, acceleration, trace, gradients, several starts.

An iterative method is a map on a state, given data; both are trees of [B, ...] tensors. It supplies

    prepare(problem, observation) -> data        everything that a step reads, computed once
    init(data, start, generator) -> states       one state for each start
    step(data, state) -> (state, merit)          one map evaluation; the merit [B] is that of the given state
    beams(data, state) -> W

and this module supplies everything else. A higher merit is better; it is in the unit of the utility where possible.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from beamforge.core import batching
from beamforge.core.errors import ConfigError, unknown
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.optim.acceleration import ACCELERATIONS, forget
from beamforge.optim.implicit import attach_fixed_point

RUNNING = -1
"""Verdict on an instance that has not finished."""

SCOUT = 1e-5
"""Tolerance to which each of several starts is run; then the best continues alone."""

State = Any
Data = Any


class Outcome(NamedTuple):
    """The final state of each instance of a batch, with its merit, status, iterations and trace."""

    state: State
    merit: Tensor
    status: Tensor
    iterations: Tensor
    trace: Tensor


class IterativeSolver(Solver):
    """An iterative method; the docstring of the module lists the functions that it supplies.

    tolerance       relative change of the merit at which an instance stops (at least 8 times the machine epsilon).
    max_iterations  map evaluations after which an instance is stopped.
    acceleration    "none", "squarem", "anderson" or "nesterov".
    gradient        "unrolled" differentiates through the iterations, "implicit" through the fixed point alone.

    Raises `ConfigError` for a setting that is unknown or out of range.
    """

    def __init__(
        self,
        tolerance: float = 1e-8,
        max_iterations: int = 500,
        acceleration: str = "none",
        gradient: str = "unrolled",
    ) -> None:
        super().__init__()
        if acceleration not in ACCELERATIONS:
            raise ConfigError(unknown("acceleration", acceleration, ACCELERATIONS))
        if gradient not in ("unrolled", "implicit"):
            raise ConfigError(unknown("gradient", gradient, ["unrolled", "implicit"]))
        if not tolerance >= 0:
            raise ConfigError(f"tolerance must not be negative, got {tolerance:g}")
        if max_iterations < 1:
            raise ConfigError(f"max_iterations must be at least 1, got {max_iterations}")
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.acceleration = acceleration
        self.gradient = gradient

    # --- what a method supplies --------------------------------------------------------------------------------------
    def prepare(self, problem: Problem, observation: Observation) -> Data:
        """Everything that a step reads, as a tree of [B, ...] tensors."""
        raise NotImplementedError

    def init(self, data: Data, start: Tensor | None, generator: torch.Generator | None) -> Iterable[State]:
        """One state for each start; all are run to the tolerance `SCOUT`, then the best of each instance continues."""
        raise NotImplementedError

    def step(self, data: Data, state: State) -> tuple[State, Tensor]:
        """The next state, and the merit [B] of `state`."""
        raise NotImplementedError

    def beams(self, data: Data, state: State) -> Tensor:
        """W [B, N, D] of a state."""
        raise NotImplementedError

    def verdict(self, data: Data, state: State, after: State, merit: Tensor, before: Tensor) -> Tensor:
        """[B]: `RUNNING` or a `Status`, from a state, its image, its merit and the previous merit (-inf at first).

        By default an instance has converged when the relative change of its merit is at most `tolerance`.
        """
        tolerance = max(self.tolerance, 8 * torch.finfo(merit.dtype).eps)
        close = (merit - before).abs() <= tolerance * merit.abs().clamp_min(torch.finfo(merit.dtype).tiny)
        return torch.where(close, int(Status.CONVERGED), RUNNING)

    def admissible(self, data: Data, state: State) -> State:
        """An extrapolated state, projected to the domain of the map (by default unchanged)."""
        return state

    def info(self, data: Data, outcome: Outcome) -> dict[str, Tensor]:
        """Further tensors for the solution: dual variables, bounds, certificates."""
        return {}

    # --- what every method has ---------------------------------------------------------------------------------------
    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        return self.answer(self.prepare(problem, observation), start, generator)

    def answer(self, data: Data, start: Tensor | None, generator: torch.Generator | None) -> Solution:
        """The solution for prepared data."""
        outcome = self.climb(data, start, generator)
        W = self.beams(data, outcome.state)
        return Solution(W, outcome.status, outcome.iterations, outcome.trace, self.info(data, outcome))

    def climb(self, data: Data, start: Tensor | None, generator: torch.Generator | None) -> Outcome:
        """Run every start to the tolerance `SCOUT`, then the best start of each instance to its end."""
        states = list(self.init(data, start, generator))
        if len(states) == 1:
            return self.run(data, states[0])
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient == "unrolled"):
            scout = copy.copy(self)
            scout.tolerance = max(self.tolerance, SCOUT)
            scouted = functools.reduce(better, [scout.run(data, state) for state in states])
        return follow(scouted, self.run(data, scouted.state))

    def run(self, data: Data, state: State) -> Outcome:
        """Iterate from one state, with gradients as the setting `gradient` says.

        Implicit derivatives are those of the fixed point; instances that have not converged get none. Near its maximum
        the error of the merit is about the square of the error of the state; so if derivatives are needed, the
        tolerance is squared.
        """
        asked = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in batching.leaves(data))
        if self.gradient == "unrolled" or not asked:
            return iterate(self, data, state)
        exact = copy.copy(self)
        exact.tolerance = self.tolerance**2
        with torch.no_grad():
            outcome = iterate(exact, data, state)
        attached = attach_fixed_point(lambda s: self.step(data, s)[0], outcome.state)
        converged = outcome.status == int(Status.CONVERGED)
        return outcome._replace(state=batching.where(converged, attached, outcome.state))


def iterate(method: IterativeSolver, data: Data, state: State) -> Outcome:
    """Run every instance until it has finished.

    A finished instance keeps its final state. Once a quarter of the working set has finished, the finished instances
    are dropped from the computation. So the result of an instance does not depend on the rest of the batch.
    """
    kind = ACCELERATIONS[method.acceleration]
    acceleration = kind() if kind else None
    first = batching.leaves(state)[0]
    size, device = first.shape[0], first.device
    out, trace = state, []
    merit_out = torch.full((size,), -torch.inf, dtype=first.real.dtype, device=device)
    status = torch.full((size,), int(Status.MAX_ITERATIONS), device=device)
    iterations = torch.full((size,), method.max_iterations, device=device)

    where = torch.arange(size, device=device)  # the working set, as indices into the batch
    running = torch.ones(size, dtype=torch.bool, device=device)
    before, fallback = merit_out, state
    refused = torch.zeros_like(running)  # at the previous step
    memory: Any = acceleration.start(batching.pack(state)) if acceleration else None
    for count in range(1, method.max_iterations + 1):
        after, merit = method.step(data, state)
        if acceleration is None or memory is None:
            accepted, following = torch.ones_like(running), after
        else:
            accepted = merit >= before - 8 * torch.finfo(merit.dtype).eps * before.abs()  # NaN is refused too
            x = batching.pack(state)
            memory, point = acceleration.propose(memory, x, batching.pack(after))
            memory = forget(acceleration, memory, x, ~accepted)
            following = method.admissible(data, batching.unpack(point, state))
            following = batching.where(accepted, following, fallback)
        verdict = method.verdict(data, state, after, merit, before)
        stalled = refused & ~accepted  # even the plain image does not raise the merit: only rounding is left
        verdict = torch.where(stalled, int(Status.CONVERGED), verdict)
        refused = ~accepted
        fallback = after if acceleration is None else batching.where(accepted, after, fallback)
        before = torch.where(accepted, merit, before)
        merit_out = merit_out.index_copy(0, where[running], before[running])
        trace.append(merit_out)
        last = count == method.max_iterations
        settled = (accepted | stalled) & (verdict != RUNNING)
        ended = running & (settled | last)
        if ended.any():
            places = where[ended]
            out = batching.put(out, places, batching.take(fallback, ended))
            verdict = torch.where(settled, verdict, int(Status.MAX_ITERATIONS))
            status = status.index_copy(0, places, verdict[ended])
            iterations = iterations.index_copy(0, places, torch.full_like(places, count))
            running = running & ~ended
            if not running.any():
                break
            if 4 * running.sum() <= 3 * len(running):
                where, before, refused = where[running], before[running], refused[running]
                data, following = batching.take(data, running), batching.take(following, running)
                fallback, memory = batching.take(fallback, running), batching.take(memory, running)
                running = running[running]
        state = following
    return Outcome(out, merit_out, status, iterations, torch.stack(trace, -1))


def together(method: IterativeSolver, data: Data, states: list[State], small: bool) -> list[Outcome]:
    """The outcome of each of several starts; with `small`, all run as one batch, which costs little more than one."""
    if not small:
        return [method.run(data, state) for state in states]
    size = len(batching.leaves(states[0])[0])
    data = batching.tree_map(lambda leaf: torch.cat([leaf] * len(states)), data)
    outcome = method.run(data, batching.tree_map(lambda *leaves: torch.cat(leaves), *states))
    return [batching.take(outcome, slice(at, at + size)) for at in range(0, len(states) * size, size)]


def better(one: Outcome, other: Outcome, margin: float = 0.0) -> Outcome:
    """For each instance the outcome of higher merit; the iterations of both are added.

    margin  relative amount by which the merit of `other` must exceed that of `one`. Without it, rounding would decide
            where both reach the same optimum, and so differently for channels that are almost equal.
    """
    length = max(one.trace.shape[-1], other.trace.shape[-1])
    one, other = (o._replace(trace=lengthened(o.trace, length)) for o in (one, other))
    least = torch.where(one.merit.isfinite(), one.merit + margin * one.merit.abs(), one.merit)
    wins = ~(other.merit > least)
    return batching.where(wins, one, other)._replace(iterations=one.iterations + other.iterations)


def follow(one: Outcome, then: Outcome) -> Outcome:
    """The outcome `then` of a run that continues `one`: traces are joined, iterations added."""
    trace = torch.cat([one.trace, then.trace], -1)
    return then._replace(trace=trace, iterations=one.iterations + then.iterations)


def lengthened(trace: Tensor, length: int) -> Tensor:
    """A trace [B, n], extended to `length` by its last value."""
    return torch.cat([trace, trace[:, -1:].expand(-1, length - trace.shape[-1])], -1)
