"""The command line: one file per command, imported when the command is called.

It uses click rather than tyro, since errors are printed as one sentence: click raises an exception with this sentence,
while tyro 1.0 has no public way to replace its panels of several lines.

Exit status: 0 done, 2 error in the request or the input, 1 a bug of beamforge, a failed method or an interruption.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TextIO

import click

from beamforge import __version__
from beamforge.core.errors import BeamforgeError

COMMANDS = {
    "solve": "Beams or powers for every instance of a channel file.",
    "evaluate": "Rates, power limits and distance to the bound of beams or powers from any source.",
    "bench": "Compare methods on a shipped suite: table, figures, HTML report.",
    "train": "Train a learned method by a recipe.",
    "reproduce": "Measure a paper's tables and figures again.",
    "sample": "Draw instances of a scenario into a channel file.",
    "label": "Draw instances of links and find the best known powers.",
    "list": "Problems, methods, scenarios, recipes and models by name.",
}
"""Each command is the click command `command` of the module of this name in this folder."""

DEBUG = "BEAMFORGE_DEBUG"
"""Environment variable that, when set, shows tracebacks."""


class Commands(click.Group):
    """Commands by name; a command is imported only to run it or to show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]  # `list` is the module of the command here

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"{__name__}.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])


@click.group(cls=Commands, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def beamforge() -> None:
    """Optimal beamformers and transmit powers for many users, by classical and learned methods."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status; an error is printed as one sentence on standard error.

    If the reader closes the pipe early, the status is 0.
    """
    try:
        status = run([*(sys.argv[1:] if arguments is None else arguments)])
        sys.stdout.flush()  # inside `try`, so that a closed pipe is not reported as a bug
        return status
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"; see `{context.command_path} --help`" if context else ""
        return failed(error.format_message().rstrip(".").replace(". ", "; ") + hint, 2)
    except BeamforgeError as error:
        return failed(str(error), 2)
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        silence(sys.stdout)
        return 0
    except (KeyboardInterrupt, click.Abort):
        return failed("interrupted", 1)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return failed(f"bug in beamforge: {reason}; set {DEBUG}=1 to see where it happened", 1)


def run(arguments: list[str]) -> int:
    """Run one command and return its status. Unlike click's own `main` it does not handle a closed pipe."""
    try:
        with beamforge.make_context("beamforge", arguments) as context:
            beamforge.invoke(context)
    except click.exceptions.Exit as chosen:
        return chosen.exit_code
    return 0


def silence(stream: TextIO) -> None:
    """Discard buffered and later output of a stream, since the interpreter flushes the stream at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def failed(sentence: str, status: int) -> int:
    """Print an error, with its traceback if the environment variable is set; returns the status."""
    if os.environ.get(DEBUG):
        traceback.print_exc()
    print(" ".join(sentence.split()), file=sys.stderr)
    return status
