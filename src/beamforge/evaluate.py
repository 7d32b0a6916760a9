"""The only scorer: whatever made the beams, they are judged here, on the true network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from beamforge.instance import Instance
from beamforge.network import Network
from beamforge.problem import Problem

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-7}
"""Relative violation up to which a constraint counts as held, by precision."""


@dataclass(frozen=True)
class Report:
    """What beams achieve; every tensor leads with the batch dimensions.

    utility    [...] in `unit`, as the problem states it.
    rate       [..., K] bit/s/Hz.          sinr  [..., K] linear.
    power      [..., T] watts sent by each transmitter.
    jain       [...] Jain's index ``(sum r)^2 / (K sum r^2)`` of the rates; 1 where all are zero.
    violation  by name of the constraint, [...]: relative excess over its limit, at most 0 where it holds.
    feasible   [...] every constraint holds to the precision's tolerance (1e-4 in float32, 1e-7 in float64).
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

    >>> from beamforge.constraints import TotalPower
    >>> from beamforge.utilities import SumRate
    >>> network = Network.broadcast(torch.eye(2, dtype=torch.complex128), noise=1.0)
    >>> report = evaluate(Problem(SumRate(), (TotalPower(1.0),)), network, torch.eye(2, dtype=torch.complex128))
    >>> report.utility.item(), bool(report.feasible)
    (2.0, False)
    """
    network = instance.truth if isinstance(instance, Instance) else instance
    problem = problem.bind(network)
    sinr, rate = network.sinr(W), network.rate(W)
    violation = {type(limit).__name__: limit.violation(network, W) for limit in problem.subject_to}
    worst = torch.stack(list(violation.values())).amax(0) if violation else torch.zeros_like(sinr[..., 0])
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


def jain_index(rate: Tensor) -> Tensor:
    """Jain's fairness index ``(sum_k r_k)^2 / (K sum_k r_k^2)`` over the last dimension; 1 where all are zero.

    >>> jain_index(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    tensor(0.5000)
    """
    square = rate.square().sum(-1) * rate.shape[-1]
    return torch.where(square > 0, rate.sum(-1).square() / square.where(square > 0, torch.ones_like(square)), 1.0)
