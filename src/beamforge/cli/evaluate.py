"""``beamforge evaluate``: evaluates beams or powers from any source on a channel file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from beamforge.classical.bounds import bound
from beamforge.cli.blocked import for_reachable_users, kept_streams
from beamforge.cli.output import progress, summarise
from beamforge.cli.request import Request, problem_options
from beamforge.core import batching
from beamforge.core.beams import Beams
from beamforge.core.constraints import MeanConstraint
from beamforge.core.errors import ConfigError
from beamforge.core.evaluate import Report, evaluate, names
from beamforge.core.instance import Instance
from beamforge.core.problem import Problem
from beamforge.core.settings import device_of
from beamforge.core.solution import Status
from beamforge.io.solutions import STATED_TYPES, STATUS_NAMES, SolutionFile, stated_request
from beamforge.io.writers import check_writable, partial_path
from beamforge.plot.beam_pattern import beam_pattern
from beamforge.plot.style import png


@click.command("evaluate")
@click.argument("channels", type=click.Path())
@click.argument("solution", type=click.Path())
@click.option("--problem", help="Problem to evaluate; by default that of the solution file, else sum-rate.")
@problem_options
@click.option("--figure", type=click.Path(), metavar="FILE.png", help="Draw the beam pattern of the first instance.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def command(channels: str, solution: str, device: str, figure: str | None, as_json: bool, **given: Any) -> None:
    """Evaluate SOLUTION, with W [B, N, D] or p [B, K] from any source, on CHANNELS.

    A solution of `beamforge solve` contains the options it was made with; options given here override them. The
    evaluation has the precision of the solution, and limits have a tolerance of 1e-4 (single) or 1e-7 (double). Means
    leave out the instances that the solution flags as infeasible or failed. `--figure` draws the transmit power over
    angle of a uniform linear array with half-wavelength spacing, for the first instance that has beams.
    """
    if figure is not None:
        check_writable(Path(figure), (".png",))
    request = request_of(given, stated_request(solution))
    place = device_of(device)
    scores: dict[str, list[Tensor]] = {}
    with request.open(channels) as source, SolutionFile(solution, source) as beams, progress() as bar:
        task, codes, picture = bar.add_task("evaluating", total=source.count), beams.statuses(), b""
        for first, count in source.chunks():
            instance = source.read(first, count, dtype=beams.dtype, device=place)
            instance = replace(instance, truth=beams.network(instance.truth, first, count))
            problem, W = request.build(instance.context), beams.beams(first, count).to(place)
            if request.drop_blocked:
                found = without_blocked(problem, instance, W)
            else:
                factors = batching.tree_map(lambda leaf: leaf.to(place), beams.factors(first, count))
                found = figures(problem, instance, evaluate(problem, instance, Beams(W, factors)))
            for name, value in found.items():
                scores.setdefault(name, []).append(value.cpu())
            if figure is not None and not picture:
                picture = drawn(problem, instance, W, codes, first)
            bar.update(task, advance=count)
        by_estimate = source.main == "H_estimate"
    if figure is not None:
        if not picture:
            raise ConfigError(f"figure must be of an instance that has beams, got none in {solution}")
        partial_path(Path(figure)).write_bytes(picture)
        partial_path(Path(figure)).replace(figure)
    table = {name: torch.cat(values).double().numpy() for name, values in scores.items()}
    report_of = {"problem": request.problem, "count": len(table["utility"]), "unit": problem.maximise.unit}
    summarise(report_of | summary(table, codes) | {"scored_on": "H_estimate" if by_estimate else None}, as_json=as_json)


def drawn(problem: Problem, instance: Instance, W: Tensor, codes: np.ndarray | None, first: int) -> bytes:
    """The beam pattern, as PNG, of the first instance of a batch that has beams; empty if none has."""
    some = range(len(W)) if codes is None else np.flatnonzero(codes[first : first + len(W)] <= Status.MAX_ITERATIONS)
    if len(some) == 0:
        return b""
    return png(beam_pattern(problem.bind(instance.truth), instance.truth, W, int(some[0])))


PROBLEMS_OWN = ("sinr_target_db", "jain", "drop_blocked", "sensing_snr_db", "sensing_weight", "outage", "power")
"""Options that apply to one problem only."""


def request_of(given: dict[str, Any], stated: dict[str, Any]) -> Request:
    """The request for the evaluation: the given options, else those stated in the solution."""
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    known = {name: stated[name] for name in STATED_TYPES if name in stated}
    if given.get("problem", known.get("problem")) != known.get("problem"):
        known = {name: value for name, value in known.items() if name not in PROBLEMS_OWN}
    merged: dict[str, Any] = {"problem": "sum-rate"} | known | given
    return Request(**merged)


def without_blocked(problem: Problem, instance: Instance, W: Tensor) -> dict[str, Tensor]:
    """`figures` for the users that have a channel."""

    def ask(part: Problem, some: Instance, rows: Tensor, pattern: Tensor) -> dict[str, np.ndarray]:
        kept = kept_streams(pattern, W.shape[-1] - len(pattern))
        found = figures(part, some, evaluate(part, some, W[rows][..., kept]))
        return {name: value.cpu().numpy() for name, value in found.items()}

    found = for_reachable_users(problem, instance, ask)
    return {name: torch.from_numpy(value) for name, value in found.items()}


def figures(problem: Problem, instance: Instance, report: Report) -> dict[str, Tensor]:
    """Figures of each instance, [B] each."""
    found = {
        "utility": report.utility,
        "sum_rate": report.rate.sum(-1),
        "least_rate": report.rate.amin(-1),
        "jain": report.jain,
        "power": report.power.sum(-1),
        "feasible": report.feasible,
        "bound": bound(problem, instance.truth),
    }
    named = zip(names(problem.subject_to), problem.subject_to, strict=True)
    means = [name for name, limit in named if isinstance(limit, MeanConstraint)]
    found |= {name: value for name, value in report.figures.items() if name == "outage"}
    return found | {
        f"{'mean' if name in means else 'largest'} violation {name}": value for name, value in report.violation.items()
    }


def outage_of(table: dict[str, np.ndarray], solved: np.ndarray) -> dict[str, float]:
    """The mean outage, if the problem has one; all users of an instance without beams are in outage."""
    return {"mean_outage": float(np.where(solved, table["outage"], 1).mean())} if "outage" in table else {}


def summary(table: dict[str, np.ndarray], codes: np.ndarray | None) -> dict[str, Any]:
    """Means over the instances with beams, and the largest excess over each limit (for a mean, that of the mean)."""
    kept = np.ones(len(table["utility"]), bool) if codes is None else codes <= Status.MAX_ITERATIONS
    counted = Counter([] if codes is None else codes.tolist())

    def mean(name: str) -> float:
        return float(table[name][kept].mean()) if kept.any() else float("nan")

    bounded = kept & np.isfinite(table["bound"])
    ratio = table["utility"][bounded].sum() / table["bound"][bounded].sum() if bounded.any() else np.nan

    def excess(which: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(which): value[kept] for name, value in table.items() if name.startswith(which)}

    return {
        "status": {name: counted[code] for code, name in enumerate(STATUS_NAMES) if counted[code]},
        "mean_utility": mean("utility"),
        "mean_bound": float(table["bound"][bounded].mean()) if bounded.any() else float("nan"),
        "utility_over_bound": float(ratio),
        "mean_sum_rate": mean("sum_rate"),
        "mean_least_rate": mean("least_rate"),
        "mean_jain": mean("jain"),
        "mean_power": mean("power"),
        **outage_of(table, kept),
        "feasible_share": float(table["feasible"].mean()),
        "largest_violation": {
            **{name: float(value.max(initial=-np.inf)) for name, value in excess("largest violation ").items()},
            **{name: float(value.mean()) for name, value in excess("mean violation ").items() if len(value)},
        },
    }
