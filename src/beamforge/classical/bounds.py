"""Bounds on the utility of a problem over all beams; they are valid wherever their iterations stop.

Sum rates are bounded by dirty-paper coding, the sum capacity of the broadcast channel: a concave problem in the K
powers of the dual multiple-access channel. All bounds are computed in double precision and rounded to the safe side.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.classical.duality.max_min import MaxMin
from beamforge.classical.duality.min_power import Duality
from beamforge.classical.duality.uplink import Uplink
from beamforge.classical.power_limits import allowances
from beamforge.classical.sum_rate.block_diagonalisation import water_filled
from beamforge.core import batching
from beamforge.core.constraints import PerAntennaPower, PerTransmitterPower, SinrAtLeast, TotalPower
from beamforge.core.errors import ShapeError
from beamforge.core.network import Network, per_instance, spectral_efficiency, squared_magnitude
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.streams import Streams
from beamforge.core.terms import Number
from beamforge.core.utilities import MinRate, MinSinr, SumRate, TransmitPower
from beamforge.optim.simplex import simplex_maximum

PRECISION = 1e-9
"""Relative accuracy of the bounds."""


def bound(problem: Problem, network: Network) -> Tensor:
    """An upper bound [...] on the problem's utility over all beams (a lower bound if the utility is minimised).

    Sum rate: dirty-paper coding, for all transmitters as one and for each cell without interference from the others;
    exact only for orthogonal users or one user. Least rate or SINR, and least power: the virtual uplink, exact on a
    broadcast network with a total power limit. Sum rate of users with several antennas: the users of the greatest
    weights as one receiver. Where no bound is known it is infinite (-infinite if the utility is minimised).

    >>> from beamforge.core.constraints import TotalPower
    >>> network = Network.broadcast(torch.eye(2, dtype=torch.complex128), noise=1.0)
    >>> bound(Problem(SumRate(), (TotalPower(2.0),)), network).round(decimals=6)
    tensor(2., dtype=torch.float64)
    """
    shape, dtype = network.batch_shape, network.noise.dtype
    problem = batching.flatten(double(problem.bind(network)), len(shape))
    network = batching.flatten(double(network), len(shape))
    goal = problem.maximise
    found = network.noise.new_full(network.batch_shape, goal.sense * math.inf)
    if isinstance(goal, SumRate):
        several = network.receive_antennas > 1
        found = (cooperative_bound if several else sum_rate_bound)(problem, network, goal.weights)
    elif (single := with_one_stream_each(network)) is None:
        pass  # no bound on least rates and powers is known
    elif isinstance(goal, (MinRate, MinSinr)):
        for price, budget in weighted_limits(problem, network):
            scaled = replace(single, H=single.H * price.rsqrt().unsqueeze(-2))
            found = found.minimum(balance_bound(goal, scaled, budget))
    elif isinstance(goal, TransmitPower) and (targets := problem.find(SinrAtLeast)):
        found = power_bound(problem, single, targets.target)
    return outward(found, goal.sense, dtype).reshape(shape)


def dpc_sum_capacity(network: Network, p_max: Number, weights: Number = 1.0) -> Tensor:
    """Weighted sum capacity [...] of a broadcast network, bit/s/Hz; an upper bound with a relative error below 1e-9.

    By duality with the multiple-access channel, for weights in descending order ``a_1 >= ... >= a_K`` (``a_K+1 = 0``)::

        C = max_{q >= 0, sum q = P}  sum_j (a_j - a_j+1) log2 det(I + sum_{k <= j} q_k h_k h_k^H / s2_k)

    Dirty-paper coding reaches it; no linear beams exceed it.

    p_max    total power, watts, a number or [...].
    weights  weights of the rates, non-negative, a number, [K] or [..., K].

    Raises `ShapeError` for several transmitters, for users with several antennas, or if a number does not fit.

    Source: S. Vishwanath, N. Jindal, A. Goldsmith, IEEE Trans. Inf. Theory 49 (2003), Theorem 1; N. Jindal, W. Rhee,
    S. Vishwanath, S. Jafar, A. Goldsmith, IEEE Trans. Inf. Theory 51 (2005), Eq. 8, whose water-filling is replaced by
    an interior-point iteration; H. Viswanathan, S. Venkatesan, H. Huang, IEEE J. Sel. Areas Commun. 21 (2003), Eq. 5.

    >>> network = Network.broadcast(torch.ones(1, 4, dtype=torch.complex128), noise=1.0)
    >>> dpc_sum_capacity(network, p_max=0.75).round(decimals=6)
    tensor(2., dtype=torch.float64)
    """
    H, shape, dtype = network.whitened().channel, network.batch_shape, network.noise.dtype
    if network.receive_antennas > 1:
        raise ShapeError(f"users must have one antenna each, got {network.receive_antennas}; use `bound`")
    power = per_instance("p_max", p_max, network.H, ())
    weights = per_instance("weights", weights, network.H, (network.users,))
    H, power, weights = batching.flatten(double((H, power, weights)), len(shape))
    return outward(capacity(H, power, weights), 1, dtype).reshape(shape)


def double(tree: batching.Tree) -> batching.Tree:
    """Every real or complex tensor of a tree in double precision."""

    def cast(leaf: Tensor) -> Tensor:
        return leaf.to(torch.complex128) if leaf.is_complex() else leaf.double() if leaf.is_floating_point() else leaf

    return batching.tree_map(cast, tree)


def outward(found: Tensor, sense: int, dtype: torch.dtype) -> Tensor:
    """A bound in the precision `dtype`, rounded away from the optimum so that it remains a bound."""
    rounded = found.to(dtype)
    beyond = torch.nextafter(rounded, torch.full_like(rounded, sense * math.inf))
    return torch.where(sense * (rounded.double() - found) < 0, beyond, rounded)


# --- sum rate --------------------------------------------------------------------------------------------------------
class Levels(NamedTuple):
    """Multiple-access channels of nested sets of users: channels H [n, K, r] at full power, the users of set j as ones
    and zeros [n, J, K], and the weight of its log det [n, J]."""

    H: Tensor
    member: Tensor
    worth: Tensor


def capacity(H: Tensor, power: Tensor, weights: Tensor) -> Tensor:
    """Upper bound [n] on the weighted capacity for H [n, K, N] in units of the noise."""
    rows = compact(H * power.sqrt()[:, None, None])
    ordered, order = weights.sort(-1, descending=True)
    worth = ordered - torch.nn.functional.pad(ordered[:, 1:], (0, 1))
    member = torch.tril(torch.ones_like(weights).diag_embed().cumsum(-2))
    used = (worth > 0).any(0)
    rows = rows.gather(1, order.unsqueeze(-1).expand_as(rows))
    data = Levels(rows, member[:, used], worth[:, used])
    start = torch.full_like(weights, 1 / weights.shape[-1])
    value = multiple_access(data, start)[0]
    return simplex_maximum(multiple_access, data, start, PRECISION * value).bound / math.log(2)


def multiple_access(data: Levels, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``sum_j worth_j log det(I + H^H diag(member_j x) H)`` in nats, its gradient and curvature."""
    powers = data.member * x.unsqueeze(1)
    value, gram = log_det(data.H.unsqueeze(1), powers)
    seen = data.member * data.worth.unsqueeze(-1)
    gradient = (seen * torch.diagonal(gram, dim1=-2, dim2=-1).real).sum(1)
    curvature = torch.einsum("njk,njl,njkl->nkl", seen, data.member, squared_magnitude(gram))
    return (data.worth * value).sum(-1), gradient, curvature


