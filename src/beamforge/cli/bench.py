"""``beamforge bench``: compares methods on a shipped suite."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from beamforge.bench.comparison import Comparison, compare
from beamforge.bench.report import cells, headings, write_report
from beamforge.bench.suites import SUITES, find_suite
from beamforge.cli.output import progress
from beamforge.core.errors import ConfigError

PIPE_WIDTH = 160
"""Characters per line if the output is not a terminal."""


@click.command("bench", epilog=f"Suites: {', '.join(SUITES)}.")
@click.argument("suite")
@click.option("--out", type=click.Path(), metavar="DIR", help="Folder for CSV tables, figures and report.html.")
def command(suite: str, out: str | None) -> None:
    """Compare methods on SUITE: quality with confidence intervals, fairness, time and statuses of the instances.

    The exit status is 1 if a method failed; the others are compared nevertheless.
    """
    chosen = find_suite(suite)
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
