"""Smaller equivalent problems: without users whose SINR target is 0, and without antennas whose limit is 0.

A method then gets positive targets and limits only; its solution is extended to the original problem.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from beamforge.core import batching
from beamforge.core.beams import Factors
from beamforge.core.constraints import Constraint, PerAntennaPower, PerTransmitterPower
from beamforge.core.context import CONTEXT
from beamforge.core.errors import UnsupportedProblem
from beamforge.core.network import Network
from beamforge.core.observation import Observation
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.core.streams import Streams
from beamforge.core.terms import Bound

NEGLIGIBLE = 1e-6
"""Positive limit that replaces a limit of 0, as a share of the mean positive limit."""

Answer = Callable[[Problem, Observation, Tensor | None], Solution]
"""Solves [B, ...] instances of a bound problem, from a start if it is not None."""


def users_with_targets(problem: Problem) -> Tensor | None:
    """Boolean [B, K]: users with a positive SINR target; None if all have one or the problem has no targets."""
    targets = [term.target for term in (problem.maximise, *problem.subject_to) if hasattr(term, "target")]
    if not targets or all((target > 0).all() for target in targets):
        return None
    return torch.stack(torch.broadcast_tensors(*targets)).amax(0) > 0


def solve_users(
    answer: Answer, problem: Problem, observation: Observation, start: Tensor | None, keep: Tensor
) -> Solution:
    """The solution for the users `keep` [B, K] alone; instances that keep the same users are solved together.

    Streams of the other users get zero beams. The method's trace and info are left out.
    """
    network = observation.network
    if network.streams.user is not None:
        raise UnsupportedProblem("users can be left out only if stream k carries the data of user k, got other streams")
    B, D = network.streams.transmitter.shape
    W = network.H.new_zeros(B, network.antennas, D)
    status = torch.zeros(B, dtype=torch.long, device=W.device)
    iterations, factors = status, None
    patterns, which = keep.unique(dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        rows = (which == number).nonzero().squeeze(-1)
        if not pattern.any():
            continue
        part = batching.take((problem, observation), rows)
        streams = torch.cat([pattern, pattern.new_ones(D - len(pattern))]).nonzero().squeeze(-1)
        begun = None if start is None else start[rows][..., streams]
        found = answer(*without_users(*part, pattern), begun)
        whole = network.H.new_zeros(len(rows), network.antennas, D).index_copy(2, streams, found.W)
        W = W.index_copy(0, rows, whole)
        status, iterations = status.index_copy(0, rows, found.status), iterations.index_copy(0, rows, found.iterations)
        if found.factors is not None:
            factors = with_factors(factors, found.factors, rows, streams, (B, D))
    return Solution(W, status, iterations, factors=factors)


def with_factors(
    whole: Factors | None, found: Factors, rows: Tensor, streams: Tensor, shape: tuple[int, int]
) -> Factors:
    """Factors of all [B, D] instances and streams (zero at first) with those found for some rows and streams."""
    B, D = shape
    if whole is None:
        codeword = None if found.codeword is None else found.codeword.new_zeros(B, *found.codeword.shape[1:])
        B_zero, p_zero = (x.new_zeros(B, *x.shape[1:-1], D) for x in (found.digital, found.power))
        whole = Factors(found.analog.new_zeros(B, *found.analog.shape[1:]), B_zero, p_zero, codeword)
    digital, power = (
        x.new_zeros(len(rows), *x.shape[1:-1], D).index_copy(-1, streams, x) for x in (found.digital, found.power)
    )
    return Factors(
        whole.analog.index_copy(0, rows, found.analog),
        whole.digital.index_copy(0, rows, digital),
        whole.power.index_copy(0, rows, power),
        None
        if found.codeword is None or whole.codeword is None
        else whole.codeword.index_copy(0, rows, found.codeword),
    )


def without_users(problem: Problem, observation: Observation, keep: Tensor) -> tuple[Problem, Observation]:
    """A batched problem with the users `keep` [K] alone; of links, the other users' transmitters are left out too."""
    network = observation.network
    users = keep.nonzero().squeeze(-1)
    extra = keep.new_ones(network.streams.count - network.users)
    transmitter = network.streams.transmitter[..., torch.cat([keep, extra]).nonzero().squeeze(-1)]
    axes = {"users": users}
    M = network.receive_antennas
    rows = (users.unsqueeze(-1) * M + torch.arange(M, device=users.device)).flatten()
    H = network.H[..., rows, :]
    links = network.transmitters == network.users and not len(extra)
    if links and (network.streams.transmitter == torch.arange(network.users, device=users.device)).all():
        H, axes["transmitters"] = H[..., users, :, :], users
        transmitter = torch.arange(len(users), device=users.device).expand(transmitter.shape)
    reduced = Network(H, network.noise[..., users], Streams(transmitter), M)
    limits = tuple(selected(limit, axes) for limit in problem.subject_to)
    context = {name: of_users(name, value, axes) for name, value in observation.context.items()}
    return Problem(selected(problem.maximise, axes), limits), Observation(reduced, context)


