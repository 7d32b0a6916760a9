"""The command line: one file per command, loaded when it is called.

Click rather than tyro: a user's mistake is to be told in one sentence, and tyro 1.0 has no public way to replace its
panels of several lines; click raises what is wrong as an exception with the sentence in it.

Exit status: 0 done, 2 the request or the input is at fault, 1 a fault of ours.
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
    "evaluate": "Rates, limits and distance to the bound of anybody's beams or powers.",
    "bench": "Methods compared fairly on a shipped suite: table, figures, HTML report.",
    "train": "Train a learned method by a recipe.",
    "reproduce": "A paper's tables and figures, measured anew.",
    "sample": "Draw instances of a scenario into a channel file.",
    "label": "Draw instances of links with the best powers known for them.",
    "list": "Problems, methods, scenarios, recipes and models by name.",
}
"""Each is the click command `command` of the module of its name in this folder."""

DEBUG = "BEAMFORGE_DEBUG"
"""Environment variable that, when set, shows tracebacks."""


class Commands(click.Group):
    """Commands by name, imported only to be run or to show their own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]  # the name `list` is the command's

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
    """The best beamformers and transmit powers for many users, classical and learned, behind one interface."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, and prints what is wrong as one sentence on standard error.

    A reader that closes the pipe early has seen enough: the status is 0.
    """
    try:
        status = run([*(sys.argv[1:] if arguments is None else arguments)])
        sys.stdout.flush()  # while a closed pipe can still be told from a fault
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
        return failed(f"a fault of beamforge's own, {reason}; set {DEBUG}=1 to see where it happened", 1)


def run(arguments: list[str]) -> int:
    """Run one command; returns the status that it chose. Unlike click's own `main` it leaves a closed pipe to us."""
    try:
        with beamforge.make_context("beamforge", arguments) as context:
            beamforge.invoke(context)
    except click.exceptions.Exit as chosen:
        return chosen.exit_code
    return 0


def silence(stream: TextIO) -> None:
    """Send what is still buffered, and whatever follows, to nowhere: the interpreter flushes the stream at its exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def failed(sentence: str, status: int) -> int:
    """Say what is wrong, and where if asked to."""
    if os.environ.get(DEBUG):
        traceback.print_exc()
    print(" ".join(sentence.split()), file=sys.stderr)
    return status
