"""The score of beams on the true network: `evaluate`, the same for every method, and its `Report`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from beamforge.core.beams import Beams
from beamforge.core.constraints import Constraint, MeanConstraint, jain_index
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.problem import Problem

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-7}
"""Relative violation up to which a constraint counts as satisfied, by precision."""


@dataclass(frozen=True)
class Report:
    """What beams achieve; every tensor leads with the batch dimensions.

    utility    [...] in `unit`: the problem's utility.
    violation  [...] by the name of the constraint: relative excess over its limit, at most 0 where it holds. A
               `MeanConstraint` holds by the mean over the instances. Several constraints of one type are numbered.
    feasible   [...] whether all constraints except each `MeanConstraint` hold to the tolerance of the precision (1e-4
               in float32, 1e-7 in float64).
    figures    all other measured values, by name: ``rate`` [..., K] bit/s/Hz, ``sinr`` [..., K] linear, ``power``
               [..., T] watts sent by each transmitter, ``jain`` [...] Jain's index of the rates, and those that the
               problem's terms add (`Term.figures`).
    """

    utility: Tensor
    violation: Mapping[str, Tensor]
    feasible: Tensor
    figures: Mapping[str, Tensor]
    unit: str

    @property
    def rate(self) -> Tensor:
        """[..., K], bit/s/Hz."""
        return self.figures["rate"]

    @property
    def sinr(self) -> Tensor:
        """[..., K], linear."""
        return self.figures["sinr"]

    @property
    def power(self) -> Tensor:
        """[..., T], watts."""
        return self.figures["power"]

    @property
    def jain(self) -> Tensor:
        """[...], ``(sum r)^2 / (K sum r^2)``; 1 where all rates are zero."""
        return self.figures["jain"]


def evaluate(problem: Problem, instance: Instance | Network, beams: Beams | Tensor) -> Report:
    """Score beams on the instance's true network; `beams` is W [..., N, D], or `Beams` if they have factors.

    ``rate_k = log2(1 + |h_k^H w_k|^2 / (sum_{d != k} |h_k^H w_d|^2 + noise_k))``; for users with several streams or
    antennas see `Network.rate`.

    >>> from beamforge.core.constraints import TotalPower
    >>> from beamforge.core.utilities import SumRate
    >>> network = Network.broadcast(torch.eye(2, dtype=torch.complex128), noise=1.0)
    >>> report = evaluate(Problem(SumRate(), (TotalPower(1.0),)), network, torch.eye(2, dtype=torch.complex128))
    >>> round(report.utility.item(), 6), bool(report.feasible)
    (2.0, False)
    """
    instance = Instance.perfect(instance) if isinstance(instance, Network) else instance
    beams = Beams(beams) if isinstance(beams, Tensor) else beams
    network, W = instance.truth, beams.W
    problem = problem.bind(network)
    sinr = network.sinr(W)
    rate = network.rate(W)
    named = dict(zip(names(problem.subject_to), problem.subject_to, strict=True))
    violation = {name: limit.violation(instance, beams) for name, limit in named.items()}
    each = [violation[name] for name, limit in named.items() if not isinstance(limit, MeanConstraint)]
    worst = torch.stack(each).amax(0) if each else torch.zeros_like(sinr[..., 0])
    figures = {"rate": rate, "sinr": sinr, "power": network.transmit_power(W), "jain": jain_index(rate)}
    for term in (problem.maximise, *problem.subject_to):
        figures |= term.figures(instance, beams)
    return Report(
        utility=problem.maximise.value(instance, beams),
        violation=violation,
        feasible=worst <= TOLERANCE[sinr.dtype],
        figures=figures,
        unit=problem.maximise.unit,
    )


def names(constraints: Iterable[Constraint]) -> list[str]:
    """Names of constraints: their types, numbered from the second constraint of a type on.

    >>> from beamforge.core.constraints import TotalPower
    >>> names([TotalPower(1.0), TotalPower(2.0)])
    ['TotalPower', 'TotalPower 2']
    """
    seen: Counter[str] = Counter()
    found = []
    for constraint in constraints:
        kind = type(constraint).__name__
        seen[kind] += 1
        found.append(kind if seen[kind] == 1 else f"{kind} {seen[kind]}")
    return found
