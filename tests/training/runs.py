"""Training runs of the toy methods: as processes of their own, and in this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from beamforge.cli import main
from beamforge.registry import MODELS

TWO_PROCESSES = (
    *("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"),
    *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
)
"""Interpreter arguments that start a script with two processes."""


def start(toy, folder, *arguments, launcher=(), **environment):
    """Start ``beamforge train`` with the recipe of the module `toy` in a new process."""
    command = [sys.executable, *launcher, str(Path(toy.__file__)), "train", recipe(toy, folder), *arguments]
    known = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        command, cwd=folder, env=os.environ | known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process, status=0):
    """Output and error output of a process that ends with a status."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    return out, err


def run_here(toy, folder, *arguments):
    """Run ``beamforge train`` in this process, which saves the time to start one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(MODELS, *toy.MODEL)
        assert main(["train", recipe(toy, folder), *arguments]) == 0


def recipe(toy, folder):
    """Write the recipe and return its name."""
    (folder / "toy.toml").write_text(toy.RECIPE)
    return "toy.toml"
