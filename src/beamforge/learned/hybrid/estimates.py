"""What the learned hybrid methods know of an instance, in units in which the noise is one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core.constraints import TotalPower
from beamforge.core.hybrid import AnalogCodebook, MeanSinrOutage, dft_codebook, distinct
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem

QUALITIES = (1.0, 100.0)
"""Range of the training's CSI quality; others count as the nearest end, and channels without one as the best."""


class Estimates(NamedTuple):
    """Channels H [B, K, N], SINR targets and CSI quality [B, K], power limit [B], codebook [B, N, C]; and covariances
    [B, K, N, N] or None."""

    H: Tensor
    targets: Tensor
    quality: Tensor
    limit: Tensor
    codebook: Tensor
    covariance: Tensor | None

    @property
    def chains(self) -> int:
        """Most RF chains that the codebook has independent codewords for."""
        return int(torch.linalg.matrix_rank(distinct(self.codebook)).min())


def of_problem(problem: Problem, observation: Observation) -> Estimates:
    """Of a bound problem."""
    outage, limit = problem.get(MeanSinrOutage), problem.find(TotalPower)
    most = torch.full_like(outage.probability, torch.inf) if limit is None else limit.limit
    return known(observation, outage.target, most, problem.get(AnalogCodebook).codebook)


def of_instance(instance: Instance, array: tuple[int, int]) -> Estimates:
    """Of training data for an array of columns and rows, whose codebook is the default."""
    context, H = instance.context, instance.truth.channel
    book = context.get("codebook")
    if book is None:
        book = dft_codebook(*array, oversampling=(2, 1)).to(H).expand(len(H), -1, -1)
    return known(instance.observation, context["sinr_target"], context["p_max"], book)


def known(observation: Observation, targets: Tensor, limit: Tensor, codebook: Tensor) -> Estimates:
    """The observation with noise one."""
    network: Network = observation.network.whitened()
    quality, covariance = observation.quality, observation.covariance
    if quality is None:
        quality = torch.full_like(targets, QUALITIES[1])
    elif quality.ndim < targets.ndim:
        quality = quality.unsqueeze(-1).expand_as(targets)
    if covariance is not None:
        covariance = covariance / observation.network.noise[..., None, None]
    return Estimates(network.channel, targets, quality.clamp(*QUALITIES), limit, codebook, covariance)
