"""A reader that closes its end of a pipe early never sees an error."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipes")
    rng = np.random.default_rng(0)
    H = rng.standard_normal((3, 2, 4)) + 1j * rng.standard_normal((3, 2, 4))
    np.savez(folder / "downlink.npz", H=H, noise=0.1, p_max=1.0)
    return folder


def run(folder, *arguments, lines, unbuffered=False):
    """Exit status and standard error of a command whose reader goes away after some lines."""
    command = [sys.executable, *(["-u"] if unbuffered else []), "-m", "beamforge", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(lines):
        process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    return process.wait(), said


@pytest.mark.parametrize(("command", "attempts"), [("--help", 10), ("list", 3)])
def test_closed_pipe_is_reliable(folder, command, attempts):
    for attempt in range(attempts):
        assert run(folder, command, lines=attempt % 3, unbuffered=attempt % 2 == 0) == (0, ""), attempt


@pytest.mark.parametrize(
    "arguments",
    [
        ("solve", "downlink.npz", "--problem", "sum-rate", "--out", "beams.npz"),
        ("solve", "downlink.npz", "--problem", "sum-rate", "--json", "--out", "json.npz"),
        ("sample", "rayleigh", "--count", "2", "--seed", "0", "--out", "sampled.npz"),
        ("list", "methods"),
        ("solve", "--help"),
    ],
)
def test_every_command_that_prints(folder, arguments):
    assert run(folder, *arguments, lines=0) == (0, "")


def test_tables_printed_by_rich_too(folder):
    """The library that prints tables has an exit of its own for closed pipes."""
    script = (
        "import os, sys; from beamforge.cli import main, beamforge\n"
        "import click\n"
        "from rich.console import Console\n"
        "@beamforge.command('rich')\n"
        "def command():\n"
        "    for _ in range(1000): Console(width=100).print('word ' * 1000)\n"
        "beamforge.get_command = lambda ctx, name: command\n"
        "sys.exit(main(['rich']))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert (process.wait(), said) == (0, "")


def test_a_full_disk_is_not_a_closed_pipe(folder):
    if not os.path.exists("/dev/full"):
        pytest.skip("no device that is always full")
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "beamforge", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "No space left" in done.stderr
