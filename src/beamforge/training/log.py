"""The log of a run: one JSON object per line, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beamforge.io.writers import partial_path

Line = Mapping[str, Any]
"""``step`` (from 1), ``seconds``, and either loss, metrics, ``lr`` and ``gradient_norm`` of a training step or a
``validation`` object with loss and metrics. Numbers that are not finite are null; a skipped step has ``skipped``."""


class Log:
    """A log that continues after `step` steps; later lines of an earlier process are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        kept = [json.dumps(line) + "\n" for line in read(path) if line["step"] <= step] if step else []
        partial_path(path).write_text("".join(kept), encoding="utf-8")
        partial_path(path).replace(path)
        self._file = path.open("a", encoding="utf-8")
        self._board = board(path.parent / "tensorboard", step)

    def write(self, line: Line) -> None:
        """Add a line."""
        self._file.write(json.dumps(finite(line), allow_nan=False) + "\n")
        self._file.flush()
        if self._board is not None:
            kind = "validation" if "validation" in line else "training"
            for name, value in line.get("validation", line).items():
                if name != "step":
                    self._board.add_scalar(f"{kind}/{name}", value, line["step"])

    def close(self) -> None:
        """Release the file."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, without an incomplete last one."""
    found = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return found


def finite(line: Any) -> Any:
    """The line with null for NaN and infinity, which JSON lacks."""
    if isinstance(line, Mapping):
        return {name: finite(value) for name, value in line.items()}
    return None if isinstance(line, float) and not math.isfinite(line) else line


def board(folder: Path, step: int) -> Any:
    """A TensorBoard writer, or None where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
