"""Solver: a method that answers problems. Solution: what it answers, instance by instance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from beamforge.core import batching
from beamforge.core.constraints import Constraint
from beamforge.core.errors import ShapeError, UnsupportedProblem
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.utilities import Utility


class Status(IntEnum):
    """How one instance ended. `remedy` says what its user can do."""

    CONVERGED = 0
    MAX_ITERATIONS = 1
    INFEASIBLE = 2
    NUMERICAL_FAILURE = 3

    @property
    def remedy(self) -> str:
        """One sentence."""
        return {
            Status.CONVERGED: "nothing to do",
            Status.MAX_ITERATIONS: "raise max_iterations, loosen tolerance, or start from this solution",
            Status.INFEASIBLE: "no beams meet every constraint: lower the targets, raise the power, or drop users",
            Status.NUMERICAL_FAILURE: "use complex128, and look at this instance's channel",
        }[self]


class Form(Enum):
    """Forms of network that methods are written for; a network can have several (see `forms`)."""

    BROADCAST = "broadcast"
    MULTICELL = "multicell"
    POWER_CONTROL = "power-control"


def forms(network: Network) -> set[Form]:
    """One transmitter is a broadcast, one antenna at one transmitter a user is power control, any network multicell."""
    found = {Form.MULTICELL}
    if network.transmitters == 1:
        found.add(Form.BROADCAST)
    alone = torch.arange(network.users, device=network.serving.device)
    if network.antennas == 1 and network.transmitters == network.users == network.streams:
        if (network.serving == alone).all():
            found.add(Form.POWER_CONTROL)
    return found


@dataclass(frozen=True)
class Serves:
    """One kind of question a method answers: a utility, the network forms, and exactly which constraints.

    Every constraint of a problem must be among `needs` or `allows`, and every one of `needs` present.
    """

    utility: type[Utility]
    forms: tuple[Form, ...]
    needs: tuple[type[Constraint], ...] = ()
    allows: tuple[type[Constraint], ...] = ()

    def accepts(self, problem: Problem, network: Network) -> bool:
        """Whether the question is of this kind."""
        kinds = {type(constraint) for constraint in problem.subject_to}
        return (
            isinstance(problem.maximise, self.utility)
            and set(self.needs) <= kinds <= {*self.needs, *self.allows}
            and bool(forms(network) & set(self.forms))
        )


@dataclass(frozen=True)
class Solution:
    """Beams and how they were found; every tensor leads with the batch dimensions.

    W           complex [..., N, D]; 0 for an instance that is infeasible or failed.
    status      integer [...], a `Status`.
    iterations  integer [...], iterations spent on each instance (0 for a closed form).
    trace       real [..., iterations + 1] or None: the utility before each iteration and at the end, an instance's
                last value repeated after it stopped.
    info        further tensors [..., *] by name: dual variables, bounds, certificates, as the method documents.
    """

    W: Tensor
    status: Tensor
    iterations: Tensor
    trace: Tensor | None = None
    info: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def closed_form(cls, W: Tensor, **info: Tensor) -> Solution:
        """A solution without iterations."""
        zeros = torch.zeros(W.shape[:-2], dtype=torch.long, device=W.device)
        return cls(W, zeros, zeros, info=info)

    @property
    def solved(self) -> Tensor:
        """Boolean [...]: the instance has beams to use (converged, or stopped at its last iteration)."""
        return self.status <= Status.MAX_ITERATIONS

    def settled(self) -> Solution:
        """Failure is local: an instance with a NaN or Inf in W is flagged, and unsolved instances get W = 0."""
        broken = ~finite_instances(self.W.unsqueeze(-3))
        status = torch.where(broken & (self.status <= Status.MAX_ITERATIONS), Status.NUMERICAL_FAILURE, self.status)
        solved = (status <= Status.MAX_ITERATIONS)[..., None, None]
        return replace(self, W=torch.where(solved, self.W, torch.zeros_like(self.W)), status=status)


class Solver(nn.Module):
    """A method, classical or learned: settings in the constructor, questions it `serves` on the class.

    A method implements `solve_batch`, which gets one batch dimension and a bound problem; `solve` is the door.
    """

    serves: ClassVar[tuple[Serves, ...]] = ()
    differentiable: ClassVar[bool] = True
    """Whether gradients flow from the beams to the channels."""
    tried_on: ClassVar[tuple[int, int]] = (3, 4)
    """Users and antennas of the networks that `check_solver` tries a method on."""
    scope: ClassVar[str] = ""
    """What a method asks of a network beyond its form, in words, for refusals and lists."""

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        """Whether this method serves the problem on this form of network."""
        return any(question.accepts(problem, network) for question in cls.serves)

    def fits(self, problem: Problem, network: Network) -> bool:
        """Whether this solver does, with the settings it has: by default, if its class does."""
        return self.supports(problem, network)

    def solve(
        self,
        problem: Problem,
        instance: Instance | Network,
        *,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Solution:
        """Beams for every instance of a batch (any number of leading dimensions, none included).

        An instance whose channel is not finite ends as a numerical failure and does not touch its neighbours.

        start      beams [..., N, D] to begin from, where the method iterates.
        generator  source of any randomness; where a method needs one and none is given, it uses its own, seeded 0.

        Raises `UnsupportedProblem`, or `ShapeError` for numbers that do not fit the network.
        """
        if isinstance(instance, Network):
            instance = Instance.perfect(instance)
        network = instance.seen
        if not self.fits(problem, network):
            raise UnsupportedProblem(f"{type(self).__name__} does not serve {describe(problem, network)}")
        shape = network.batch_shape
        if start is not None:
            _check_start(start, (*shape, network.antennas, network.streams), network.H)
        dims = len(shape)
        finite = finite_instances(network.H)
        if not finite.all():  # such an instance is solved as if it had no channel, and then flagged
            known = torch.where(finite[..., None, None, None], network.H, torch.zeros_like(network.H))
            seen = replace(network, H=known)
            instance = replace(instance, seen=seen)
        solution = self.solve_batch(
            batching.flatten(problem.bind(network), dims),
            batching.flatten(instance, dims),
            None if start is None else batching.flatten(start, dims),
            generator,
        )
        failed = ~batching.flatten(finite, dims)
        solution = replace(solution, status=torch.where(failed, Status.NUMERICAL_FAILURE, solution.status))
        return batching.unflatten(solution.settled(), shape)

    def tuned(self, problem: Problem, instance: Instance | Network) -> Solver:
        """The method with whatever it takes from a batch as a whole fixed to what this one asks, itself if nothing is.

        From there on every instance is solved alone: in any batch and piece by piece, with the same answer.
        """
        return self

    def solve_batch(
        self, problem: Problem, instance: Instance, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        """Solve [B, ...] instances; every number of `problem` is a tensor [B, ...]."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Settings that are plain attributes."""
        plain: dict[str, Any] = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "training"}
        return ", ".join(f"{key}={value!r}" for key, value in plain.items())


def _check_start(start: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    """`ShapeError` unless `start` is a tensor of that shape beside the channels, in their precision."""
    if not isinstance(start, Tensor):
        raise ShapeError(f"start must be a torch tensor {shape}, got {type(start).__name__}")
    if start.shape != shape:
        raise ShapeError(f"start must be {shape}, got {tuple(start.shape)}")
    if (start.dtype, start.device) != (like.dtype, like.device):
        came = f"{start.dtype} on {start.device}"
        raise ShapeError(f"start must be {like.dtype} on {like.device} like the channel, got {came}")


def finite_instances(H: Tensor) -> Tensor:
    """Boolean [...]: no NaN or Inf in an instance of H [..., T, K, N]."""
    return torch.isfinite(torch.view_as_real(H.resolve_conj())).flatten(-4).all(-1)


def describe(problem: Problem, network: Network) -> str:
    """A question in words, for messages."""
    limits = ", ".join(type(constraint).__name__ for constraint in problem.subject_to) or "no constraint"
    kinds = "/".join(sorted(form.value for form in forms(network)))
    return f"{type(problem.maximise).__name__} with {limits} on a {kinds} network of {network.users} users"