def log_det(H: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """``log det B`` [...] and ``H B^-1 H^H`` [..., K, K] of ``B = I + H^H diag(q) H``.

    The diagonal of B is increased by more than the rounding errors, so that log det B is never too small.
    """
    B = H.mH @ (q.unsqueeze(-1) * H)
    lift = 1 + 8 * H.shape[-1] * torch.finfo(q.dtype).eps * (1 + torch.diagonal(B, dim1=-2, dim2=-1).real)
    factor, _ = torch.linalg.cholesky_ex(B + torch.diag_embed(lift).to(B.dtype))
    half = torch.linalg.solve_triangular(factor, H.mH.expand(*B.shape[:-1], H.shape[-2]), upper=False)
    return 2 * torch.diagonal(factor, dim1=-2, dim2=-1).real.log().sum(-1), half.mH @ half


def compact(H: Tensor) -> Tensor:
    """Rows [n, K, min(K, N)] that have the same Gram matrix as the rows of H [n, K, N]."""
    return H if H.shape[-1] <= H.shape[-2] else torch.linalg.qr(H.mH).R.mH


def sum_rate_bound(problem: Problem, network: Network, weights: Tensor) -> Tensor:
    """Least capacity [B] of the relaxed networks: all transmitters as one, and cells without mutual interference."""
    B, T, K, N = network.H.shape
    each, total = allowances(problem, network)
    if not torch.isfinite(total).all():
        return torch.full_like(total, math.inf)
    H = network.whitened().H
    found = capacity(H.transpose(1, 2).reshape(B, K, T * N), total, weights)
    if T > 1:
        served = (network.streams.sent_by(T).unsqueeze(-2) & network.streams.data_of(K).unsqueeze(-3)).any(-1)
        own = H * served.unsqueeze(-1)
        found = found.minimum(capacity(own.transpose(1, 2).reshape(B, K, T * N), total, weights))
        cells = capacity(own.flatten(0, 1), each.flatten(), (weights.unsqueeze(1) * served).flatten(0, 1))
        found = found.minimum(cells.reshape(B, T).sum(-1))
    return found


def cooperative_bound(problem: Problem, network: Network, weights: Tensor) -> Tensor:
    """Bound [B] on the weighted sum rate: all transmitters as one, the j users of the greatest weights as one receiver.

    For weights in descending order (``a_K+1 = 0``) the sum rate is ``sum_j (a_j - a_j+1) (r_1 + ... + r_j)``. No
    ``r_1 + ... + r_j`` exceeds the capacity ``max sum_i log2(1 + s_i^2 p_i)``, with s_i the singular values of the
    stacked channels of these users.
    """
    _, total = allowances(problem, network)
    if not torch.isfinite(total).all():
        return torch.full_like(total, math.inf)
    K = network.users
    ordered, order = weights.sort(-1, descending=True)
    worth = ordered - torch.nn.functional.pad(ordered[:, 1:], (0, 1))
    H = network.whitened().H.transpose(1, 2).flatten(2).unflatten(1, (K, -1))
    H = H.gather(1, order[:, :, None, None].expand_as(H)) * total.sqrt()[:, None, None, None]
    found = torch.zeros_like(total)
    for j in range(K):
        if (worth[:, j] > 0).any():
            found = found + worth[:, j] * joint_capacity(H[:, : j + 1].flatten(1, 2))
    return found * (1 + PRECISION)


def joint_capacity(H: Tensor) -> Tensor:
    """Capacity [B], bit/s/Hz, of channels H [B, n, m] in units of noise over power, by water-filling."""
    gains = torch.linalg.svdvals(H).square()
    return spectral_efficiency(gains * water_filled(gains, torch.ones_like(gains))).sum(-1)


# --- balanced rates, and least power ---------------------------------------------------------------------------------
def with_one_stream_each(network: Network) -> Network | None:
    """The network with one stream for each user, in order, as `Uplink` needs them; None for other networks.

    With one transmitter, several streams for a user with one antenna are no better than one.
    """
    K, streams = network.users, network.streams
    if network.receive_antennas > 1 or (network.transmitters > 1 and streams.user is not None):
        return None
    transmitter = streams.transmitter[..., :K]
    if network.transmitters == 1:
        transmitter = transmitter.new_zeros(*network.batch_shape, K)
    return replace(network, streams=Streams(transmitter))


def weighted_limits(problem: Problem, network: Network) -> list[tuple[Tensor, Tensor]]:
    """Each power limit relaxed to a weighted sum, ``sum_tn price_tn power_tn <= budget``: [B, T, N] and [B]."""
    one = network.noise.new_ones(network.H.shape[:2] + network.H.shape[3:])
    found = []
    if total := problem.find(TotalPower):
        found.append((one, total.limit))
    if each := problem.find(PerTransmitterPower):
        found.append((one / each.limit.unsqueeze(-1), one[..., 0].sum(-1)))
    if antenna := problem.find(PerAntennaPower):
        found.append((one / antenna.limit, one.sum((-2, -1))))
    return found


def balance_bound(goal: MinRate | MinSinr, network: Network, budget: Tensor) -> Tensor:
    """Bound [B] on the least user utility: the greatest user utility in the uplink at powers of sum `budget`.

    It holds for any positive powers. Otherwise all SINRs of the downlink would be greater; compared with the uplink
    powers that reach them, the user with the largest ratio of powers would contradict the properties of a standard
    interference function. The powers used are those that `MaxMin` balances.
    """
    uplink = Uplink.of(network)
    alone = value_of(goal, budget.unsqueeze(-1) * uplink.gain).amin(-1)
    balanced = MaxMin().solve_batch(Problem(goal, (TotalPower(budget),)), Observation(network), None, None)
    x = balanced.info["dual"] * network.noise * uplink.gain
    x = x * (budget / uplink.power(x) * (1 + PRECISION)).unsqueeze(-1)
    return alone.fmin(value_of(goal, uplink.receive(x)[0]).amax(-1))


def value_of(goal: MinRate | MinSinr, sinr: Tensor) -> Tensor:
    """Utility of each user [B, K]: ``SINR / target`` or weighted rate; the goal is the least of them."""
    if isinstance(goal, MinSinr):
        return sinr / goal.target
    return goal.weights * spectral_efficiency(sinr)


def power_bound(problem: Problem, network: Network, target: Tensor, iterations: int = 100) -> Tensor:
    """Lower bound [B] on the power: any uplink power at which no SINR exceeds its target (weak duality).

    From slightly below the powers that `Duality` finds, or otherwise from the powers without interference,
    ``q <- q target/SINR`` increases to the optimum. Infinite for a user without a channel.
    """
    uplink = Uplink.of(network)
    targets = Problem(problem.maximise, (SinrAtLeast(target),))
    dual = Duality().solve_batch(targets, Observation(network), None, None).info["dual"]
    x = (1 - 100 * PRECISION) * dual * network.noise * uplink.gain
    below = (uplink.receive(x)[0] <= target).all(-1, keepdim=True) & torch.isfinite(x).all(-1, keepdim=True)
    x = torch.where(below, x, target)
    for _ in range(iterations):
        after = x * (target / uplink.receive(x)[0]).clamp_min(1)
        converged = (after - x <= PRECISION * x).all()
        x = after
        if converged:
            break
    return (x / uplink.gain).sum(-1) * (1 - PRECISION)
