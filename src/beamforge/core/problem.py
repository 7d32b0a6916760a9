"""Problem: one utility, and the constraints it is subject to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor

from beamforge.core.beams import Beams
from beamforge.core.constraints import Constraint
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.summaries import Summarised, term
from beamforge.core.utilities import Utility

Kind = TypeVar("Kind", bound=Constraint)


@dataclass(frozen=True, repr=False)
class Problem(Summarised):
    """Maximise the utility `maximise` (minimise it if its sense is -1) subject to all constraints.

    >>> from beamforge.core.constraints import TotalPower
    >>> from beamforge.core.utilities import SumRate
    >>> problem = Problem(SumRate(), (TotalPower(1.0),))
    >>> problem.find(TotalPower).limit
    1.0
    """

    maximise: Utility
    subject_to: tuple[Constraint, ...] = ()

    def summary(self) -> tuple[str, dict[str, str]]:
        """The utility and every constraint, for `print`."""
        rows = {"maximise" if self.maximise.sense > 0 else "minimise": term(self.maximise)}
        for number, limit in enumerate(self.subject_to):
            rows["subject to" if number == 0 else " " * number] = term(limit)
        return "Problem", rows

    def find(self, kind: type[Kind]) -> Kind | None:
        """The first constraint of type `kind`, or None; a `merged` problem has at most one of each type."""
        return next((constraint for constraint in self.subject_to if isinstance(constraint, kind)), None)

    def get(self, kind: type[Kind]) -> Kind:
        """The constraint of type `kind`; `LookupError` if there is none (a solver declares what it needs)."""
        found = self.find(kind)
        if found is None:
            raise LookupError(f"the problem has no {kind.__name__}")
        return found

    def bind(self, network: Network) -> Problem:
        """The problem with all numbers as tensors [*batch, ...]; `ShapeError` if one does not fit the network."""
        return Problem(self.maximise.bind(network), tuple(constraint.bind(network) for constraint in self.subject_to))

    def value(self, network: Network, W: Tensor) -> Tensor:
        """The utility [...] of beams W [..., N, D] on a network, for a bound problem."""
        return self.maximise.value(Instance.perfect(network), Beams(W))

    def merged(self) -> Problem:
        """An equivalent (bound) problem with one constraint of each type.

        Raises `UnsupportedProblem` if several constraints of one type have no equivalent single one.
        """
        found: dict[type[Constraint], Constraint] = {}
        for constraint in self.subject_to:
            kind = type(constraint)
            found[kind] = found[kind].with_also(constraint) if kind in found else constraint
        return replace(self, subject_to=tuple(found.values()))
