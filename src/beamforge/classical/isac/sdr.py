"""SINRs in the proportions of regularised zero forcing, as large as the sensing SNRs allow: semidefinite relaxation."""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.classical.isac.dual import least_power
from beamforge.classical.isac.relaxation import Targets, covariance, dual, first, solve
from beamforge.classical.structure import directions
from beamforge.classical.sum_rate.reduced_wmmse import doubled
from beamforge.core import batching
from beamforge.core.capability import Capability, Feature, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.network import others, own, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.sensing import SensingSnrAtLeast
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.core.utilities import SumRate

BARRIERS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
"""Weights of the barrier, one after the other, as shares of the power limit."""

ROUNDS, CLOSE = 8, 10.0
"""Factors tried at each of them, and how near the power limit is near enough, as a multiple of the weight."""

HALF = 0.5
"""Share of the power that the barrier may spend by itself where a factor is looked for."""

MARGIN = 1e-7
"""Share by which a sensing SNR is asked for too much, so that rounding breaks no limit."""


class SensingSDR(Solver):
    """K users, M targets, one transmitter: SINRs of f times those of RZF for the largest f with which all limits hold.

    For given SINRs the least power with which they and the targets' sensing SNRs can be had is a semidefinite program
    once beams are replaced by their covariances, and beams are recovered from it without loss (`relaxation`). The
    factor follows by Newton's method within what is proven: the dual shows that a factor needs more than the power
    limit, the primal that one does not. Users of weight
    zero are not served; how large the other weights are makes no difference. An instance whose targets need more than
    the power is infeasible.

    For the sum rate this is a point inside the limits, not the optimum: RZF's proportions are kept. Gradients are not
    followed.

    Source: X. Liu, T. Huang, N. Shlezinger, Y. Liu, J. Zhou, Y. C. Eldar, "Joint transmit beamforming for multiuser
    MIMO communications and MIMO radar", IEEE Trans. Signal Process. 68 (2020), Theorem 1; which SINRs are asked for is
    ours.

    >>> from beamforge.core.named_problems import build_problem
    >>> from beamforge.scenarios import Isac
    >>> instance = Isac(users=3, antennas=6, targets=2, sensing_snr_db=0.0).sample(2, dtype=torch.complex128)
    >>> solution = SensingSDR().solve(build_problem("isac", instance.context), instance)
    >>> solution.W.shape, solution.W.abs().square().sum((-2, -1)).round(decimals=4)
    (torch.Size([2, 6, 9]), tensor([1., 1.], dtype=torch.float64))
    """

    capabilities = (
        Capability(SumRate, (Form.BROADCAST,), needs=(TotalPower, SensingSnrAtLeast), handles=(Feature.SENSING,)),
    )
    differentiable = False

    @torch.no_grad()
    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        problem, wide = batching.tree_map(doubled, (problem, observation))
        assert isinstance(problem.maximise, SumRate)
        network, limit = wide.network.whitened(), problem.get(TotalPower).limit
        targets = problem.get(SensingSnrAtLeast)
        H, C = network.channel, targets.unit_channels(network.antennas)
        possible = least_power(C, targets.level * (1 + MARGIN)) <= limit
        level = torch.where(possible.unsqueeze(-1), targets.level * (1 + MARGIN), 0)  # flagged in the end
        C = torch.where(possible[:, None, None], C, 1)
        basis, _ = torch.linalg.qr(torch.cat([H.mH, C], -1))
        H, C = H @ basis, basis.mH @ C
        sinr = torch.where(problem.maximise.weights > 0, rzf_sinr(H, limit), 0)
        factor, (W, S), near = largest_factor(H, C, sinr, level, limit)
        size, found = torch.linalg.eigh(S - W @ W.mH)
        count = network.streams.count - network.users
        F = (found * size.clamp_min(0).sqrt().unsqueeze(-2)).flip(-1)[..., :count]
        W = basis @ torch.cat([W, torch.nn.functional.pad(F, (0, count - F.shape[-1]))], -1)
        spent = squared_magnitude(W).sum((-2, -1))
        W = W * (limit / torch.where(spent > 0, spent, 1))[:, None, None].sqrt()
        status = torch.where(near, int(Status.CONVERGED), int(Status.MAX_ITERATIONS))
        status = torch.where(factor > 0, status, int(Status.NUMERICAL_FAILURE))
        status = torch.where(possible, status, int(Status.INFEASIBLE))
        return Solution(W.to(observation.network.H.dtype), status, torch.zeros_like(status), info={"factor": factor})


