"""The one loop: per-instance stopping and freezing, safeguarded acceleration, trace, gradients, several starts.

An iterative method is a map on a state (a tree of [B, ...] tensors) given data (another). It supplies

    prepare(problem, instance) -> data           everything that a step reads, computed once
    init(data, start, generator) -> states       one state for each start
    step(data, state) -> (state, merit)          one map evaluation; the merit [B] is that of the state it was given
    beams(data, state) -> W

and has everything else from here. Merits rise; they are in the utility's own unit where the method has one.
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
"""Verdict on an instance that goes on."""

SCOUT = 1e-5
"""Tolerance to which each of several starts is run before the best goes on alone."""

State = Any
Data = Any


class Outcome(NamedTuple):
    """Where each instance of a batch stopped."""

    state: State
    merit: Tensor
    status: Tensor
    iterations: Tensor
    trace: Tensor


class IterativeSolver(Solver):
    """A method with a `step`; see the module's head for what it supplies.

    tolerance       relative change of the merit at which an instance stops (never below eight units of rounding).
    max_iterations  map evaluations after which an instance is cut off.
    acceleration    "none", "squarem", "anderson" or "nesterov".
    gradient        "unrolled" differentiates through the iterations, "implicit" through the fixed point alone.
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
        """Everything a step reads, as a tree of [B, ...] tensors."""
        raise NotImplementedError

    def init(self, data: Data, start: Tensor | None, generator: torch.Generator | None) -> Iterable[State]:
        """One state for each start; all are run a little way, and instance by instance the best goes on alone."""
        raise NotImplementedError

    def step(self, data: Data, state: State) -> tuple[State, Tensor]:
        """The next state, and the merit [B] of `state`."""
        raise NotImplementedError

    def beams(self, data: Data, state: State) -> Tensor:
        """W [B, N, D] of a state."""
        raise NotImplementedError

    def verdict(self, data: Data, state: State, after: State, merit: Tensor, before: Tensor) -> Tensor:
        """[B]: `RUNNING` or a `Status`, from a state, its image, its merit and the merit before (-inf at first).

        By default an instance has converged when its merit changed by at most `tolerance`, relatively.
        """
        tolerance = max(self.tolerance, 8 * torch.finfo(merit.dtype).eps)
        close = (merit - before).abs() <= tolerance * merit.abs().clamp_min(torch.finfo(merit.dtype).tiny)
        return torch.where(close, int(Status.CONVERGED), RUNNING)

    def admissible(self, data: Data, state: State) -> State:
        """An extrapolated state brought back to where the map is defined (by default it is everywhere)."""
        return state

    def info(self, data: Data, outcome: Outcome) -> dict[str, Tensor]:
        """Further tensors for the solution: duals, bounds, certificates."""
        return {}

    # --- what every method has ---------------------------------------------------------------------------------------
    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        return self.answer(self.prepare(problem, observation), start, generator)

    def answer(self, data: Data, start: Tensor | None, generator: torch.Generator | None) -> Solution:
        """Solve what was prepared."""
        outcome = self.climb(data, start, generator)
        W = self.beams(data, outcome.state)
        return Solution(W, outcome.status, outcome.iterations, outcome.trace, self.info(data, outcome))

    def climb(self, data: Data, start: Tensor | None, generator: torch.Generator | None) -> Outcome:
        """Every start a little way, the best of each instance to its end."""
        states = list(self.init(data, start, generator))
        if len(states) == 1:
            return self.run(data, states[0])
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient == "unrolled"):
            scout = copy.copy(self)
            scout.tolerance = max(self.tolerance, SCOUT)
            scouted = functools.reduce(better, [scout.run(data, state) for state in states])
        return follow(scouted, self.run(data, scouted.state))

    def run(self, data: Data, state: State) -> Outcome:
        """Iterate from one state, with gradients as the setting says.

        The implicit derivative is that of the fixed point, and withheld from instances that did not come to theirs. A
        merit is flat at its top, so that its error is about the square of the state's: where a derivative is asked for,
        the tolerance is squared.
        """
        asked = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in batching.leaves(data))
        if self.gradient == "unrolled" or not asked:
            return iterate(self, data, state)
        exact = copy.copy(self)
        exact.tolerance = self.tolerance**2
        with torch.no_grad():
            outcome = iterate(exact, data, state)
        attached = attach_fixed_point(lambda s: self.step(data, s)[0], outcome.state)
        there = outcome.status == int(Status.CONVERGED)
        return outcome._replace(state=batching.where(there, attached, outcome.state))


def iterate(method: IterativeSolver, data: Data, state: State) -> Outcome:
    """Run every instance to its own end.

    A finished instance keeps the state it finished with; once a quarter of the working set is finished it is dropped
    from the arithmetic. So neither its neighbours nor the size of the batch change what an instance ends with.
    """
    kind = ACCELERATIONS[method.acceleration]
    acceleration = kind() if kind else None
    first = batching.leaves(state)[0]
    size, device = first.shape[0], first.device
    out, trace = state, []
    merit_out = torch.full((size,), -torch.inf, dtype=first.real.dtype, device=device)
    status = torch.full((size,), int(Status.MAX_ITERATIONS), device=device)
    iterations = torch.full((size,), method.max_iterations, device=device)

    where = torch.arange(size, device=device)  # the working set, as places in the batch
    running = torch.ones(size, dtype=torch.bool, device=device)
    before, fallback = merit_out, state
    refused = torch.zeros_like(running)  # at the step before
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
        stalled = refused & ~accepted  # not even the plain image rises any more: that is rounding
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
    """Where each of several starts ends: of `small` batches all run as one, which costs little more than one alone."""
    if not small:
        return [method.run(data, state) for state in states]
    size = len(batching.leaves(states[0])[0])
    data = batching.tree_map(lambda leaf: torch.cat([leaf] * len(states)), data)
    outcome = method.run(data, batching.tree_map(lambda *leaves: torch.cat(leaves), *states))
    return [batching.take(outcome, slice(at, at + size)) for at in range(0, len(states) * size, size)]


def better(one: Outcome, other: Outcome, margin: float = 0.0) -> Outcome:
    """Instance by instance the outcome of higher merit; iterations are those of both together.

    margin  share of its merit by which the other must exceed the one. Where both reach the same optimum, rounding and
            the tolerance would else decide between them, differently for the next of two channels that hardly differ.
    """
    length = max(one.trace.shape[-1], other.trace.shape[-1])
    one, other = (o._replace(trace=lengthened(o.trace, length)) for o in (one, other))
    least = torch.where(one.merit.isfinite(), one.merit + margin * one.merit.abs(), one.merit)
    wins = ~(other.merit > least)
    return batching.where(wins, one, other)._replace(iterations=one.iterations + other.iterations)


def follow(one: Outcome, then: Outcome) -> Outcome:
    """An outcome reached from another: the traces joined, the iterations added."""
    trace = torch.cat([one.trace, then.trace], -1)
    return then._replace(trace=trace, iterations=one.iterations + then.iterations)


def lengthened(trace: Tensor, length: int) -> Tensor:
    """A trace [B, n] continued to `length` by its last value."""
    return torch.cat([trace, trace[:, -1:].expand(-1, length - trace.shape[-1])], -1)
