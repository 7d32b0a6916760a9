"""Regularised zero forcing for the users, and sensing streams in the null space of their channels."""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.classical.structure import directions, loaded_inverse, unit
from beamforge.core.capability import Capability, Feature, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.network import own, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.sensing import SensingSnrAtLeast
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.core.utilities import SumRate

MIN_SHARE = 1e-6
"""Smallest share of a steering vector's power in the null space for which the target can be served there."""


class NullSpaceSensing(Solver):
    """RZF with equal powers for the K users, and one stream per target in the null space of the users' channels.

    Sensing stream m has direction ``(I - H^+ H) a(theta_m)`` and the power for which target m reaches its sensing SNR
    by this stream alone; the remaining power is shared equally by the users. If the streams need at least the total
    power, if there is no null space (K >= N), or if there are fewer sensing streams than targets, the users have all
    the power. An instance whose targets are then not met is infeasible for this method, not necessarily for others.

    Source: the masked-transformer paper's baseline "LMMSE + null-space". The paper does not state the power allocation;
    this one is new here.
    """

    capabilities = (
        Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower, SensingSnrAtLeast), handles=(Feature.SENSING,)),
    )

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        network, limit = observation.network.whitened(), problem.get(TotalPower).limit
        targets = problem.get(SensingSnrAtLeast)
        H, K = network.channel, network.users
        C = targets.unit_channels(network.antennas)
        extra = network.streams.count - K
        F, powers = null_space_streams(H, C, targets.level)
        fits = (powers.isfinite().all(-1) & (powers.sum(-1) < limit)) & (extra >= C.shape[-1])
        powers = torch.where(fits.unsqueeze(-1), powers, 0)
        share = (limit - powers.sum(-1)) / K
        data = directions(H, share.unsqueeze(-1).expand(H.shape[:-1])) * share.sqrt()[:, None, None]
        sensing = (F * powers.sqrt().unsqueeze(-2))[..., :extra]
        W = torch.cat([data, torch.nn.functional.pad(sensing, (0, extra - sensing.shape[-1]))], -1)
        met = (targets.sensing_snr(W) >= targets.level * (1 - 4 * torch.finfo(limit.dtype).eps)).all(-1)
        status = torch.where(met, int(Status.CONVERGED), int(Status.INFEASIBLE))
        return Solution(W, status, torch.zeros_like(status))


def null_space_streams(H: Tensor, C: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Unit directions [B, N, M] in the null space of the users and their powers [B, M]: inf where there is none."""
    rows = unit(H.mH).mH
    gram = rows @ rows.mH
    tiny = torch.finfo(level.dtype).eps * own(gram).real.amax(-1, keepdim=True).clamp_min(1) * gram.shape[-1] * 4
    free = C
    for _ in range(2):  # the second pass removes rounding errors
        free = free - rows.mH @ (loaded_inverse(gram, tiny.expand_as(own(gram).real)) @ (rows @ free))
    remaining = squared_magnitude(free).sum(-2)
    F = unit(free)
    gain = squared_magnitude((C.conj() * F).sum(-2))
    exists = remaining > MIN_SHARE * squared_magnitude(C).sum(-2)
    return F, torch.where(exists & (gain > 0), level / torch.where(gain > 0, gain, 1), torch.inf)
