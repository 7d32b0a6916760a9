"""The only scorer: whatever made the beams, they are judged here, on the true network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from beamforge.core.constraints import MeanConstraint, jain_index
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.problem import Problem

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-7}
"""Relative violation up to which a constraint counts as held, by precision."""


@dataclass(frozen=True)
class Report:
    """What beams achieve; every tensor leads with the batch dimensions.

    utility    [...] in `unit`, as the problem states it.
    rate       [..., K] bit/s/Hz.          sinr  [..., K] linear.
    power      [..., T] watts sent by each transmitter.
    jain       [...] Jain's index ``(sum r)^2 / (K sum r^2)`` of the rates; 1 where all are zero.
    violation  by name of the constraint, [...]: relative excess over its limit, at most 0 where it holds; of a
               `MeanConstraint` it is the mean over the instances that counts.
    feasible   [...] every constraint on single instances holds to the precision's tolerance (1e-4 in float32, 1e-7 in
               float64).
    """

    utility: Tensor
    rate: Tensor
    sinr: Tensor
    power: Tensor
    jain: Tensor
    violation: Mapping[str, Tensor]
    feasible: Tensor
    unit: str


def evaluate(problem: Problem, instance: Instance | Network, W: Tensor) -> Report:
    """Score the beams W [..., N, D] on the instance's true network.

    ``rate_k = log2(1 + |h_k^H w_k|^2 / (sum_{d != k} |h_k^H w_d|^2 + noise_k))``.

    >>> from beamforge.core.constraints import TotalPower
    >>> from beamforge.core.utilities import SumRate
    >>> network = Network.broadcast(torch.eye(2, dtype=torch.complex128), noise=1.0)
    >>> report = evaluate(Problem(SumRate(), (TotalPower(1.0),)), network, torch.eye(2, dtype=torch.complex128))
    >>> report.utility.item(), bool(report.feasible)
    (2.0, False)
    """
    network = instance.truth if isinstance(instance, Instance) else instance
    problem = problem.bind(network)
    sinr, rate = network.sinr(W), network.rate(W)
    violation = {type(limit).__name__: limit.violation(network, W) for limit in problem.subject_to}
    own = [violation[type(limit).__name__] for limit in problem.subject_to if not isinstance(limit, MeanConstraint)]
    worst = torch.stack(own).amax(0) if own else torch.zeros_like(sinr[..., 0])
    return Report(
        utility=problem.maximise.value(network, W),
        rate=rate,
        sinr=sinr,
        power=network.transmit_power(W),
        jain=jain_index(rate),
        violation=violation,
        feasible=worst <= TOLERANCE[sinr.dtype],
        unit=problem.maximise.unit,
    )
