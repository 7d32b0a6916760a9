"""`beamforge solve` within this process, and a check of its errors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

import beamforge
from beamforge.cli import main

SINGLE = {"dtype": np.complex64}
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(beamforge.__file__).parent.parent), "OMP_NUM_THREADS": "1"}


def solve(channels, out, *more, problem="sum-rate"):
    return main(["solve", str(channels), "--problem", problem, "--out", str(out), *more])


def refused(capsys, folder, before, *arguments, status=2):
    """The one-line error of a command that fails; asserts that the folder is unchanged."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == status
    out, sentence = capsys.readouterr()
    assert out == "" and sentence.endswith("\n") and sentence.count("\n") == 1, sentence
    assert "Traceback" not in sentence
    assert sorted(path.name for path in Path(folder).iterdir()) == sorted(before)
    return sentence
