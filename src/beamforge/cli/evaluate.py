"""``beamforge evaluate``: anybody's beams or powers, scored on a channel file."""

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
from beamforge.cli.blocked import of_reachable_users, with_extra
from beamforge.cli.output import progress, summarise
from beamforge.cli.request import Request, stating
from beamforge.core.constraints import MeanConstraint
from beamforge.core.errors import ConfigError
from beamforge.core.evaluate import Report, evaluate, names
from beamforge.core.instance import Instance
from beamforge.core.problem import Problem
from beamforge.core.settings import device_of
from beamforge.core.solution import Status
from beamforge.io.solutions import STATED, STATUS_NAMES, SolutionFile, stated_for
from beamforge.io.writers import beside, check_writable
from beamforge.plot.beam_pattern import beam_pattern
from beamforge.plot.style import png


@click.command("evaluate")
@click.argument("channels", type=click.Path())
@click.argument("solution", type=click.Path())
@click.option("--problem", help="What to score; by default what the solution says it was made for, else sum-rate.")
@stating
@click.option("--figure", type=click.Path(), metavar="FILE.png", help="Draw the beam pattern of the first instance.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def command(channels: str, solution: str, device: str, figure: str | None, as_json: bool, **given: Any) -> None:
    """Score SOLUTION, with W [B, N, D] or p [B, K] from any source, on CHANNELS.

    A solution made by `beamforge solve` tells what was stated for it; options given here go before that. Everything is
    computed in the precision of the solution, and limits hold to 1e-4 (single) or 1e-7 (double). Means are over the
    instances that the solution does not itself flag as infeasible or failed. A figure shows the power towards every
    angle of a uniform linear array at half a wavelength, for the first instance that has beams.
    """
    if figure is not None:
        check_writable(Path(figure), (".png",))
    request = restate(given, stated_for(solution))
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
                found = figures(problem, instance, evaluate(problem, instance, W))
            for name, value in found.items():
                scores.setdefault(name, []).append(value.cpu())
            if figure is not None and not picture:
                picture = drawn(problem, instance, W, codes, first)
            bar.update(task, advance=count)
        by_estimate = source.main == "H_estimate"
    if figure is not None:
        if not picture:
            raise ConfigError(f"figure must be of an instance that has beams, got none in {solution}")
        beside(Path(figure)).write_bytes(picture)
        beside(Path(figure)).replace(figure)
    table = {name: torch.cat(values).double().numpy() for name, values in scores.items()}
    report_of = {"problem": request.problem, "count": len(table["utility"]), "unit": problem.maximise.unit}
    summarise(report_of | summary(table, codes) | {"scored_on": "H_estimate" if by_estimate else None}, as_json=as_json)


def drawn(problem: Problem, instance: Instance, W: Tensor, codes: np.ndarray | None, first: int) -> bytes:
    """The beam pattern of the first instance of a piece that has beams, as PNG; nothing if none has."""
    some = range(len(W)) if codes is None else np.flatnonzero(codes[first : first + len(W)] <= Status.MAX_ITERATIONS)
    if len(some) == 0:
        return b""
    return png(beam_pattern(problem.bind(instance.truth), instance.truth, W, int(some[0])))


PROBLEMS_OWN = ("sinr_target_db", "jain", "drop_blocked", "sensing_snr_db", "sensing_weight")
"""What was stated for one problem and says nothing of another."""


def restate(given: dict[str, Any], stated: dict[str, Any]) -> Request:
    """The request that a solution is scored by: what is given, else what was stated when it was made."""
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    known = {name: stated[name] for name in STATED if name in stated}
    if given.get("problem", known.get("problem")) != known.get("problem"):
        known = {name: value for name, value in known.items() if name not in PROBLEMS_OWN}
    merged: dict[str, Any] = {"problem": "sum-rate"} | known | given
    return Request(**merged)


def without_blocked(problem: Problem, instance: Instance, W: Tensor) -> dict[str, Tensor]:
    """`figures` for the users that have a channel."""

    def ask(part: Problem, some: Instance, rows: Tensor, pattern: Tensor) -> dict[str, np.ndarray]:
        kept = with_extra(pattern, W.shape[-1] - len(pattern))
        found = figures(part, some, evaluate(part, some, W[rows][..., kept]))
        return {name: value.cpu().numpy() for name, value in found.items()}

    found = of_reachable_users(problem, instance, ask)
    return {name: torch.from_numpy(value) for name, value in found.items()}


def figures(problem: Problem, instance: Instance, report: Report) -> dict[str, Tensor]:
    """What is reported of each instance, [B] each."""
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
    return found | {
        f"{'mean' if name in means else 'largest'} violation {name}": value for name, value in report.violation.items()
    }


def summary(table: dict[str, np.ndarray], codes: np.ndarray | None) -> dict[str, Any]:
    """Means over the instances that have beams, and the worst excess over each limit (of a mean, that of the mean)."""
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
        "feasible_share": float(table["feasible"].mean()),
        "largest_violation": {
            **{name: float(value.max(initial=-np.inf)) for name, value in excess("largest violation ").items()},
            **{name: float(value.mean()) for name, value in excess("mean violation ").items() if len(value)},
        },
    }
