"""Regularised zero forcing for the users, and sensing streams that none of them hears."""

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

NONE = 1e-6
"""Share of a steering vector's power left in the null space below which there is none."""


class NullSpaceSensing(Solver):
    """RZF with equal powers for the K users, and a stream for each target in the null space of the users' channels.

    Sensing stream m has direction ``(I - H^+ H) a(theta_m)`` and the power with which it alone gives target m its
    sensing SNR; the users share what is left. Where the streams would need all the power or more, or there is no null
    space (K >= N, or fewer streams than targets), the users have all power: an instance in which a target is then not
    seen is infeasible for this method, not for every one.

    Source: the masked-transformer paper's baseline "LMMSE + null-space"; its division of the power is not given, and
    this one is ours.
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
        F, watts = hidden(H, C, targets.level)
        seen = (watts.isfinite().all(-1) & (watts.sum(-1) < limit)) & (extra >= C.shape[-1])
        watts = torch.where(seen.unsqueeze(-1), watts, 0)
        share = (limit - watts.sum(-1)) / K
        data = directions(H, share.unsqueeze(-1).expand(H.shape[:-1])) * share.sqrt()[:, None, None]
        sensing = (F * watts.sqrt().unsqueeze(-2))[..., :extra]
        W = torch.cat([data, torch.nn.functional.pad(sensing, (0, extra - sensing.shape[-1]))], -1)
        met = (targets.sensing_snr(W) >= targets.level * (1 - 4 * torch.finfo(limit.dtype).eps)).all(-1)
        status = torch.where(met, int(Status.CONVERGED), int(Status.INFEASIBLE))
        return Solution(W, status, torch.zeros_like(status))


def hidden(H: Tensor, C: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Unit directions [B, N, M] that no user hears, and the watts [B, M] that each needs: inf where there is none."""
    rows = unit(H.mH).mH
    gram = rows @ rows.mH
    tiny = torch.finfo(level.dtype).eps * own(gram).real.amax(-1, keepdim=True).clamp_min(1) * gram.shape[-1] * 4
    free = C
    for _ in range(2):  # once more for what rounding leaves
        free = free - rows.mH @ (loaded_inverse(gram, tiny.expand_as(own(gram).real)) @ (rows @ free))
    left = squared_magnitude(free).sum(-2)
    F = unit(free)
    heard = squared_magnitude((C.conj() * F).sum(-2))
    some = left > NONE * squared_magnitude(C).sum(-2)
    return F, torch.where(some & (heard > 0), level / torch.where(heard > 0, heard, 1), torch.inf)
