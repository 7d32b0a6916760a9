"""``beamforge reproduce``: a paper's tables and figures, measured on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

import beamforge
from beamforge.bench.timing import Machine, one_thread
from beamforge.cli.bench import PIPE_WIDTH, make_folder
from beamforge.cli.output import progress
from beamforge.cli.request import pairs
from beamforge.core.errors import ConfigError, unknown
from beamforge.io.writers import partial_path
from beamforge.reproduce import PAPERS
from beamforge.reproduce.exhibits import Exhibit, Options, Table


@click.command("reproduce", epilog=f"Papers: {', '.join(PAPERS)}.")
@click.argument("paper")
@click.option("--quick", is_flag=True, help="Fewer instances, and the shipped weights: under two minutes.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the method; repeatable.")
@click.option("--peers", type=click.Path(), metavar="DIR", help="Folder of published channels and rates, if available.")
@click.option(
    "--out", type=click.Path(), metavar="DIR", help="Folder of tables and figures; by default reproduced/PAPER."
)
def command(paper: str, quick: bool, settings: tuple[str, ...], peers: str | None, out: str | None) -> None:
    """Measure the tables and figures of PAPER again, and state whether required values are reached.

    Instances are drawn from held-out seeds. Tables are printed and, with all digits, written to CSV files beside the
    figures. `fairness` and `hybrid-outage` first train their networks in folders beside them, which takes hours; after
    an interruption, the same command resumes. With --set checkpoint=shipped they use the shipped networks.
    """
    if paper not in PAPERS:
        raise ConfigError(unknown("paper", paper, PAPERS))
    folder = Path(out or Path("reproduced") / paper)
    make_folder(str(folder))
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    with one_thread():
        machine = Machine.here()
    about = [f"beamforge {beamforge.__version__}", *(f"{name} {value}" for name, value in vars(machine).items())]
    console.print(Text(", ".join(about)))
    with progress() as bar:
        task = bar.add_task("", total=None)
        options = Options(
            folder,
            quick,
            pairs(settings),
            Path(peers) if peers else None,
            lambda doing: bar.update(task, description=doing),
        )
        try:
            for exhibit in PAPERS[paper](options):
                show(exhibit, folder, console)
        except KeyboardInterrupt:
            print("interrupted; the same command resumes where a training stopped", file=sys.stderr)
            raise click.exceptions.Exit(1) from None


def show(exhibit: Exhibit, folder: Path, console: Console) -> None:
    """Print a table, and write an exhibit into the folder; the file appears only when it is complete."""
    if isinstance(exhibit, Table):
        console.print(Text(f"\n{exhibit.title}"), grid(exhibit), sep="\n", end="")
    path = folder / exhibit.file
    partial_path(path).write_bytes(exhibit.content())
    partial_path(path).replace(path)
    console.print(Text(str(path)))


def grid(table: Table) -> Grid:
    """A table for a terminal; a name equal to that of the row above is not repeated."""
    found = Grid(box=box.SIMPLE_HEAD)
    for place, name in enumerate(table.columns):
        found.add_column(Text(name), justify="left" if place < table.heads else "right", no_wrap=place == 0)
    above = ""
    for first, *rest in table.texts():
        found.add_row(*map(Text, ["" if first == above else first, *rest]))
        above = first
    return found
