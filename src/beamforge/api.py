"""`solve`, the library in one call."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from beamforge.core.batching import tree_map
from beamforge.core.errors import ConfigError, ShapeError
from beamforge.core.instance import Instance
from beamforge.core.named_problems import ONLY_FOR, build_problem
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution
from beamforge.core.terms import Number
from beamforge.io.axes import Axes
from beamforge.registry import create


def solve(
    H: Tensor | np.ndarray,
    *,
    noise: Number,
    p_max: Number | None = None,
    problem: str | Problem = "sum-rate",
    method: str | None = None,
    weights: Number | None = None,
    sinr_target: Number | None = None,
    p_max_transmitter: Number | None = None,
    p_max_antenna: Number | None = None,
    jain: float | None = None,
    target_angles: Tensor | np.ndarray | None = None,
    target_gain: Tensor | np.ndarray | None = None,
    sensing_snr_target: Number | None = None,
    sensing_noise: Number | None = None,
    codebook: Tensor | np.ndarray | None = None,
    outage: Number | None = None,
    power: str | None = None,
    axes: str | None = None,
    serving: Tensor | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> Solution:
    """Optimise beams or powers by a method, for one instance or a batch.

    H                   complex [..., K, N] (one transmitter), complex [..., T, K, N] together with `serving` [K] or
                        [..., K], or real power gains G [..., K, K] (rx, tx). With `axes`, complex of any shape.
    noise               watts, scalar or [..., K].
    p_max               watts: the total for one transmitter and for G; with `serving`, the limit of each transmitter
                        (scalar or [..., T]).
    problem             a name ("sum-rate", "max-min", "min-power", "fair-sum-rate", "isac", "hybrid-min-power") or a
                        `Problem`.
    method              a name from `beamforge list methods`; by default the recommended method.
    weights             weights of the rates, [K] or [..., K].
    sinr_target         linear, [K] or [..., K]; 0 for a user without a requirement.
    p_max_transmitter   limit of each transmitter or link in watts, [T] or [..., T].
    p_max_antenna       limit of each antenna in watts, [N], [T, N] or [..., T, N].
    jain                target of fair-sum-rate: mean of Jain's index over the batch, in (1/K, 1].
    target_angles       radians, [M] or [..., M]: sensing targets of isac, which gets N sensing streams.
    target_gain         complex reflection gains of the targets, [M] or [..., M].
    sensing_snr_target  least sensing SNR of every target, linear, scalar or [...].
    sensing_noise       noise power of the sensing receiver in watts, scalar or [...] (default 0.01).
    codebook            analog beams of hybrid-min-power, complex [N, C] or [..., N, C] (default the DFT of N antennas).
    outage              share of users that may miss their SINR target, in the mean over the batch (hybrid-min-power).
    power               what hybrid-min-power minimises: "radiated" (default) or "baseband" power.
    axes                one letter per axis of H, in order (see `beamforge.from_axes`); users may have several antennas.
    checkpoint          a file of trained weights of a learned method, instead of the shipped ones.
    settings            settings of the method, by name.

    Raises a `BeamforgeError` that says what to change. Beams are ``solution.W`` [..., N, D] (powers for G are |W|^2);
    ``solution.rate``, ``solution.sinr`` and ``solution.utility`` are what they achieve. If H is a NumPy array, all of
    these are NumPy arrays.

    >>> H = torch.randn(8, 4, 6, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    >>> solution = solve(H, noise=0.1, p_max=1.0)
    >>> solution.W.shape, solution.rate.shape
    (torch.Size([8, 6, 4]), torch.Size([8, 4]))
    """
    if not isinstance(problem, str | Problem):
        raise ConfigError(f"problem must be a name or a Problem, got {problem!r}")
    if not isinstance(method, str | None):
        raise ConfigError(f"method must be a name or None, got {method!r}")
    if isinstance(weights, str | os.PathLike):
        raise ConfigError(f"weights must be those of the rates; trained weights are checkpoint={os.fspath(weights)!r}")
    as_numpy = isinstance(H, np.ndarray)
    channels: Any = H
    stated: dict[str, Any] = {"p_max": p_max, "weights": weights, "sinr_target": sinr_target, "jain": jain}
    stated |= {"p_max_transmitter": p_max_transmitter, "p_max_antenna": p_max_antenna}
    sensing = {"target_angles": target_angles, "target_gain": target_gain}
    stated |= sensing | {"sensing_snr_target": sensing_snr_target, "sensing_noise": sensing_noise}
    stated |= {"codebook": codebook, "outage": outage, "power": power}
    if as_numpy:
        channels, noise, serving, start = (tensor(each, H) for each in (H, noise, serving, start))
        stated = {name: tensor(value, H) for name, value in stated.items()}
    network = network_of(channels, noise, serving, axes)
    if network.transmitters > 1 and channels.is_complex() and stated["p_max"] is not None:
        if p_max_transmitter is not None:
            raise ConfigError("p_max_transmitter must be left out where p_max limits each of several transmitters")
        stated["p_max_transmitter"] = stated.pop("p_max")
    if problem == "isac" and network.transmitters == 1:
        network = Network.broadcast(network.H.squeeze(-3), network.noise, network.antennas)
    context = {name: value for name, value in stated.items() if value is not None}
    if isinstance(problem, Problem) and context:
        raise ConfigError(f"{' and '.join(context)} must be left out with a Problem, which has its own, got some")
    question = problem if isinstance(problem, Problem) else build_problem(problem, context)
    for name in context:
        if problem not in ONLY_FOR.get(name, (problem,)):
            raise ConfigError(f"{name} must be left out with {problem}, got some")
    if checkpoint is not None:
        settings["checkpoint"] = os.fspath(checkpoint)
    solver = create(question, network, method, settings)
    instance = Instance.perfect(network)
    found = replace(solver.solve(question, instance, start=start, generator=generator), asked=(question, instance))
    return numpy_answer(found) if as_numpy else found


def network_of(H: Tensor, noise: Number, serving: Tensor | None = None, axes: str | None = None) -> Network:
    """The network of a bare tensor: gains G if real, one transmitter if complex, several if `serving` is given."""
    if not isinstance(H, Tensor):
        raise ShapeError(f"H must be a torch tensor or a NumPy array, got {type(H).__name__}")
    if H.layout != torch.strided or H.is_meta:
        raise ShapeError(f"H must be a dense tensor with numbers in it, got one that is {H.layout} on {H.device}")
    finite = torch.isfinite(torch.view_as_real(H.resolve_conj()) if H.is_complex() else H)
    if not finite.all():
        raise ShapeError(f"H must be finite, got NaN or Inf at {tuple((~finite).nonzero()[0].tolist()[: H.ndim])}")
    if not H.is_complex() and (serving is not None or axes is not None):
        name = "serving" if axes is None else "axes"
        raise ShapeError(f"{name} must be left out with power gains G, where transmitter k serves user k, got some")
    if not H.is_complex():
        return Network.power_control(H, noise)
    if axes is not None:
        return network_with_axes(H, noise, serving, axes)
    return Network.broadcast(H, noise) if serving is None else Network.multicell(H, noise, serving)


def network_with_axes(H: Tensor, noise: Number, serving: Tensor | None, axes: str) -> Network:
    """The network of channels whose axes are named; without `serving`, transmitter k of K serves user k."""
    named = Axes(axes)
    arranged = named.arrange(H) if named.numbers_instances else named.arrange(H).squeeze(0)
    *_, T, K, M, _ = arranged.shape
    rows = arranged.flatten(-3, -2)
    if T == 1 and serving is None:
        return Network.broadcast(rows.squeeze(-3), noise, receive_antennas=M)
    if serving is None and T != K:
        raise ShapeError(
            f"serving must be given unless there are 1 or K transmitters, got none for T = {T} and K = {K}"
        )
    return Network.multicell(rows, noise, torch.arange(K) if serving is None else serving, receive_antennas=M)


def tensor(value: Any, like: np.ndarray | Tensor) -> Any:
    """A NumPy array as a tensor, real numbers in the precision of the channels; any other value unchanged."""
    if not isinstance(value, np.ndarray):
        return value
    found = torch.from_numpy(np.ascontiguousarray(value))
    if found.is_complex() or value is like or value.dtype.kind in "iu":
        return found
    precise = like.dtype in (np.complex128, np.float64, torch.complex128, torch.float64)
    return found.to(torch.float64 if precise else torch.float32)


def numpy_answer(solution: Solution) -> Solution:
    """The solution and its report with NumPy arrays in place of tensors."""

    def array(leaf: Tensor) -> Any:
        return leaf.resolve_conj().detach().cpu().numpy()

    report = solution.report
    found = replace(tree_map(array, replace(solution, asked=None)))
    vars(found)["report"] = tree_map(array, report)
    return found
