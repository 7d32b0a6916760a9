"""Solution: the beams of a solver, and the status of each instance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property

import torch
from torch import Tensor

from beamforge.core.beams import Beams, Factors
from beamforge.core.evaluate import Report, evaluate
from beamforge.core.instance import Instance
from beamforge.core.problem import Problem


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


@dataclass(frozen=True)
class Solution:
    """Beams and how they were found; every tensor leads with the batch dimensions.

    W           complex [..., N, D]; 0 for an instance that is infeasible or failed.
    status      integer [...], a `Status`.
    iterations  integer [...], iterations spent on each instance (0 for a closed form).
    trace       real [..., iterations + 1] or None: the utility before each iteration and at the end; after an instance
                has stopped, its last value is repeated.
    info        further tensors [..., *] by name: dual variables, bounds, certificates, as the method documents.
    factors     the factors of hybrid beams (see `hybrid`), else None.
    asked       the problem and the instance that were solved, used by `report`, `rate`, `sinr` and `utility`;
                `beamforge.solve` sets it.
    """

    W: Tensor
    status: Tensor
    iterations: Tensor
    trace: Tensor | None = None
    info: Mapping[str, Tensor] = field(default_factory=dict)
    factors: Factors | None = None
    asked: tuple[Problem, Instance] | None = field(default=None, repr=False)

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
        found = evaluate(*self.asked, self.beams)
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
