"""``beamforge bench``: compares methods on a shipped suite, or on a channel file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from beamforge.bench.comparison import Comparison, compare
from beamforge.bench.report import cells, headings, write_report
from beamforge.bench.suites import SUITES, Candidate, Suite, find_suite
from beamforge.cli.output import progress
from beamforge.cli.request import Request, pairs, problem_options
from beamforge.core.errors import ConfigError, unknown
from beamforge.core.instance import Instance
from beamforge.core.named_problems import PROBLEMS
from beamforge.core.problem import Problem
from beamforge.registry import METHODS, methods_for
from beamforge.scenarios.base import Scenario

PIPE_WIDTH = 160
"""Characters per line if the output is not a terminal."""


OBVIOUS = ("mrt", "zf", "rzf", "multipliers")
"""Methods that a channel file's comparison has beside the recommended one, where they serve the problem."""


@click.command("bench", epilog=f"Suites: {', '.join(SUITES)}.")
@click.argument("source", metavar="SUITE|CHANNELS")
@click.option("--problem", help="Problem to compare methods on, with a channel file; see `beamforge list problems`.")
@click.option(
    "--method", "methods", multiple=True, metavar="NAME[,SETTING=VALUE]", help="Method to compare; repeatable."
)
@click.option("--count", type=click.IntRange(1), default=200, show_default=True, help="Instances of a channel file.")
@problem_options
@click.option("--out", type=click.Path(), metavar="DIR", help="Folder for CSV tables, figures and report.html.")
def command(
    source: str, problem: str | None, methods: tuple[str, ...], count: int, out: str | None, device: str, **stated: Any
) -> None:
    """Compare methods: quality with confidence intervals, fairness, time and statuses of the instances.

    The instances and methods are those of a shipped suite, or those of a channel file with --problem, and any --method;
    the first method is the baseline. Without --method, the recommended method and the closed forms are compared.

    The exit status is 1 if a method failed; the others are compared nevertheless.
    """
    if problem is None and (source in SUITES or not Path(source).is_file()):
        chosen = find_suite(source)
        if methods:
            named = tuple(candidate(method) for method in methods)
            chosen = replace(chosen, candidates=named, baseline=named[0].label)
    elif problem is None:
        raise ConfigError(f"--problem must be given with a channel file, one of: {', '.join(PROBLEMS)}")
    else:
        chosen = suite_of(source, Request(problem, **stated), methods, count)
    if out is not None:
        make_folder(out)
    with progress() as bar:
        task = bar.add_task("", total=len(chosen.candidates) + 2)
        finished = compare(chosen, lambda doing: bar.update(task, description=doing, advance=1))
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    console.print(table(finished))
    for label, error in finished.errors.items():
        print(f"{label}: {error}", file=sys.stderr)
    if out is not None:
        for path in write_report(finished, Path(out)):
            print(path)
    if finished.errors:
        raise click.exceptions.Exit(1)


@dataclass(frozen=True)
class Opened(Scenario):
    """The first instances of a channel file, opened as a request says."""

    path: str
    request: Request

    def sample(self, count: int, seed: int = 0, first: int = 0, dtype: torch.dtype = torch.complex64) -> Instance:
        with self.request.open(self.path) as file:
            return file.read(first, min(count, file.count - first), dtype=dtype)


@dataclass(frozen=True)
class FileSuite(Suite):
    """Methods on a channel file, for the problem of a request."""

    request: Request | None = None

    def build(self, context: Mapping[str, Any]) -> Problem:
        assert self.request is not None
        return self.request.build(context)


def suite_of(path: str, request: Request, methods: Sequence[str], count: int) -> FileSuite:
    """The comparison on a channel file."""
    source = Opened(path, request)
    first = source.sample(1)
    question = request.build(first.context)
    able = methods_for(question, first.observation.network)
    if not able:
        raise ConfigError(f"problem must be one that a method serves on these channels, got {request.problem}")
    named = [candidate(method) for method in methods]
    named = named or [Candidate(method) for method in able if method in (able[0], *OBVIOUS)]
    words = f"{request.problem} on {Path(path).name}"
    return FileSuite(
        Path(path).stem, words, source, request.problem, tuple(named), named[0].label, count, request=request
    )


def candidate(text: str) -> Candidate:
    """A method and its settings from ``NAME,SETTING=VALUE,...``.

    >>> candidate("wmmse,starts=1").label
    'wmmse starts=1'
    """
    name, *settings = text.split(",")
    if name not in METHODS:
        raise ConfigError(unknown("method", name, METHODS))
    return Candidate(name, pairs(tuple(settings)))


def make_folder(out: str) -> None:
    """Create the folder `out` before anything is computed; raises `ConfigError` if that fails."""
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out must be a folder that can be written, got {out} ({error.strerror})") from error


def table(finished: Comparison) -> Table:
    """One column per method, one line per figure."""
    rows = [row for row in finished.rows if not row.error]
    first, *names = headings(finished)
    found = Table(title=Text(finished.suite.description), title_justify="left", box=box.SIMPLE_HEAD)
    found.add_column(first)
    for row in rows:
        found.add_column(Text(row.method), justify="right")
    for name, *values in zip(names, *(cells(row)[1:] for row in rows), strict=True):
        found.add_row(name, *values)
    return found
