"""The whole library in one call."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from beamforge.core.errors import ConfigError, ShapeError
from beamforge.core.instance import Instance
from beamforge.core.named_problems import ONLY_FOR, build_problem
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.core.terms import Number
from beamforge.registry import create


def solve(
    H: Tensor,
    *,
    noise: Number,
    p_max: Number | None = None,
    problem: str | Problem = "sum-rate",
    method: str | None = None,
    weights: Number | None = None,
    sinr_target: Number | None = None,
    p_max_antenna: Number | None = None,
    jain: float | None = None,
    serving: Tensor | None = None,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> Solution:
    """The best beams or powers that a method finds, for one instance or a batch.

    H              complex [..., K, N] (one transmitter), complex [..., T, K, N] together with `serving` [K] or
                   [..., K], or real power gains G [..., K, K] (rx, tx).
    noise          watts, scalar or [..., K].
    p_max          watts: the total for one transmitter and for G, the limit of each with `serving` (scalar or
                   [..., T]).
    problem        a name ("sum-rate", "max-min", "min-power", "fair-sum-rate") or a `Problem`.
    method         a name from `beamforge list methods`; left out, the recommended one for the problem and network.
    weights        of the rates, [K] or [..., K].      sinr_target   linear, [K] or [..., K].
    p_max_antenna  watts, [N], [T, N] or [..., T, N].  settings      of the method, by name.
    jain           mean of Jain's index over the batch that fair-sum-rate is to meet, in (1/K, 1].

    Raises a `BeamforgeError` that says what to change. Beams are ``solution.W`` [..., N, K] (powers of G
    are |W|^2), and ``solution.rate``, ``solution.sinr`` and ``solution.utility`` say what they achieve.

    >>> H = torch.randn(8, 4, 6, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    >>> solution = solve(H, noise=0.1, p_max=1.0)
    >>> solution.W.shape
    torch.Size([8, 6, 4])
    """
    network = network_of(H, noise, serving)
    if not isinstance(problem, str | Problem):
        raise ConfigError(f"problem must be a name or a Problem, got {problem!r}")
    if not isinstance(method, str | None):
        raise ConfigError(f"method must be a name or None, got {method!r}")
    if isinstance(weights, str | os.PathLike):
        given = f'beamforge.registry.create(problem, network, method, {{"weights": "{os.fspath(weights)}"}})'
        raise ConfigError(f"weights must be numbers, those of the rates, got {weights!r}; trained ones go into {given}")
    limit = "p_max" if serving is None else "p_max_transmitter"
    stated = {limit: p_max, "weights": weights, "sinr_target": sinr_target, "p_max_antenna": p_max_antenna}
    stated["jain"] = jain
    context = {name: value for name, value in stated.items() if value is not None}
    if isinstance(problem, Problem) and context:
        raise ConfigError(f"{' and '.join(context)} must be left out with a Problem, which has its own, got some")
    question = problem if isinstance(problem, Problem) else build_problem(problem, context)
    for name in context:
        if problem not in ONLY_FOR.get(name, (problem,)):
            raise ConfigError(f"{name} must be left out with {problem}, got some")
    solver = create(question, network, method, settings)
    instance = Instance.perfect(network)
    return replace(solver.solve(question, instance, start=start, generator=generator), asked=(question, instance))


def network_of(H: Tensor, noise: Number, serving: Tensor | None = None) -> Network:
    """The network a bare tensor means: G if real, one transmitter if complex, several where `serving` says who."""
    if not isinstance(H, Tensor):
        raise ShapeError(f"H must be a torch tensor, got {type(H).__name__}")
    if H.layout != torch.strided or H.is_meta:
        raise ShapeError(f"H must be a dense tensor with numbers in it, got one that is {H.layout} on {H.device}")
    finite = torch.isfinite(torch.view_as_real(H.resolve_conj()) if H.is_complex() else H)
    if not finite.all():
        raise ShapeError(f"H must be finite, got NaN or Inf at {tuple((~finite).nonzero()[0].tolist()[: H.ndim])}")
    if not H.is_complex() and serving is not None:
        raise ShapeError("serving must be left out with power gains G, where transmitter k serves user k, got some")
    if not H.is_complex():
        return Network.power_control(H, noise)
    return Network.broadcast(H, noise) if serving is None else Network.multicell(H, noise, serving)
