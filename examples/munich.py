"""Beams for users in the centre of Munich: real geometry in, rates, beams, a table and figures out.

    python examples/munich.py [--out demo]

250 ray-traced snapshots of a rooftop base station with 64 antennas and 16 users come with the package. This asks three
questions of them through the command line, as `beamforge solve` in a shell would: the largest sum rate, the largest
least rate, and the least power that gives every user an SINR of -3 dB. It takes well under a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from beamforge.classical.bounds import bound
from beamforge.cli import main as beamforge
from beamforge.core.constraints import jain_index
from beamforge.core.named_problems import build_problem
from beamforge.io.channels import ChannelFile
from beamforge.plot import rate_cdf
from beamforge.plot.style import png, styled
from beamforge.scenarios.raytraced import AZIMUTH, BASE_STATION, DOWNTILT, site

JOBS = {
    "MRT": ("sum-rate", "mrt"),
    "ZF": ("sum-rate", "zf"),
    "RZF": ("sum-rate", "rzf"),
    "Multipliers": ("sum-rate", "multipliers"),
    "WMMSE": ("sum-rate", "wmmse"),
    "Max-min": ("max-min", "duality"),
    "Min-power": ("min-power", "duality", "--sinr-target-db", "-3"),
}
"""What is asked, by the name it has in the table and the figures."""

ROWS = COLUMNS = 8
"""Of the antenna array; antenna n = column * ROWS + row."""
MARGIN = 25.0
"""Metres between the map and its frame."""
LOBE_DB, LOBE_LENGTH = 20.0, 170.0
"""A lobe's range in decibels, and the length in metres of the strongest one."""

