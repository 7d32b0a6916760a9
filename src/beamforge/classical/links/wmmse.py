"""Weighted sum rate of single-antenna links that share one total power: what its methods have in common, and WMMSE.

In units where the total power and every noise are one, with gains ``A_lj = G_lj P / noise_l`` and shares p of the
power, ``SINR_l = A_ll p_l / (sum_{j != l} A_lj p_j + 1)``. Some optimum spends the whole power, since scaling it up
only makes the noise matter less: so shares sum to one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.links.balancing import amplitudes
from beamforge.classical.links.starts import spread
from beamforge.core import batching
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import TotalPower
from beamforge.core.network import Network, own, spectral_efficiency, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.utilities import SumRate
from beamforge.optim.starts import SeveralStarts

CAPABILITIES = (Capability(SumRate, (Form.POWER_CONTROL,), needs=(TotalPower,)),)
"""What the methods for links serve."""


class SharedPower(NamedTuple):
    """Data: gains A without their diagonal [B, L, L] (rx, tx), their diagonal [B, L], weights [B, L], watts [B]."""

    cross: Tensor
    direct: Tensor
    weights: Tensor
    power: Tensor

    @classmethod
    def of(cls, problem: Problem, network: Network) -> SharedPower:
        """The data of a bound problem."""
        assert isinstance(problem.maximise, SumRate)
        power = problem.get(TotalPower).limit
        gains = network.gains * (power.unsqueeze(-1) / network.noise).unsqueeze(-1)
        itself = torch.eye(gains.shape[-1], dtype=torch.bool, device=gains.device)
        return cls(gains.masked_fill(itself, 0), own(gains), problem.maximise.weights, power)

    def interference(self, p: Tensor) -> Tensor:
        """And noise [B, S, L] at the receivers, for any S points of shares p [B, S, L]."""
        return p @ self.cross.mT + 1

    def rate(self, p: Tensor) -> Tensor:
        """Weighted sum rate [B, S] in bit/s/Hz of shares p [B, S, L]."""
        sinr = self.direct.unsqueeze(-2) * p / self.interference(p)
        return (self.weights.unsqueeze(-2) * spectral_efficiency(sinr)).sum(-1)

    def beams(self, p: Tensor) -> Tensor:
        """W [B, 1, L] of shares p [B, L]."""
        return amplitudes(self.power.unsqueeze(-1) * p)

    def shares(self, start: Tensor) -> Tensor:
        """Shares [B, L] of given beams [B, 1, L]; they need not keep the limit."""
        return squared_magnitude(start).squeeze(-2) / self.power.unsqueeze(-1)


class LinkWMMSE(SeveralStarts):
    """L links with one total power, O(L^2) an iteration and nothing inverted.

    WMMSE with single antennas, its receivers and weights eliminated and the power limit absorbed into the noise, is a
    map of the amplitudes ``v = sqrt(p)`` alone; with ``I_l`` interference and noise, ``T_l`` all that is received::

        v_l <- v_l a_l A_ll / (I_l (sum_i q_i A_il + sum_i q_i)),     q_l = a_l A_ll p_l / (I_l T_l),     sum p = 1

    The weighted sum rate never falls from one plain iteration to the next, and extrapolation is refused where it would.
    Optima differ in which links are switched off: see `spread`.

    starts  how many of: equal powers, those that one link leads, the best when alone first, then random subsets of
            links (see `spread`); each instance keeps its best. A `start` given to `solve` replaces them all.

    Source: Q. Shi, M. Razaviyayn, Z.-Q. Luo, C. He, "An iteratively weighted MMSE approach to distributed sum-utility
    maximization for a MIMO interfering broadcast channel", IEEE Trans. Signal Process. 59 (2011), Table I. The map of
    the amplitudes is ours.

    >>> network = Network.power_control(torch.tensor([[1.0, 0.1], [0.2, 1.0]], dtype=torch.float64), noise=0.1)
    >>> solution = LinkWMMSE().solve(Problem(SumRate(), (TotalPower(2.0),)), network)
    >>> solution.W.abs().square().squeeze(-2).round(decimals=3)
    tensor([0.8730, 1.1270], dtype=torch.float64)
    """

    capabilities = CAPABILITIES

    def __init__(
        self,
        tolerance: float = 1e-10,
        max_iterations: int = 1000,
        acceleration: str = "squarem",
        starts: int = 4,
        gradient: str = "implicit",
    ) -> None:
        super().__init__(tolerance, max_iterations, acceleration, starts, gradient)

    def prepare(self, problem: Problem, observation: Observation) -> SharedPower:
        return SharedPower.of(problem, observation.network)

    def init(self, data: SharedPower, start: Tensor | None, generator: torch.Generator | None) -> Iterator[Tensor]:
        if start is not None:
            yield data.shares(start).sqrt()
            return
        yield from spread(data, self.starts, generator).sqrt().unbind(1)

    def step(self, data: SharedPower, state: Tensor) -> tuple[Tensor, Tensor]:
        v, rate = ascend(data, state.unsqueeze(1))
        return v.squeeze(1), rate.squeeze(1)

    def beams(self, data: SharedPower, state: Tensor) -> Tensor:
        return data.beams(unit_power(state).square())


class LinkResponse(NamedTuple):
    """What links make of shares p of the power, [B, S, L] each.

    interference  and noise, at the receivers.
    price         of a little more of the power, in weighted nats: what it costs all links in WMMSE's bound.
    pull          the factor by which a step of WMMSE multiplies the amplitude, but for their common length.
    """

    interference: Tensor
    sinr: Tensor
    price: Tensor
    pull: Tensor


def link_response(data: SharedPower, p: Tensor) -> LinkResponse:
    """To any S points of shares p [B, S, L] that sum to one."""
    direct = data.direct.unsqueeze(-2)
    interference = data.interference(p)
    signal = direct * p
    worth = data.weights.unsqueeze(-2) / interference
    q = worth * (signal / (interference + signal))
    price = q @ data.cross + direct * q + q.sum(-1, keepdim=True)
    pull = worth * direct / torch.where(price > 0, price, 1)
    return LinkResponse(interference, signal / interference, price, pull)


def attached(data: SharedPower, p: Tensor) -> Tensor:
    """Shares p [B, L] near a local optimum as that optimum with its derivatives, where any are asked for."""
    if not torch.is_grad_enabled() or not any(leaf.requires_grad for leaf in batching.leaves(data)):
        return p
    return unit_power(LinkWMMSE().run(data, p.sqrt()).state).square()


def ascend(data: SharedPower, v: Tensor) -> tuple[Tensor, Tensor]:
    """One step from any S points of amplitudes v [B, S, L] of whatever length; and the rate [B, S] of these."""
    v = unit_power(v)
    seen = link_response(data, v.square())
    rate = (data.weights.unsqueeze(-2) * spectral_efficiency(seen.sinr)).sum(-1)
    return unit_power(v * seen.pull), rate


def unit_power(v: Tensor) -> Tensor:
    """Amplitudes [..., L] whose squares sum to one; equal ones where all are zero."""
    largest = v.abs().amax(-1, keepdim=True)
    v = torch.where(largest > 0, v / torch.where(largest > 0, largest, 1), 1)
    return v / v.square().sum(-1, keepdim=True).sqrt()
