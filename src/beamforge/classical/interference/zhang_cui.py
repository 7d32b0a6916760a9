"""Zhang and Cui's decentralised beamforming: pairs of base stations adjust their mutual interference bounds.

Base station i maximises the signal power S_i at its user subject to bounds G_ij on the interference power at the other
users j. The rate of user i is ``C_i = log2(1 + S_i / (1 + sum_j G_ji))``, noise one. Let ``D = [[a, b], [c, d]]`` hold
the derivatives of C_i and C_j, weighted, with respect to G_ij and G_ji. The step
``(G_ij, G_ji) += t sign(det D) (p d - q b, q a - p c)`` adds ``t p |det D|`` to C_i and ``t q |det D|`` to C_j: both
increase, in the proportion p to q (alpha = p/q in the source), until det D = 0 for every pair, which holds on the
Pareto boundary. The limit is a point of the boundary, in general not the optimum.

Source: R. Zhang, S. Cui, "Cooperative interference management with MISO beamforming", IEEE Trans. Signal Process. 58
(2010), Section IV.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.interference.bounded_leakage import strongest
from beamforge.classical.structure import directions
from beamforge.core.capability import Capability, Form
from beamforge.core.constraints import PerTransmitterPower
from beamforge.core.errors import ConfigError
from beamforge.core.network import spectral_efficiency, squared_magnitude
from beamforge.core.utilities import MinRate, SumRate
from beamforge.decentralised.backhaul import Backhaul
from beamforge.decentralised.base_stations import BaseStations
from beamforge.decentralised.solver import DecentralisedSolver


class Point(NamedTuple):
    """Iterate of S base stations.

    out       [B, S, K]: bounds on the interference that each base station causes.
    heard     [B, S, K]: bounds on the interference at its user.
    W         beams [B, S, N].
    rate      weighted rates [B, S].
    rates     all weighted rates [B, S, K], as known to each base station.
    utility   [B, S] of these rates.
    by_out    derivatives [B, S, K] of the weighted rate with respect to `out`.
    by_heard  derivative [B, S] with respect to any entry of `heard`.
    """

    out: Tensor
    heard: Tensor
    W: Tensor
    rate: Tensor
    rates: Tensor
    utility: Tensor
    by_out: Tensor
    by_heard: Tensor


class ZhangCui(DecentralisedSolver):
    """Base: steps of all pairs at once, with step length control.

    An iteration exchanges derivatives (two exchanges), takes a trial step, and exchanges the new bounds and rates (two
    exchanges). A step that decreases the utility is rejected and the step length is multiplied by 0.4, otherwise by
    1.5. Initial bounds are the interference powers of SLNR beams. With K base stations there are ``2 + 4 iterations``
    exchanges of K(K-1) numbers. The true rates are at least the exchanged ones, since interference is within its
    bounds. A base station whose user has zero weight does not transmit.

    iterations  number of iterations, at least 0; each solves `bounded_leakage` once, exactly.

    Raises `ConfigError` for negative `iterations`.
    """

    differentiable = False

    def __init__(self, iterations: int = 30) -> None:
        super().__init__()
        if iterations < 0:
            raise ConfigError(f"iterations must not be negative, got {iterations}")
        self.iterations = iterations

    def agreed(self, rates: Tensor) -> Tensor:
        """The utility [...] of weighted rates [..., K]."""
        raise NotImplementedError

    def shares(self, stations: BaseStations, rates: Tensor) -> tuple[Tensor, Tensor]:
        """p and q [B, S, K]: proportion of the increases of the weighted rates of base station and partner."""
        raise NotImplementedError

    def beams(self, stations: BaseStations, backhaul: Backhaul) -> Tensor:
        weights = stations.weights.double()
        power = torch.where(weights > 0, stations.power.double(), 0)
        wide = BaseStations(stations.H.to(torch.complex128), stations.serves, power, weights)
        W = directions(wide.H, wide.power.unsqueeze(-1).expand(wide.H.shape[:-1]))
        own = W.gather(-1, wide.serves[None, :, None, None].expand(*W.shape[:-1], 1))
        out = wide.power.unsqueeze(-1) * squared_magnitude((wide.H @ own).squeeze(-1))
        point = self.at(wide, backhaul, out, None)
        length = torch.full_like(point.utility, 0.5)
        for _ in range(self.iterations):
            new = self.at(wide, backhaul, self.stepped(wide, backhaul, point, length), point)
            better = new.utility >= point.utility
            length = torch.where(better, 1.5 * length, 0.4 * length).clamp(1e-9, 2.0)
            point = Point(*(chosen(better, *pair) for pair in zip(new, point, strict=True)))
        return point.W.to(stations.H.dtype)

    def at(self, stations: BaseStations, backhaul: Backhaul, out: Tensor, last: Point | None) -> Point:
        """Iterate for bounds `out`; without a message, the last bound and rate are used, initially the own signal."""
        others = stations.others
        signal = stations.power * squared_magnitude(stations.own).sum(-1)
        heard = backhaul.exchange(out, signal.unsqueeze(-1).expand(out.shape) if last is None else last.heard)
        heard = heard.clamp_min(0).masked_fill(~others, 0)
        found = strongest(stations.H, stations.serves, stations.power, out)
        level = 1 + heard.sum(-1)
        rate = stations.weights * spectral_efficiency(found.signal / level)
        said = rate.unsqueeze(-1).expand(out.shape)
        told = backhaul.exchange(said, 0.0 if last is None else last.rates)
        rates = torch.where(others, told, said)
        whole = (level + found.signal) * math.log(2)
        by_heard = -found.signal / (level * whole)
        by_out = (stations.weights / whole).unsqueeze(-1) * found.slope
        return Point(out, heard, found.W, rate, rates, self.agreed(rates), by_out, stations.weights * by_heard)

    def stepped(self, stations: BaseStations, backhaul: Backhaul, point: Point, length: Tensor) -> Tensor:
        """The bounds `out` after a step with relative changes of at most `length`.

        The step length t of a pair is the one that reaches this limit, times ``|det D| / (|a d| + |b c|)``.
        """
        others = stations.others
        a, b = point.by_out, point.by_heard.unsqueeze(-1).expand(point.out.shape)
        d, c = backhaul.exchange(a), backhaul.exchange(b)  # without a message the step of the pair is zero
        p, q = self.shares(stations, point.rates)
        det = a * d - b * c
        out, heard = p * d - q * b, q * a - p * c
        least = 1e-6 * (1 + point.out), 1e-6 * (1 + point.heard)
        pace = torch.maximum(out.abs() / (point.out + least[0]), heard.abs() / (point.heard + least[1]))
        size = (a * d).abs() + (b * c).abs()
        promising = torch.where(others & (size > 0), det / torch.where(size > 0, size, 1), 0)
        change = promising * torch.where(pace > 0, out / torch.where(pace > 0, pace, 1), 0)
        return (point.out + length.unsqueeze(-1) * change).clamp_min(0)


class ZhangCuiSumRate(ZhangCui):
    """Weighted sum rate: the weighted rates of a pair increase equally, ``p = q``."""

    capabilities = (Capability(SumRate, (Form.INTERFERENCE,), needs=(PerTransmitterPower,)),)

    def agreed(self, rates: Tensor) -> Tensor:
        return rates.sum(-1)

    def shares(self, stations: BaseStations, rates: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(rates), torch.ones_like(rates)


class ZhangCuiMaxMin(ZhangCui):
    """Minimum weighted rate: ``p : q = r_j^8 : r_i^8`` with weighted rates r, favouring the lower one of a pair."""

    capabilities = (Capability(MinRate, (Form.INTERFERENCE,), needs=(PerTransmitterPower,)),)

    def agreed(self, rates: Tensor) -> Tensor:
        return rates.amin(-1)

    def shares(self, stations: BaseStations, rates: Tensor) -> tuple[Tensor, Tensor]:
        index = stations.serves[None, :, None].expand(len(rates), -1, 1)
        most = rates.amax(-1, keepdim=True)
        share = (rates / torch.where(most > 0, most, 1)) ** 8
        return share, share.gather(-1, index).expand(rates.shape)


def chosen(better: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` where it is better [B, S], else `old`, both [B, S, ...]."""
    return torch.where(better.reshape(*better.shape, *(1,) * (new.ndim - 2)), new, old)
