"""The subproblem of one base station and its dual: beam recovery, the power it takes, and the Lagrangian's terms.

With interference temperatures c given, base station k maximises ``log2(1 + |h_kk^H w|^2 / n)``, n being noise and what
others may put on its user, subject to ``|h_kj^H w|^2 <= c_kj`` and ``|w|^2 <= P`` (7). In units that `StationView` has,
its dual variables are ``y = d_kk P`` and loads ``l_j = d_kj |h_kj|^2 / d_kk``.

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
    """Loads [B, S, K], the price y [B, S] of all the power, and the direction that the loads lead to."""

    loads: Tensor
    price: Tensor
    direction: Direction


class Recovered(NamedTuple):
    """What the beams of (11) and (12) do, before any projection onto the power limit.

    leakage  [B, S, K]: ``|h_kj^H w|^2`` over what full power along the channel delivers.
    share    [B, S]: of its power that each base station asks for; above 1 it is more than there is.
    """

    leakage: Tensor
    share: Tensor

    def delivered(self, view: StationView) -> Tensor:
        """``|h_kj^H w|^2`` over the noise [B, S, K], of beams projected onto the power limit."""
        return self.leakage * view.gain / self.share.clamp_min(1).unsqueeze(-1)


def full_power_price(view: StationView, z: Direction, noise: Tensor) -> Tensor:
    """The price y [B, S] at which the beam along z takes all the power, n [B, S] being noise and interference.

    ``y = (|z|^2 / (b ln 2)) / (1 + n |z|^2 / (s b^2))``, from ``|w|^2 = P`` in (11) and (12b); b is ``u_k^H z``, s the
    SNR of the own channel, and n is over the noise.
    """
    b = torch.where(z.along > 0, z.along, 1)
    return NATS * z.norm / b / (1 + noise * z.norm / (view.own.clamp_min(1e-12) * b.square()))


def recover(view: StationView, duals: Duals, heard: Tensor) -> Recovered:
    """(11) and (12b): what beams do that maximise the Lagrangian, for temperatures heard, [B, S, K] over the noise."""
    z, noise = duals.direction, 1 + (heard * view.others).sum(-1)
    b = torch.where(z.along > 0, z.along, 1)
    profit = (NATS - noise * duals.price / (view.own.clamp_min(1e-12) * b)).clamp_min(0)
    share = profit * z.norm / (b * duals.price.clamp_min(1e-12))
    return Recovered(share.unsqueeze(-1) * z.leakage, share)


def slackness(view: StationView, duals: Duals, found: Recovered, allowed: Tensor) -> Tensor:
    """q [B, S] of (31): ``-sum_j d_kj (|h_kj^H w|^2 - c_kj) - d_kk (|w|^2 - P)``.

    allowed  [B, S, K]: ``c_kj`` over what full power along the channel delivers.

    The dual function (30) is the rate within the temperatures plus this; so at the dual optimum it is zero.
    """
    spare = (duals.loads * (allowed - found.leakage) * view.others).sum(-1)
    return duals.price * (spare + 1 - found.share)
