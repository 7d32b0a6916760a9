"""The only scorer: whatever made the beams, they are judged here, on the true network."""

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
"""Relative violation up to which a constraint counts as held, by precision."""


@dataclass(frozen=True)
class Report:
    """What beams achieve; every tensor leads with the batch dimensions.

    utility    [...] in `unit`, as the problem states it.
    violation  by name of the constraint, [...]: relative excess over its limit, at most 0 where it holds; of a
               `MeanConstraint` it is the mean over the instances that counts. Several of one type are numbered.
    feasible   [...] every constraint on single instances holds to the precision's tolerance (1e-4 in float32, 1e-7 in
               float64).
    figures    everything else that was measured, by name: ``rate`` [..., K] bit/s/Hz, ``sinr`` [..., K] linear,
               ``power`` [..., T] watts sent by each transmitter, ``jain`` [...] Jain's index of the rates, and whatever
               the problem's terms add.
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
    """Score beams, W [..., N, D] or with their factors, on the instance's true network.

    ``rate_k = log2(1 + |h_k^H w_k|^2 / (sum_{d != k} |h_k^H w_d|^2 + noise_k))``, and for users with several
    streams or antennas as `Network.rate` has it.

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
    """The constraints' types, with a number behind the second and later ones of a type.

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
