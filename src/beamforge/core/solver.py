"""Solver: a method that answers problems, classical and learned alike; its `solve` is the one door."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from beamforge.core import batching
from beamforge.core.capability import Capability, describe
from beamforge.core.context import CONTEXT, checked
from beamforge.core.errors import ShapeError, UnsupportedProblem
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.reduction import needed, silenced, solve_users, without_silent_antennas
from beamforge.core.solution import Solution, Status, finite_instances


class Solver(nn.Module):
    """A method: settings in the constructor, the questions it answers in `capabilities`.

    A method implements `solve_batch`, which gets one batch dimension, a bound problem with one constraint of each type,
    and an observation: the truth is out of its reach.
    """

    capabilities: ClassVar[tuple[Capability, ...]] = ()
    differentiable: ClassVar[bool] = True
    """Whether gradients flow from the beams to the channels."""
    tried_on: ClassVar[tuple[int, int]] = (3, 4)
    """Users and antennas of the networks that `check_solver` tries a method on."""
    scope: ClassVar[str] = ""
    """What a method asks of a network beyond its form, in words, for refusals and lists."""

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        """Whether this method serves the problem on this network."""
        return any(question.accepts(problem, network) for question in cls.capabilities)

    def fits(self, problem: Problem, network: Network) -> bool:
        """Whether this solver does, with the settings it has: by default, if its class does."""
        return self.supports(problem, network)

    def solve(
        self,
        problem: Problem,
        instance: Instance | Observation | Network,
        *,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Solution:
        """Beams for every instance of a batch (any number of leading dimensions, none included).

        An instance whose channel is not finite ends as a numerical failure and does not touch its neighbours.

        instance   what is to be solved; the method sees its observation alone.
        start      beams [..., N, D] to begin from, where the method iterates.
        generator  source of any randomness; where a method needs one and none is given, it uses its own, seeded 0.

        Raises `UnsupportedProblem`, or `ShapeError` for numbers that do not fit the network.
        """
        observation = observed(instance)
        network = observation.network
        if observation.context:
            checked(observation.context, network, CONTEXT)
        if not self.fits(problem, network):
            raise UnsupportedProblem(f"{type(self).__name__} does not serve {describe(problem, network)}")
        shape = network.batch_shape
        if start is not None:
            _check_start(start, (*shape, network.antennas, network.streams.count), network.H)
        dims = len(shape)
        finite = finite_instances(network.H)
        if not finite.all():  # such an instance is solved as if it had no channel, and then flagged
            known = torch.where(finite[..., None, None, None], network.H, torch.zeros_like(network.H))
            observation = replace(observation, network=replace(network, H=known))
        begun = None if start is None else batching.flatten(start, dims)
        question = batching.flatten(problem.bind(network).merged(), dims)
        solution = self._answer(question, batching.flatten(observation, dims), begun, generator)
        failed = ~batching.flatten(finite, dims)
        solution = replace(solution, status=torch.where(failed, Status.NUMERICAL_FAILURE, solution.status))
        return batching.unflatten(solution.settled(), shape)

    def _answer(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        """`solve_batch` for a question of which all that has no part in it is taken out."""
        whole = observation.network
        problem, network, sends = without_silent_antennas(problem, whole)
        observation = observation if sends is None else replace(observation, network=network)
        keep = needed(problem)
        if keep is None:
            solution = self.solve_batch(problem, observation, start, generator)
        else:

            def answer(problem: Problem, observation: Observation, start: Tensor | None) -> Solution:
                return self.solve_batch(problem, observation, start, generator)

            solution = solve_users(answer, problem, observation, start, keep)
        return solution if sends is None else replace(solution, W=silenced(whole, solution.W, sends))

    def fitted(self, problem: Problem, instance: Instance | Observation | Network) -> Solver:
        """A copy whose batch-level parameters are fixed to those that this batch asks for; itself if there are none.

        From there on every instance is solved alone: in any batch and piece by piece, with the same answer.
        """
        return self

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        """Solve [B, ...] instances; every number of `problem` is a tensor [B, ...]."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Settings that are plain attributes."""
        plain: dict[str, Any] = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "training"}
        return ", ".join(f"{key}={value!r}" for key, value in plain.items())


def observed(instance: Instance | Observation | Network) -> Observation:
    """What a solver may know of an instance."""
    if isinstance(instance, Network):
        return Observation(instance)
    return instance.observation if isinstance(instance, Instance) else instance


def _check_start(start: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    """`ShapeError` unless `start` is a tensor of that shape beside the channels, in their precision."""
    if not isinstance(start, Tensor):
        raise ShapeError(f"start must be a torch tensor {shape}, got {type(start).__name__}")
    if start.shape != shape:
        raise ShapeError(f"start must be {shape}, got {tuple(start.shape)}")
    if (start.dtype, start.device) != (like.dtype, like.device):
        came = f"{start.dtype} on {start.device}"
        raise ShapeError(f"start must be {like.dtype} on {like.device} like the channel, got {came}")
