"""Largest SINRs in the proportions of regularised zero forcing under sensing SNR targets: semidefinite relaxation."""

from __future__ import annotations

import torch
from torch import Tensor

from beamforge.classical.isac.dual import least_power
from beamforge.classical.isac.relaxation import PowerProblem, covariance, dual, initial_multipliers, solve
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
"""Successive weights of the barrier, relative to the power limit."""

ROUNDS, POWER_TOLERANCE = 8, 10.0
"""Largest number of factors for each weight, and the tolerance of the power relative to weight and power limit."""

MAX_BARRIER_POWER = 0.5
"""Largest share of the power caused by the barrier for which the factor is updated."""

MARGIN = 1e-7
"""Relative margin added to sensing SNR targets, so that they are met in spite of rounding."""


class SensingSDR(Solver):
    """K users, M targets, one transmitter: SINRs of f times those of RZF for the largest feasible factor f.

    The minimum power for given SINRs and sensing SNRs is a semidefinite program in the covariances of the beams, and
    the relaxation is exact (`relaxation`). Newton's method finds the factor for which the minimum power equals the
    limit, within a bracket: a dual objective above the limit proves that a factor is infeasible, beams within the limit
    prove that it is feasible. Users of weight zero are not served; other weights have no influence. An instance whose
    sensing SNRs alone need more than the power limit is infeasible.

    The result is feasible but not optimal for the sum rate, since the SINRs are proportional to those of RZF. The
    method is not differentiable.

    Source: X. Liu, T. Huang, N. Shlezinger, Y. Liu, J. Zhou, Y. C. Eldar, "Joint transmit beamforming for multiuser
    MIMO communications and MIMO radar", IEEE Trans. Signal Process. 68 (2020), Theorem 1. New here: the choice of the
    SINRs.

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
        feasible = least_power(C, targets.level * (1 + MARGIN)) <= limit
        level = torch.where(feasible.unsqueeze(-1), targets.level * (1 + MARGIN), 0)  # its status is set below
        C = torch.where(feasible[:, None, None], C, 1)
        basis, _ = torch.linalg.qr(torch.cat([H.mH, C], -1))
        H, C = H @ basis, basis.mH @ C
        sinr = torch.where(problem.maximise.weights > 0, rzf_sinr(H, limit), 0)
        factor, (W, S), converged = largest_factor(H, C, sinr, level, limit)
        size, vectors = torch.linalg.eigh(S - W @ W.mH)
        count = network.streams.count - network.users
        F = (vectors * size.clamp_min(0).sqrt().unsqueeze(-2)).flip(-1)[..., :count]
        W = basis @ torch.cat([W, torch.nn.functional.pad(F, (0, count - F.shape[-1]))], -1)
        transmit_power = squared_magnitude(W).sum((-2, -1))
        W = W * (limit / torch.where(transmit_power > 0, transmit_power, 1))[:, None, None].sqrt()
        status = torch.where(converged, int(Status.CONVERGED), int(Status.MAX_ITERATIONS))
        status = torch.where(factor > 0, status, int(Status.NUMERICAL_FAILURE))
        status = torch.where(feasible, status, int(Status.INFEASIBLE))
        return Solution(W.to(observation.network.H.dtype), status, torch.zeros_like(status), info={"factor": factor})


def rzf_sinr(H: Tensor, power: Tensor) -> Tensor:
    """SINRs [B, K] of regularised zero forcing with equal powers."""
    share = (power / H.shape[-2]).unsqueeze(-1).expand(H.shape[:-1])
    received = squared_magnitude(H @ (directions(H, share) * share.sqrt().unsqueeze(-2)))
    return own(received) / (1 + others(received))


def shares(sinr: Tensor) -> Tensor:
    """Share ``sinr / (1 + sinr)`` of the signal in the total received power with noise."""
    return sinr / (1 + sinr)


def largest_factor(
    H: Tensor, C: Tensor, sinr: Tensor, level: Tensor, power: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """Largest f [B] for which f times the SINRs [B, K] and the levels [B, M] are feasible.

    Also returns the data beams and the transmit covariance of the largest factor that was proven feasible (zeros if
    there is none), and a flag [B] of convergence: at the last weight of the barrier all power is used.

    For each weight, Newton's method finds the factor for which the trace of the covariance equals the power, between
    the largest factor known to be feasible and the smallest one that the dual objective proves infeasible.
    """
    interference_free = power.unsqueeze(-1) * squared_magnitude(H).sum(-1) / sinr
    high = torch.where(sinr > 0, interference_free, torch.inf).amin(-1)
    high = torch.where(high.isfinite(), high, 1)
    low, factor = torch.zeros_like(high), (high / 2).clamp_max(1)

    def power_problem(factor: Tensor, weight: float) -> PowerProblem:
        ratio = factor.unsqueeze(-1) * sinr
        return PowerProblem(H, C, ratio / (1 + ratio), level, weight * power)

    z = initial_multipliers(data := power_problem(factor, 1.0))
    W, S = covariance(data, z)
    best, converged = (0 * W, 0 * S), torch.zeros_like(power, dtype=torch.bool)
    logarithms = (H.shape[-2] + 1) * H.shape[-1] + H.shape[-2] + C.shape[-1]
    for weight in BARRIERS:
        if weight * logarithms > MAX_BARRIER_POWER:  # power caused by the barrier
            z = solve(power_problem(factor, weight), z, torch.inf * power)
            continue
        for _ in range(ROUNDS):
            data = power_problem(factor, weight)
            solved = solve(data, z, power)
            stuck = (shortfall(data, *covariance(data, solved)) > MARGIN / 2) & (dual(data, solved) <= power)
            if stuck.any():
                solved[stuck] = restart(PowerProblem(*(each[stuck] for each in data)), weight, power[stuck])
            infeasible = dual(data, solved) > power
            z = torch.where(infeasible.unsqueeze(-1), z, solved)
            W, S = covariance(data, z)
            transmit_power = own(S).real.sum(-1)
            central = ~infeasible & (shortfall(data, W, S) <= MARGIN / 2)
            proven = central & (transmit_power <= power) & (factor >= low)
            best = torch.where(proven[:, None, None], W, best[0]), torch.where(proven[:, None, None], S, best[1])
            low = torch.where(proven, factor, low)
            high = torch.where(infeasible, torch.minimum(high, factor), high)
            slack = power - transmit_power
            converged = central & (slack.abs() <= POWER_TOLERANCE * weight * power)
            if converged.all():
                break
            slope = (power_derivatives(data, z, S) * sinr / (1 + factor.unsqueeze(-1) * sinr).square()).sum(-1)
            step = factor + torch.where(slope > 0, slack / slope * (transmit_power / power).clamp_max(1), 0)
            inside = central & (step > low) & (step < high)
            step = torch.where(inside, step, torch.where(low > 0, (low * high).sqrt(), factor / 8))
            factor = torch.where(converged, factor, step)
    return low, best, converged


def restart(data: PowerProblem, weight: float, power: Tensor) -> Tensor:
    """Optimal multipliers [B, K + M] for a weight of the barrier, solved for all larger weights first."""
    z = initial_multipliers(data)
    for larger in BARRIERS:
        if larger >= weight:
            z = solve(data._replace(barrier=larger * power), z, power)
    return z


def shortfall(data: PowerProblem, W: Tensor, S: Tensor) -> Tensor:
    """Largest relative shortfall [B] of beams and covariance from a SINR or sensing SNR target."""
    received = own(data.H @ S @ data.H.mH).real
    signal = squared_magnitude(own(data.H @ W))
    missing = data.share * (received + 1) - signal  # in units of the noise
    sensing_snr = (data.C.conj() * (S @ data.C)).sum(-2).real
    sensing = 1 - sensing_snr / data.level.clamp_min(torch.finfo(sensing_snr.dtype).tiny)
    return torch.cat([missing / (received + 1), torch.where(data.level > 0, sensing, 0)], -1).amax(-1)


def power_derivatives(data: PowerProblem, z: Tensor, S: Tensor) -> Tensor:
    """Derivatives [B, K] of the minimum power with respect to the shares s_k: ``t_k (1 + h_k^H S h_k)``."""
    received = own(data.H @ S @ data.H.mH).real
    return z[:, : data.H.shape[-2]] * (1 + received)