def of_users(name: str, value: Tensor, axes: dict[str, Tensor]) -> Tensor:
    """An entry [B, ...] of a context with the entries `axes[name]` of its axes of users and transmitters."""
    letters = {"K": "users", "T": "transmitters"}
    shape = next(shape for shape in CONTEXT[name].shapes if len(shape) == value.ndim - 1)
    for place, letter in enumerate(shape):
        if letters.get(letter) in axes:
            value = value.index_select(place - len(shape), axes[letters[letter]])
    return value


def selected(term: Bound, axes: dict[str, Tensor]) -> Bound:
    """A bound term with the entries `axes[name]` of each named axis, in that order."""
    changed: dict[str, Tensor] = {}
    for item in dataclasses.fields(term):
        names, value = item.metadata["axes"], getattr(term, item.name)
        for place, name in enumerate(names):
            if name in axes:
                value = value.index_select(place - len(names), axes[name])
        changed[item.name] = value
    return replace(term, **changed)


def disable_antennas(problem: Problem, network: Network) -> tuple[Problem, Network, Tensor | None]:
    """The problem without antennas and transmitters whose limit is 0, and the enabled antennas [B, T, N].

    Channels of disabled antennas are set to zero, so that power there gains nothing. Their limits are set to
    `NEGLIGIBLE` times the mean of the others (1 if there are none), so that the sum of the limits hardly changes. The
    mask is None if all antennas are enabled.
    """
    kinds = (PerTransmitterPower, PerAntennaPower)
    if not any(isinstance(limit, kinds) and (limit.limit == 0).any() for limit in problem.subject_to):
        return problem, network, None
    off = torch.zeros_like(network.H.real[..., 0, :], dtype=torch.bool)
    limits: list[Constraint] = []
    for limit in problem.subject_to:
        if isinstance(limit, kinds) and (limit.limit == 0).any():
            zero, positive = limit.limit == 0, limit.limit > 0
            dims = tuple(range(len(network.batch_shape), limit.limit.ndim))
            mean = limit.limit.sum(dims, keepdim=True) / positive.sum(dims, keepdim=True).clamp_min(1)
            small = torch.where(mean > 0, NEGLIGIBLE * mean, 1).expand_as(limit.limit)
            limits.append(replace(limit, limit=torch.where(zero, small, limit.limit)))
            off = off | (zero.unsqueeze(-1) if isinstance(limit, PerTransmitterPower) else zero)
        else:
            limits.append(limit)
    H = network.H.masked_fill(off.unsqueeze(-2), 0)
    return replace(problem, subject_to=tuple(limits)), replace(network, H=H), ~off


def zero_disabled(network: Network, W: Tensor, enabled: Tensor) -> Tensor:
    """Beams W [..., N, D] with exact zeros at the antennas that are not `enabled` [..., T, N]."""
    return W * torch.take_along_dim(enabled, network.streams.transmitter.unsqueeze(-1), -2).mT