def rzf_sinr(H: Tensor, power: Tensor) -> Tensor:
    """SINRs [B, K] of regularised zero forcing with equal powers."""
    share = (power / H.shape[-2]).unsqueeze(-1).expand(H.shape[:-1])
    heard = squared_magnitude(H @ (directions(H, share) * share.sqrt().unsqueeze(-2)))
    return own(heard) / (1 + others(heard))


def shares(sinr: Tensor) -> Tensor:
    """Of the signal in all that a user hears, at a SINR."""
    return sinr / (1 + sinr)


def largest_factor(
    H: Tensor, C: Tensor, sinr: Tensor, level: Tensor, power: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """The largest f [B] for which f times the SINRs [B, K] and the levels [B, M] can be had; beams and covariance.

    They are those of the largest factor with which they were seen to keep all limits, none (zeros) where none was.
    Last, whether the power is used up at the last weight, which is to have converged.

    At each weight of the barrier Newton's method finds where the covariance needs all the power, within what is proven:
    a factor with which it needs less can be had, one with which the dual needs more cannot.
    """
    alone = power.unsqueeze(-1) * squared_magnitude(H).sum(-1) / sinr
    high = torch.where(sinr > 0, alone, torch.inf).amin(-1)
    high = torch.where(high.isfinite(), high, 1)
    low, factor = torch.zeros_like(high), (high / 2).clamp_max(1)

    def asked(factor: Tensor, weight: float) -> Targets:
        ratio = factor.unsqueeze(-1) * sinr
        return Targets(H, C, ratio / (1 + ratio), level, weight * power)

    z = first(data := asked(factor, 1.0))
    W, S = covariance(data, z)
    best, near = (0 * W, 0 * S), torch.zeros_like(power, dtype=torch.bool)
    logarithms = (H.shape[-2] + 1) * H.shape[-1] + H.shape[-2] + C.shape[-1]
    for weight in BARRIERS:
        if weight * logarithms > HALF:  # what the barrier itself spends
            z = solve(asked(factor, weight), z, torch.inf * power)
            continue
        for _ in range(ROUNDS):
            data = asked(factor, weight)
            found = solve(data, z, power)
            stuck = (lack(data, *covariance(data, found)) > MARGIN / 2) & (dual(data, found) <= power)
            if stuck.any():
                found[stuck] = from_afar(Targets(*(each[stuck] for each in data)), weight, power[stuck])
            too_much = dual(data, found) > power
            z = torch.where(too_much.unsqueeze(-1), z, found)
            W, S = covariance(data, z)
            spent = own(S).real.sum(-1)
            central = ~too_much & (lack(data, W, S) <= MARGIN / 2)
            fits = central & (spent <= power) & (factor >= low)
            best = torch.where(fits[:, None, None], W, best[0]), torch.where(fits[:, None, None], S, best[1])
            low = torch.where(fits, factor, low)
            high = torch.where(too_much, torch.minimum(high, factor), high)
            left = power - spent
            near = central & (left.abs() <= CLOSE * weight * power)
            if near.all():
                break
            slope = (slopes(data, z, S) * sinr / (1 + factor.unsqueeze(-1) * sinr).square()).sum(-1)
            step = factor + torch.where(slope > 0, left / slope * (spent / power).clamp_max(1), 0)
            inside = central & (step > low) & (step < high)
            step = torch.where(inside, step, torch.where(low > 0, (low * high).sqrt(), factor / 8))
            factor = torch.where(near, factor, step)
    return low, best, near


def from_afar(data: Targets, weight: float, power: Tensor) -> Tensor:
    """The dual's numbers [B, K + M] at a weight of the barrier, by way of all that are larger."""
    z = first(data)
    for larger in BARRIERS:
        if larger >= weight:
            z = solve(data._replace(barrier=larger * power), z, power)
    return z


def lack(data: Targets, W: Tensor, S: Tensor) -> Tensor:
    """The largest share [B] of a target, SINR or sensing SNR, that beams and covariance fall short by."""
    heard = own(data.H @ S @ data.H.mH).real
    signal = squared_magnitude(own(data.H @ W))
    short = data.share * (heard + 1) - signal  # in units of the noise
    seen = (data.C.conj() * (S @ data.C)).sum(-2).real
    faint = 1 - seen / data.level.clamp_min(torch.finfo(seen.dtype).tiny)
    return torch.cat([short / (heard + 1), torch.where(data.level > 0, faint, 0)], -1).amax(-1)


def slopes(data: Targets, z: Tensor, S: Tensor) -> Tensor:
    """Derivatives [B, K] of the least power by the shares s_k: ``t_k (1 + h_k^H S h_k)``."""
    heard = own(data.H @ S @ data.H.mH).real
    return z[:, : data.H.shape[-2]] * (1 + heard)
