"""Labels for training: the best powers known for links under one total power, with their certificates."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.links.branch_and_bound import LinkBranchAndBound
from beamforge.classical.links.many_starts import ManyStarts
from beamforge.classical.links.quasi_inverse import QuasiInverse
from beamforge.core import batching
from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.network import squared_magnitude
from beamforge.core.solution import Status


class Certificate(IntEnum):
    """How the powers are known to be optimal, if they are."""

    MANY_STARTS = 0
    BRANCH_AND_BOUND = 1
    QUASI_INVERSE = 2

    @property
    def words(self) -> str:
        """Description."""
        return {0: "best of many starts, no proof", 1: "branch and bound", 2: "quasi-inverse"}[self]


class Labels(NamedTuple):
    """Powers p [B, L] in watts, their weighted sum rate [B] in bit/s/Hz, and a `Certificate` each [B]."""

    p: Tensor
    utility: Tensor
    certificate: Tensor


@torch.no_grad()
def label(instance: Instance) -> Labels:
    """The best powers known for a batch [B] of links with ``p_max`` and, unless all one, ``weights`` in its context.

    The quasi-inverse finds and certifies them where it can. Elsewhere they are the best of many starts; for few links,
    branch and bound certifies or improves them.

    Raises `ConfigError` for networks other than links under one total power.

    >>> from beamforge.scenarios.power_control import ThreeLinks
    >>> found = label(ThreeLinks().sample(1, dtype=torch.complex128))
    >>> found.p.round(decimals=3), Certificate(int(found.certificate)).words
    (tensor([[0.7420, 0.1910, 0.9170]], dtype=torch.float64), 'quasi-inverse')
    """
    problem, network = build_problem("sum-rate", instance.context), instance.observation.network
    if not ManyStarts.supports(problem, network):
        came = f"{network.transmitters} transmitters, {network.users} users and {network.antennas} antennas"
        raise ConfigError(f"labels must be of links under one total power, got a network of {came}")
    easy = QuasiInverse().solve(problem, network)
    proven = easy.info["certified"] & (easy.status == Status.CONVERGED)
    W, certificate = easy.W, torch.where(proven, int(Certificate.QUASI_INVERSE), int(Certificate.MANY_STARTS))
    if (rest := (~proven).nonzero().squeeze(-1)).numel():
        few = LinkBranchAndBound.supports(problem, network)
        hard = batching.take((problem.bind(network), network), rest)
        found = (LinkBranchAndBound() if few else ManyStarts()).solve(*hard)
        W = W.index_copy(0, rest, found.W)
        if few:
            certificate[rest[found.status == Status.CONVERGED]] = int(Certificate.BRANCH_AND_BOUND)
    utility = problem.bind(network).value(network, W)
    return Labels(squared_magnitude(W).squeeze(-2), utility, certificate)
