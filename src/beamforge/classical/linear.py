"""Closed forms: MRT, zero forcing, regularised zero forcing, and weighted SLNR.

The directions depend on the channels alone; the power of a transmitter is shared equally by its streams. With several
transmitters, each one uses only its own channels to all users.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from beamforge.classical.fairness.trade_off import FairnessSolver, equal_weights, fairness_capabilities
from beamforge.classical.power_limits import LIMITS, budget, equal_power
from beamforge.classical.structure import directions, unit
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import EqualPower, TotalPower
from beamforge.core.errors import ConfigError
from beamforge.core.network import Network, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.core.solver import Solver
from beamforge.core.utilities import MinRate, MinSinr, SumRate


class Linear(Solver):
    """Base of the closed forms: a subclass supplies the directions `columns` for every transmitter and user."""

    capabilities = tuple(
        Capability(goal, (Form.MULTICELL,), needs_one_of=LIMITS) for goal in (SumRate, MinRate, MinSinr)
    )

    def solve_batch(
        self, problem: Problem, observation: Observation, start: Tensor | None, generator: torch.Generator | None
    ) -> Solution:
        network = observation.network
        return equal_power_solution(problem, network, self.columns(network.whitened().H, problem, network))

    def columns(self, H: Tensor, problem: Problem, network: Network) -> Tensor:
        """Unit directions [B, T, N, K] from the channels H [B, T, K, N] in units of the noise."""
        raise NotImplementedError


class MRT(Linear):
    """Maximum ratio transmission ``w_k ∝ h_k``: the most signal power, without regard to interference."""

    def columns(self, H: Tensor, problem: Problem, network: Network) -> Tensor:
        return unit(H.mH)


class ZF(Linear):
    """Zero forcing: the columns of the pseudo-inverse ``H^+`` (with more users than antennas, of least squares)."""

    def columns(self, H: Tensor, problem: Problem, network: Network) -> Tensor:
        W = unit(torch.linalg.pinv(unit(H.mH).mH))
        return W * (squared_magnitude(H).sum(-1) > 0).unsqueeze(-2)


class RZF(Linear):
    """Regularised zero forcing ``w_k ∝ H^H (H H^H + K s2/P I)^-1 e_k`` with power P/K each (K the streams served).

    The directions maximise the signal-to-leakage-and-noise ratio, so SLNR with equal powers is the same method.

    Source: C. Peel, B. Hochwald, A. Swindlehurst, IEEE Trans. Commun. 53 (2005), Eq. 5; M. Sadek, A. Tarighat,
    A. Sayed, IEEE Trans. Wireless Commun. 6 (2007), Eq. 13.
    """

    def columns(self, H: Tensor, problem: Problem, network: Network) -> Tensor:
        sent = network.streams.sent(network.transmitters).to(network.noise.dtype)
        share = budget(problem, network) / sent.clamp_min(1)
        return directions(H, share.unsqueeze(-1).expand(H.shape[:-1]))


class WeightedSLNR(FairnessSolver, Linear):
    """SLNR with leakage weighted by channel gain: ``f_u ∝ (sum_l w_l h_l h_l^H + s2 I)^-1 h_u``.

    The weights ``w_l ∝ |h_l|^(-2 alpha)`` have mean one over the users; a larger alpha protects weak users more.
    Beams have unit norm in the formula, so the noise is not scaled by the power. Fairness increases up to alpha near 5,
    where the search for alpha ends. If alpha = 0 is fairer than required, alpha is 0.

    alpha  at least 0; by default the least alpha that meets the required fairness, or 1 if none is required.

    Source: the fairness-controlled beamforming paper's Eqs. 6 to 8, with the weights of Eq. 7 normalised to mean one
    rather than to sum one (the sum-one form matches no result in its tables).
    """

    capabilities = (*Linear.capabilities, *fairness_capabilities(EqualPower, TotalPower))
    scope = "fairness of rates of equal weight"
    parameter = "alpha"
    grid = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
    neutral = 1.0
    accuracy = 1e-9

    def __init__(self, alpha: float | None = None) -> None:
        super().__init__()
        if alpha is not None and not 0 <= alpha < math.inf:
            raise ConfigError(f"alpha must be finite and not negative, got {alpha:g}")
        self.alpha = alpha

    @classmethod
    def supports(cls, problem: Problem, network: Network) -> bool:
        return super().supports(problem, network) and equal_weights(problem, network)

    def solve_at(self, problem: Problem, observation: Observation, parameter: Tensor, start: Tensor | None) -> Solution:
        network = observation.network
        H = network.whitened().H
        gain = squared_magnitude(H).sum(-1)
        tiny = torch.finfo(gain.dtype).tiny
        steep = -parameter[:, None, None] * gain.clamp_min(tiny).log()
        price = torch.softmax(torch.where(gain > 0, steep, -torch.inf), -1)
        return equal_power_solution(problem, network, directions(H, H.shape[-2] * torch.nan_to_num(price)))


def equal_power_solution(problem: Problem, network: Network, columns: Tensor) -> Solution:
    """Beams of equal power along `columns` [B, T, N, K]: each stream uses the column of its own transmitter."""
    own_transmitter = network.streams.transmitter[:, None, None, :].expand(-1, -1, network.antennas, -1)
    chosen = torch.gather(columns, 1, own_transmitter).squeeze(1)
    return Solution.closed_form(equal_power(problem, network, chosen))
