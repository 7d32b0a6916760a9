"""Power limits of a problem: budgets of transmitters, equal powers, and scaling of beams to meet the limits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from beamforge.core.constraints import EqualPower, PerAntennaPower, PerTransmitterPower, TotalPower
from beamforge.core.network import Network
from beamforge.core.problem import Problem

LIMITS = (TotalPower, PerTransmitterPower, PerAntennaPower)
"""The power constraints that are upper limits."""


def budget(problem: Problem, network: Network) -> Tensor:
    """Power budget of each transmitter [..., T], watts, under the problem's power limits.

    A total limit is split among the transmitters in proportion to their numbers of streams; antenna limits are summed.
    """
    sent = network.streams.sent(network.transmitters).to(network.noise.dtype)
    found = []
    if equal := problem.find(EqualPower):
        found.append(equal.limit.unsqueeze(-1) * sent / network.streams.count)
    if total := problem.find(TotalPower):
        found.append(total.limit.unsqueeze(-1) * sent / network.streams.count)
    if each := problem.find(PerTransmitterPower):
        found.append(each.limit)
    if antenna := problem.find(PerAntennaPower):
        found.append(antenna.limit.sum(-1))
    return torch.stack(found).amin(0)


def equal_power(problem: Problem, network: Network, directions: Tensor) -> Tensor:
    """Beams along unit directions [..., N, D] within all limits: each transmitter's budget is shared equally."""
    streams = network.streams.sent(network.transmitters).to(network.noise.dtype)
    share = budget(problem, network) / streams.clamp_min(1)
    return within_limits(
        problem, network, directions * share.gather(-1, network.streams.transmitter).sqrt().unsqueeze(-2)
    )


def within_limits(problem: Problem, network: Network, W: Tensor) -> Tensor:
    """W with the beams of each transmitter scaled down by a common factor, no more than all power limits require."""
    power = network.antenna_power(W)
    excess = torch.ones_like(power[..., 0])
    if total := problem.find(TotalPower):
        excess = excess.maximum((power.sum((-2, -1)) / total.limit).unsqueeze(-1))
    if each := problem.find(PerTransmitterPower):
        excess = excess.maximum(power.sum(-1) / each.limit)
    if antenna := problem.find(PerAntennaPower):
        excess = excess.maximum((power / antenna.limit).amax(-1))
    return W * excess.rsqrt().gather(-1, network.streams.transmitter).unsqueeze(-2)


def allowances(problem: Problem, network: Network) -> tuple[Tensor, Tensor]:
    """Upper limits, in watts, on the power of each transmitter [B, T] and on the total power [B]."""
    each = network.noise.new_full(network.H.shape[:2], math.inf)
    if limit := problem.find(PerTransmitterPower):
        each = each.minimum(limit.limit)
    if antennas := problem.find(PerAntennaPower):
        each = each.minimum(antennas.limit.sum(-1))
    total = each.sum(-1)
    for joint in (problem.find(TotalPower), problem.find(EqualPower)):
        total = total if joint is None else total.minimum(joint.limit)
    return each.minimum(total.unsqueeze(-1)), total


def limit_groups(problem: Problem, transmitters: int, antennas: int) -> tuple[Tensor, Tensor]:
    """All power limits as sums over antennas: groups [G, T, N] (0 or 1) and their bounds [B, G] in watts."""
    T, N = transmitters, antennas
    groups, bounds = [], []
    if total := problem.find(TotalPower):
        groups.append(total.limit.new_ones(1, T, N))
        bounds.append(total.limit.unsqueeze(-1))
    if each := problem.find(PerTransmitterPower):
        alone = torch.eye(T, dtype=each.limit.dtype, device=each.limit.device)
        groups.append(alone.unsqueeze(-1).expand(T, T, N))
        bounds.append(each.limit)
    if antenna := problem.find(PerAntennaPower):
        alone = torch.eye(T * N, dtype=antenna.limit.dtype, device=antenna.limit.device)
        groups.append(alone.reshape(T * N, T, N))
        bounds.append(antenna.limit.flatten(-2))
    return torch.cat(groups), torch.cat(bounds, -1)