Solution = dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for solutions and figures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with resources.as_file(resources.files("beamforge") / "data" / "munich.npz") as channels:
        solutions = {name: solve(channels, out / f"{name.lower()}.npz", *job) for name, job in JOBS.items()}
        with ChannelFile(channels) as file:
            instance = file.read()
    capacity = bound(build_problem("sum-rate", instance.context), instance.truth).double().numpy()
    position = instance.context["user_position"].numpy()
    typical = np.argsort(solutions["WMMSE"]["utility"])[len(position) // 2]
    pictures = {
        "rates": rate_cdf({name: solution["rate"] for name, solution in solutions.items()}),
        "beams": beams_on_the_map(position[typical], *(solutions["WMMSE"][key][typical] for key in ("rate", "W"))),
    }
    for name, picture in pictures.items():
        (out / f"{name}.png").write_bytes(png(picture))
    Console().print(table(solutions))
    print("Means over the snapshots that have a solution; 5 % of the users have at most the rate in that column.")
    share = 100 * np.mean(solutions["WMMSE"]["utility"] / capacity)
    print(
        f"No beams exceed the dirty-paper capacity, {capacity.mean():.1f} bit/s/Hz; WMMSE reaches {share:.1f} % of it."
    )
    print(f"Solutions, {' and '.join(f'{name}.png' for name in pictures)} are in {out}.")


def solve(channels: Path, out: Path, problem: str, method: str, *options: str) -> Solution:
    """What ``beamforge solve`` writes."""
    command = ["solve", str(channels), "--problem", problem, "--method", method, *options, "--out", str(out)]
    print("$ beamforge", shlex.join([os.path.relpath(word) if word == str(channels) else word for word in command]))
    with contextlib.redirect_stdout(io.StringIO()):
        status = beamforge(command)
    if status:
        sys.exit(status)
    with np.load(out, allow_pickle=False) as file:
        return dict(file)


def table(solutions: dict[str, Solution]) -> Table:
    """Means over the snapshots that have a solution."""
    found = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    found.add_column("Problem", no_wrap=True)
    found.add_column("Method", no_wrap=True)
    units = {
        "Sum rate": "bit/s/Hz",
        "5 % user": "bit/s/Hz",
        "Jain": "index",
        "Power": "W",
        "Infeas.": "%",
        "Time": "s",
    }
    for heading, unit in units.items():
        found.add_column(f"{heading}\n{unit}", justify="right", no_wrap=True)
    for name, (problem, method, *_) in JOBS.items():
        solution = solutions[name]
        solved = np.isfinite(solution["utility"])
        rate, power = solution["rate"][solved], squared(solution["W"][solved]).sum((-2, -1))
        figures = (
            f"{rate.sum(-1).mean():.1f}",
            f"{np.percentile(rate, 5):.3f}",
            f"{jain_index(torch.from_numpy(rate)).mean():.2f}",
            f"{power.mean():.3f}",
            f"{100 * np.mean(~solved):.1f}",
            f"{solution['seconds']:.{0 if solution['seconds'] >= 10 else 2}f}",
        )
        found.add_row(problem, method, *figures)
    return found


def squared(W: np.ndarray) -> np.ndarray:
    return W.real**2 + W.imag**2


# --- the map ---------------------------------------------------------------------------------------------------------
@styled
def beams_on_the_map(position: np.ndarray, rate: np.ndarray, W: np.ndarray) -> Figure:
    """Users at `position` [K, 3] coloured by their `rate` [K], and the beams W [N, K] as lobes around the base station.

    A lobe shows the power that its beam radiates by azimuth, the strongest over elevation, in decibels. Lobes have the
    numbers of their users.
    """
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    ax = figure.subplots()
    ground = site()
    ax.contourf(ground["x"], ground["y"], ground["height"] > 0.1, levels=[0.5, 1.5], colors=["#dedede"])
    colour = ScalarMappable(Normalize(0, np.ceil(rate.max())), "viridis")
    served = squared(W).sum(0) > 1e-6 * squared(W).sum()
    azimuth, power_db = lobes(W)
    numbers = np.arange(1, len(rate) + 1)
    written = {"ha": "center", "va": "center", "fontsize": 7, "zorder": 5}
    for number, beam_db, shade in zip(numbers[served], power_db.T[served], colour.to_rgba(rate[served]), strict=True):
        radius = LOBE_LENGTH * np.clip(1 + (beam_db - power_db.max()) / LOBE_DB, 0, None)
        x, y = BASE_STATION[0] + radius * np.cos(azimuth), BASE_STATION[1] + radius * np.sin(azimuth)
        ax.fill(x, y, facecolor=(*shade[:3], 0.15), edgecolor=shade, linewidth=1.0)
        tip = beam_db.argmax()
        beyond = 8 * np.array([np.cos(azimuth[tip]), np.sin(azimuth[tip])])
        ax.annotate(str(number), (x[tip] + beyond[0], y[tip] + beyond[1]), **written)
    for number, place in zip(numbers, position, strict=True):
        ax.annotate(str(number), (place[0] + 13, place[1] + 9), **written)
    dot = {"s": 44, "edgecolor": "black", "linewidth": 0.8, "zorder": 3}
    ax.scatter(*position[served, :2].T, color=colour.to_rgba(rate[served]), label="User served", **dot)
    ax.scatter(*position[~served, :2].T, color="white", label="User not served", **dot)
    ax.plot(*BASE_STATION[:2], "^", color="black", markersize=9, zorder=4, label="Base station", linestyle="none")
    ax.fill([], [], facecolor=(0, 0, 0, 0.1), edgecolor="black", label=f"Beam, {LOBE_DB:g} dB from end to centre")
    figure.colorbar(colour, ax=ax, label="User rate (bit/s/Hz)", shrink=0.75)
    figure.legend(loc="outside upper center", ncols=4, handletextpad=0.4, columnspacing=1.2)
    limits = {}
    for axis, place in (("x", position[:, 0]), ("y", position[:, 1])):
        shown = np.append(ground[axis], place)
        limits[f"{axis}lim"] = shown.min() - MARGIN, shown.max() + MARGIN
    ax.set(xlabel="East (m)", ylabel="North (m)", aspect="equal", **limits)
    ax.set_title("Beams of WMMSE in the centre of Munich, a typical snapshot", fontsize=9)
    ax.grid(visible=False)
    return figure


def lobes(W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Azimuths [A], counter-clockwise from east, and the power radiated there by each beam [A, K], dB.

    ``max_theta g(u) |a(u)^T w_k|^2`` over directions u down to 60 degrees below the horizon, ``a_n = e^{2 pi j u.r_n}``
    for an antenna r_n wavelengths from the centre, and the element gain g of TR 38.901, Table 7.3-1, without its peak.
    """
    azimuth, elevation = np.meshgrid(np.radians(np.arange(0, 360.5, 0.5)), np.radians(np.arange(-60, 1)), indexing="ij")
    east, north, up = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)
    forward, left = east * np.cos(AZIMUTH) + north * np.sin(AZIMUTH), north * np.cos(AZIMUTH) - east * np.sin(AZIMUTH)
    forward, up = forward * np.cos(DOWNTILT) - up * np.sin(DOWNTILT), up * np.cos(DOWNTILT) + forward * np.sin(DOWNTILT)
    column, row = np.divmod(np.arange(ROWS * COLUMNS), ROWS)
    phase = left[..., None] * (column - (COLUMNS - 1) / 2) - up[..., None] * (row - (ROWS - 1) / 2)
    off_axis = np.degrees(np.arctan2(left, forward)), np.degrees(np.arcsin(np.clip(up, -1, 1)))
    loss_db = np.minimum(sum(np.minimum(12 * (angle / 65) ** 2, 30) for angle in off_axis), 30)
    radiated = squared(np.exp(1j * np.pi * phase) @ W) * 10 ** (-loss_db[..., None] / 10)
    return azimuth[:, 0], 10 * np.log10(radiated.max(1) + 1e-12)


if __name__ == "__main__":
    main()
