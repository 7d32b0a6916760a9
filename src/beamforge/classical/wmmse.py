"""Weighted sum rate on a broadcast network by the reduced WMMSE iteration.

With sum power every non-trivial stationary point lies in the span of the channels, ``W = H^H X``, and the power limit
can be absorbed into the noise: what remains is a K x K iteration without a multiplier to search for, in which the
number of antennas does not appear.

Source: Zhao, Lu, Shi, Luo, "Rethinking WMMSE: Can Its Complexity Scale Linearly With the Number of BS Antennas?",
arXiv 2205.06225, Table I. The 2K real numbers kept as the state, and the symmetric form of the solve, are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.constraints import TotalPower
from beamforge.instance import Instance
from beamforge.iterate import IterativeSolver
from beamforge.network import others, own, squared_magnitude
from beamforge.problem import Problem
from beamforge.solver import Form, Serves
from beamforge.utilities import SumRate


class Cell(NamedTuple):
    """Data: channel [B, K, N] and its Gram matrix [B, K, K] in units of noise over power, weights [B, K], power [B]."""

    H: Tensor
    gram: Tensor
    weights: Tensor
    power: Tensor


class Multipliers(NamedTuple):
    """State, 2K real numbers: ``root_k = sqrt(a_k w_k) |u_k|`` (0 for a user switched off), ``gain_k = sqrt(a_k w_k)``."""

    root: Tensor
    gain: Tensor


class ReducedWMMSE(IterativeSolver):
    """One transmitter, sum power; K users, N antennas; O(K^2 N) once and O(K^3) an iteration.

    With receivers u, weights ``w = 1/MSE`` and ``q_k = a_k w_k |u_k|^2``, in units where noise and power are one::

        M = Q^1/2 H H^H Q^1/2 + (sum q) I,      X = Q^1/2 M^-1 diag(sqrt(a_k w_k)),      W = H^H X scaled to power P

    The phases of u can be taken as zero without loss, so a state is the pair (sqrt q, sqrt(a w)) alone. The weighted
    sum rate never falls from one plain iteration to the next.
    """

    serves = (Serves(SumRate, (Form.BROADCAST,), needs=(TotalPower,)),)

    def __init__(
        self,
        tolerance: float = 1e-8,
        max_iterations: int = 1000,
        acceleration: str = "anderson",
        starts: int = 2,
        gradient: str = "unrolled",
    ) -> None:
        super().__init__(tolerance, max_iterations, acceleration, gradient)
        self.starts = starts

    def prepare(self, problem: Problem, instance: Instance) -> Cell:
        assert isinstance(problem.maximise, SumRate)
        network, power = instance.seen.whitened(), problem.get(TotalPower).limit
        H = network.channel * power.sqrt()[:, None, None]
        return Cell(H, H @ H.mH, problem.maximise.weights, power)

    def init(self, data: Cell, start: Tensor | None, generator: torch.Generator | None) -> Sequence[Multipliers]:
        if start is not None:
            return [receivers(data, data.H @ start, squared_magnitude(start).sum((-2, -1)))[0]]
        return [from_ridge(data, ridge) for ridge in RIDGES[: self.starts]]

    def step(self, data: Cell, state: Multipliers) -> tuple[Multipliers, Tensor]:
        X = coefficients(data, state)
        D = data.gram @ X
        return receivers(data, D, (X.real * D.real + X.imag * D.imag).sum((-2, -1)))

    def beams(self, data: Cell, state: Multipliers) -> Tensor:
        W = data.H.mH @ coefficients(data, state)
        return W * (data.power / squared_magnitude(W).sum((-2, -1))).sqrt()[:, None, None]


RIDGES = (30.0, math.inf, 1.0, 10.0, 100.0)
"""Starts, best first: regularised zero forcing with so many times the ridge ``K s2/P``; infinity is MRT."""


def from_ridge(data: Cell, ridge: float) -> Multipliers:
    K = data.gram.shape[-1]
    eye = torch.eye(K, dtype=data.gram.dtype, device=data.gram.device)
    if math.isinf(ridge):
        X = eye.expand_as(data.gram)
    else:
        X = torch.linalg.solve_ex(data.gram + ridge * K * eye, eye.expand_as(data.gram))[0]
    D = data.gram @ X
    return receivers(data, D, (X.real * D.real + X.imag * D.imag).sum((-2, -1)))[0]


def coefficients(data: Cell, state: Multipliers) -> Tensor:
    """X [B, K, K] of ``W = H^H X``, up to a common scale."""
    root, gain = state
    level = root.square().sum(-1, keepdim=True).expand_as(root)
    scaled = root.unsqueeze(-1) * data.gram * root.unsqueeze(-2)
    largest = own(scaled).real.amax(-1, keepdim=True)
    level = level + 4 * torch.finfo(root.dtype).eps * largest
    factor, _ = torch.linalg.cholesky_ex(scaled + torch.diag_embed(level))
    return root.unsqueeze(-1) * torch.cholesky_inverse(factor) * gain.unsqueeze(-2)


def receivers(data: Cell, D: Tensor, spent: Tensor) -> tuple[Multipliers, Tensor]:
    """One pass over receivers and weights for amplitudes D [B, K, K] of beams that spend `spent`; and their rate."""
    power = squared_magnitude(D) / spent[:, None, None]
    interference = others(power) + 1
    signal = own(power)
    total = interference + signal
    w = total / interference
    gain = (data.weights * w).sqrt()
    return Multipliers(gain * signal.sqrt() / total, gain), (data.weights * w.log2()).sum(-1)
