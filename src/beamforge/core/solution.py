"""Solution: the beams of a solver, and the status of each instance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.beams import Beams, Factors
from beamforge.core.evaluate import Report, evaluate
from beamforge.core.instance import Instance
from beamforge.core.problem import Problem
from beamforge.core.summaries import Summarised, array, counted, counts, spread


class Status(IntEnum):
    """How the solution of one instance ended. `remedy` says what the caller can do."""

    CONVERGED = 0
    MAX_ITERATIONS = 1
    INFEASIBLE = 2
    NUMERICAL_FAILURE = 3

    @property
    def remedy(self) -> str:
        """What to do, in one sentence."""
        return {
            Status.CONVERGED: "nothing to do",
            Status.MAX_ITERATIONS: "raise max_iterations, loosen tolerance, or start from this solution",
            Status.INFEASIBLE: "no beams meet every constraint: lower the targets, raise the power, or drop users",
            Status.NUMERICAL_FAILURE: "use complex128, and look at this instance's channel",
        }[self]


class Asked(NamedTuple):
    """What was solved: the problem, the instance, and the name of the method."""

    problem: Problem
    instance: Instance
    method: str


@dataclass(frozen=True, repr=False)
class Solution(Summarised):
    """Beams and how they were found; every tensor leads with the batch dimensions.

    W           complex [..., N, D]; 0 for an instance that is infeasible or failed.
    status      integer [...], a `Status`.
    iterations  integer [...], iterations spent on each instance (0 for a closed form).
    trace       real [..., iterations + 1] or None: the utility before each iteration and at the end; after an instance
                has stopped, its last value is repeated.
    info        further tensors [..., *] by name: dual variables, bounds, certificates, as the method documents.
    factors     the factors of hybrid beams (see `hybrid`), else None.
    asked       what was solved, used by `report`, `rate`, `sinr`, `utility` and `power`; `beamforge.solve` sets it.

    Printed, a solution is a few lines: method, sizes, counts of statuses, utility, power and iterations.
    """

    W: Tensor
    status: Tensor
    iterations: Tensor
    trace: Tensor | None = None
    info: Mapping[str, Tensor] = field(default_factory=dict)
    factors: Factors | None = None
    asked: Asked | None = None

    @classmethod
    def closed_form(cls, W: Tensor, **info: Tensor) -> Solution:
        """A solution without iterations."""
        zeros = torch.zeros(W.shape[:-2], dtype=torch.long, device=W.device)
        return cls(W, zeros, zeros, info=info)

    @classmethod
    def hybrid(
        cls,
        factors: Factors,
        status: Tensor,
        iterations: Tensor,
        trace: Tensor | None = None,
        info: Mapping[str, Tensor] | None = None,
    ) -> Solution:
        """A solution whose beams are ``A B diag(sqrt p)``."""
        return cls(factors.W, status, iterations, trace, info or {}, factors)

    @property
    def beams(self) -> Beams:
        """The beams with their factors, as `evaluate` takes them."""
        return Beams(self.W, self.factors)

    @property
    def solved(self) -> Tensor:
        """Boolean [...]: the instance has usable beams (`CONVERGED` or `MAX_ITERATIONS`)."""
        return self.status <= Status.MAX_ITERATIONS

    @cached_property
    def report(self) -> Report:
        """The score of the beams on the true network; the utility is NaN for an instance without beams.

        Raises `LookupError` if `asked` is None.
        """
        if self.asked is None:
            raise LookupError("this solution does not know its problem and instance: score it with beamforge.evaluate")
        found = evaluate(self.asked.problem, self.asked.instance, self.beams)
        return replace(found, utility=torch.where(self.solved, found.utility, torch.nan))

    @property
    def rate(self) -> Tensor:
        """[..., K] bit/s/Hz; 0 for an instance without beams."""
        return self.report.rate

    @property
    def sinr(self) -> Tensor:
        """[..., K] linear; 0 for an instance without beams."""
        return self.report.sinr

    @property
    def utility(self) -> Tensor:
        """[...] in the problem's unit; NaN for an instance without beams."""
        return self.report.utility

    @property
    def power(self) -> Tensor:
        """[..., T] watts sent by each transmitter; 0 for an instance without beams."""
        return self.report.power

    @property
    def status_counts(self) -> dict[str, int]:
        """How many instances have each status, by its name; statuses without an instance are left out."""
        return counts(self.status, [status.name.lower() for status in Status])

    def summary(self) -> tuple[str, dict[str, str]]:
        """Method, sizes, counts of statuses, utility, power and iterations, for `print`."""
        N, D = self.W.shape[-2:]
        size = f"{counted(array(self.status).size, 'instance')} of {N} x {D} beams"
        rows = {
            "size": size if self.asked is None else self.asked.instance.truth.sizes,
            "status": ", ".join(f"{count} {name}" for name, count in self.status_counts.items()),
        }
        solved = array(self.solved)
        if self.asked is None:
            rows["power"] = f"{spread((abs(array(self.W)) ** 2).sum((-2, -1))[solved])} W"
        elif solved.any():
            goal = type(self.asked.problem.maximise).__name__
            rows["utility"] = f"{spread(array(self.utility)[solved])} {self.report.unit} ({goal})"
            rows["power"] = f"{spread(array(self.power).sum(-1)[solved])} W"
        rows["iterations"] = spread(self.iterations)
        return "Solution" if self.asked is None else f"Solution by {self.asked.method}", rows

    def settled(self) -> Solution:
        """The solution where NaN or Inf in W gives the status `NUMERICAL_FAILURE`, and unsolved instances get W = 0."""
        broken = ~finite_instances(self.W.unsqueeze(-3))
        status = torch.where(broken & (self.status <= Status.MAX_ITERATIONS), Status.NUMERICAL_FAILURE, self.status)
        solved = (status <= Status.MAX_ITERATIONS)[..., None, None]
        factors = self.factors
        if factors is not None:
            factors = replace(
                factors, power=torch.where(solved[..., 0], factors.power, torch.zeros_like(factors.power))
            )
        return replace(self, W=torch.where(solved, self.W, torch.zeros_like(self.W)), status=status, factors=factors)


def finite_instances(H: Tensor) -> Tensor:
    """Boolean [...]: whether the channels H [..., T, K, N] of an instance are free of NaN and Inf."""
    return torch.isfinite(torch.view_as_real(H.resolve_conj())).flatten(-4).all(-1)
