"""The subproblem of one base station and its dual: beam recovery, required power, and complementary slackness.

For given interference temperatures c, base station k maximises ``log2(1 + |h_kk^H w|^2 / n)`` subject to
``|h_kj^H w|^2 <= c_kj`` and ``|w|^2 <= P`` (7), where n is the noise plus the interference allowed at its user. In the
units of `StationView`, the dual variables are ``y = d_kk P`` and the loads ``l_j = d_kj |h_kj|^2 / d_kk``.

Source: M. Kim, H. Lee, M. Kim, I. Lee, "Deep learning based decentralized beamforming methods for multi-antenna
interference channels", IEEE Access 11 (2023), Eqs. 7 to 13.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.learned.interference.station_view import Direction, StationView

NATS = 1 / math.log(2)


class Duals(NamedTuple):
    """Loads [B, S, K], the multiplier y [B, S] of the full power, and the beam direction for these loads."""

    loads: Tensor
    price: Tensor
    direction: Direction


class Recovered(NamedTuple):
    """Received powers and transmit power of the beams of (11) and (12), before projection onto the power limit.

    leakage  [B, S, K]: ``|h_kj^H w|^2 / (P |h_kj|^2)``, relative to full power along the channel.
    share    [B, S]: ``|w|^2 / P``; above 1 the power limit is exceeded.
    """

    leakage: Tensor
    share: Tensor

    def delivered(self, view: StationView) -> Tensor:
        """``|h_kj^H w|^2`` over the noise [B, S, K], of beams projected onto the power limit."""
        return self.leakage * view.gain / self.share.clamp_min(1).unsqueeze(-1)


def full_power_price(view: StationView, z: Direction, noise: Tensor) -> Tensor:
    """Multiplier y [B, S] for which the beam along z has full power; noise n [B, S] includes interference.

    ``y = (|z|^2 / (b ln 2)) / (1 + n |z|^2 / (s b^2))``, from ``|w|^2 = P`` in (11) and (12b), with ``b = u_k^H z``,
    the SNR s of the own channel, and n in units of the noise.
    """
    b = torch.where(z.along > 0, z.along, 1)
    return NATS * z.norm / b / (1 + noise * z.norm / (view.own.clamp_min(1e-12) * b.square()))


def recover(view: StationView, duals: Duals, heard: Tensor) -> Recovered:
    """Beams that maximise the Lagrangian (11, 12b), for received temperatures `heard` [B, S, K], relative to noise."""
    z, noise = duals.direction, 1 + (heard * view.others).sum(-1)
    b = torch.where(z.along > 0, z.along, 1)
    profit = (NATS - noise * duals.price / (view.own.clamp_min(1e-12) * b)).clamp_min(0)
    share = profit * z.norm / (b * duals.price.clamp_min(1e-12))
    return Recovered(share.unsqueeze(-1) * z.leakage, share)


def slackness(view: StationView, duals: Duals, found: Recovered, allowed: Tensor) -> Tensor:
    """q [B, S] of (31): ``-sum_j d_kj (|h_kj^H w|^2 - c_kj) - d_kk (|w|^2 - P)``.

    allowed  [B, S, K]: ``c_kj / (P |h_kj|^2)``, relative to full power along the channel.

    The dual function (30) is q plus the rate with interference equal to the temperatures, so q is zero at the optimum.
    """
    spare = (duals.loads * (allowed - found.leakage) * view.others).sum(-1)
    return duals.price * (spare + 1 - found.share)
