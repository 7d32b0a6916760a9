"""The beam pattern: transmitted power by angle, with the directions of users and targets."""

from __future__ import annotations

import math
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from beamforge.core.errors import ShapeError
from beamforge.core.network import Network, squared_magnitude
from beamforge.core.problem import Problem
from beamforge.core.sensing import SensingSnrAtLeast, Targets, steering
from beamforge.plot.style import COLOURS, DASHES, styled

ANGLES = 1441
"""Number of angles from -90 to 90 degrees, an eighth of a degree apart."""

DEPTH_DB, MARGIN_DB = 45.0, 6.0
"""Largest range of the vertical axis, and its margin below the smallest power."""

MIN_SENSING_SHARE = 1e-4
"""Smallest share of the power for which sensing streams have their own line."""


def power_towards(W: Tensor, angle: Tensor) -> Tensor:
    """``|a(theta)^H W|^2`` in watts [..., A] of beams W [..., N, D] at angles [..., A] in radians, a of norm one.

    Raises `ShapeError` for angles that are not real.

    >>> power_towards(torch.eye(4, dtype=torch.complex128), torch.tensor([0.0, 0.5], dtype=torch.float64))
    tensor([1., 1.], dtype=torch.float64)
    """
    if angle.is_complex():
        raise ShapeError("angle must be real radians, got complex numbers")
    return squared_magnitude(steering(angle, W.shape[-2]).mH @ W.resolve_conj()).sum(-1)


def strongest_direction(H: Tensor) -> Tensor:
    """Angles [K] in radians of the steered beams with the highest gain to the users, H [K, N] with rows h_k^H."""
    angle = torch.linspace(-math.pi / 2, math.pi / 2, ANGLES, dtype=H.real.dtype, device=H.device)
    return angle[squared_magnitude(H @ steering(angle, H.shape[-1])).argmax(-1)]


@styled
def beam_pattern(problem: Problem, network: Network, W: Tensor, instance: int = 0) -> Figure:
    """Power by angle, of data and of sensing streams, for one instance of a batch.

    A uniform linear array with half-wavelength spacing is assumed. Dotted lines are the directions of the targets,
    triangles the power that each requires for its sensing SNR, ticks at the bottom the strongest directions of the
    users.

    problem   bound to the network; its targets are marked, if it has any.
    network   one transmitter, with a batch dimension.
    W         beams [B, N, D].
    instance  index in the batch.

    Raises `ShapeError` for several transmitters or a single antenna.
    """
    if network.transmitters > 1 or network.antennas < 2:
        came = f"{network.transmitters} with {network.antennas} antennas"
        raise ShapeError(f"a beam pattern requires one transmitter with several antennas, got {came}")
    W, H = W[instance].detach(), network.channel[instance]
    angle = torch.linspace(-math.pi / 2, math.pi / 2, ANGLES, dtype=W.real.dtype, device=W.device)
    user = network.streams.user
    carries = torch.arange(W.shape[-1], device=W.device) < network.users if user is None else user[instance] >= 0
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    ax = figure.subplots()
    parts: dict[str, tuple[Tensor, Any]] = {"all streams": (W, {"color": COLOURS[6]})}
    if squared_magnitude(W[:, ~carries]).sum() > MIN_SENSING_SHARE * squared_magnitude(W).sum():
        parts["data"] = W[:, carries], {"color": COLOURS[0], "linewidth": 1.1}
        parts["sensing"] = W[:, ~carries], {"color": COLOURS[1], "linestyle": DASHES[1], "linewidth": 1.1}
    degrees = angle.rad2deg().cpu()
    for name, (beams, style) in parts.items():
        ax.plot(degrees, decibels(power_towards(beams, angle)).cpu(), label=name, **style)
    needed = mark_targets(ax, targets_of(problem), instance).tolist()
    total = decibels(power_towards(W, angle))
    top = max([total.amax().item(), *needed]) + 3
    floor = max(min([total.amin().item(), *needed]) - MARGIN_DB, top - DEPTH_DB)
    directions = strongest_direction(H).rad2deg().cpu()
    ax.plot(
        directions,
        [floor + 0.02 * (top - floor)] * len(directions),
        "|",
        color=COLOURS[2],
        markersize=9,
        markeredgewidth=1.6,
        label="users, strongest direction",
    )
    ax.set(xlim=(-90, 90), xlabel="Angle (degrees)", ylabel="Power towards angle (dBW)")
    ax.set_ylim(floor, top)
    ax.set_xticks(range(-90, 91, 30))
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def targets_of(problem: Problem) -> Targets | None:
    """The sensing targets of a problem, None if it has none."""
    terms = (problem.maximise, *problem.subject_to)
    return next((term for term in terms if isinstance(term, Targets)), None)


def mark_targets(ax: Axes, targets: Targets | None, instance: int) -> Tensor:
    """Mark the targets by lines and the power required for their sensing SNRs by triangles; returns it in dBW."""
    if targets is None:
        return torch.zeros(0)
    angle = targets.angle[instance].rad2deg().cpu()
    for place, one in enumerate(angle.tolist()):
        ax.axvline(one, color="#888888", linewidth=0.8, linestyle=":", label=None if place else "targets")
    if not isinstance(targets, SensingSnrAtLeast):
        return torch.zeros(0)
    gain = targets.gain[instance].abs().square() / targets.noise[instance]
    need = decibels(targets.level[instance] / gain).cpu().expand_as(angle)
    ax.plot(angle, need, "v", color=COLOURS[3], markersize=6, label="power required by a target")
    return need[need.isfinite()]


def decibels(watts: Tensor) -> Tensor:
    """Watts in dBW."""
    return 10 * watts.clamp_min(1e-30).log10()
