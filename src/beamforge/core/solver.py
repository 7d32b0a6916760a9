"""Solver: the base class of all methods, classical and learned; `solve` is its public interface."""

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
from beamforge.core.reduction import disable_antennas, solve_users, users_with_targets, zero_disabled
from beamforge.core.solution import Solution, Status, finite_instances


class Solver(nn.Module):
    """A method: the constructor takes its settings, `capabilities` lists the problems that it serves.

    A method implements `solve_batch`, which gets one batch dimension, a bound problem with one constraint of each type,
    and an observation. It never sees the true network.
    """

    capabilities: ClassVar[tuple[Capability, ...]] = ()
    differentiable: ClassVar[bool] = True
    """Whether gradients flow from the beams to the channels."""
    tried_on: ClassVar[tuple[int, int]] = (3, 4)
    """Users and antennas of the networks that `check_solver` tries a method on."""
    scope: ClassVar[str] = ""
    """What a method requires of a network beyond its form, in words, for error messages and lists."""

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        """Whether this method, with some settings, serves the problem on this network."""
        return any(question.accepts(problem, network) for question in cls.capabilities)

    def fits(self, problem: Problem, network: Network) -> bool:
        """Whether this solver, with its settings, serves the problem on this network; by default as `supports`."""
        return self.supports(problem, network)

    def solve(
        self,
        problem: Problem,
        instance: Instance | Observation | Network,
        *,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Solution:
        """Beams for every instance of a batch (any number of batch dimensions, or none).

        An instance whose channel is not finite gets the status `NUMERICAL_FAILURE`; other instances are not affected.

        instance   what is to be solved; the method sees its observation only.
        start      beams [..., N, D] as the warm start of a method that iterates.
        generator  source of randomness; by default a method that needs one uses its own, with seed 0.

        Raises `UnsupportedProblem` for a problem that the method does not serve, `ShapeError` for numbers that do not
        fit the network.
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
        if not finite.all():  # an instance that is not finite is solved with a zero channel, and then flagged
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
        """`solve_batch` on the problem without disabled antennas and without users whose SINR target is 0."""
        whole = observation.network
        problem, network, enabled = disable_antennas(problem, whole)
        observation = observation if enabled is None else replace(observation, network=network)
        keep = users_with_targets(problem)
        if keep is None:
            solution = self.solve_batch(problem, observation, start, generator)
        else:

            def answer(problem: Problem, observation: Observation, start: Tensor | None) -> Solution:
                return self.solve_batch(problem, observation, start, generator)

            solution = solve_users(answer, problem, observation, start, keep)
        return solution if enabled is None else replace(solution, W=zero_disabled(whole, solution.W, enabled))

    def fitted(self, problem: Problem, instance: Instance | Observation | Network) -> Solver:
        """A copy whose batch-level parameters are fitted to this batch; the solver itself if it has none.

        The copy solves every instance independently: its result is the same in any batch.
        """
        return self

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        """Solve [B, ...] instances; every number of `problem` is a tensor [B, ...]."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The settings (plain attributes), for `repr`."""
        plain: dict[str, Any] = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "training"}
        return ", ".join(f"{key}={value!r}" for key, value in plain.items())


def observed(instance: Instance | Observation | Network) -> Observation:
    """The observation of an instance; of a network, the observation with perfect channel knowledge."""
    if isinstance(instance, Network):
        return Observation(instance)
    return instance.observation if isinstance(instance, Instance) else instance


def _check_start(start: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    """Raise `ShapeError` unless `start` is a tensor of that shape, with the precision and device of the channels."""
    if not isinstance(start, Tensor):
        raise ShapeError(f"start must be a torch tensor {shape}, got {type(start).__name__}")
    if start.shape != shape:
        raise ShapeError(f"start must be {shape}, got {tuple(start.shape)}")
    if (start.dtype, start.device) != (like.dtype, like.device):
        came = f"{start.dtype} on {start.device}"
        raise ShapeError(f"start must be {like.dtype} on {like.device} like the channel, got {came}")
