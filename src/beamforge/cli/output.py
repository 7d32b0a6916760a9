"""Output of the commands: a progress bar on a terminal, and a summary as text or JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

UNITS = {"mean_sum_rate": "bit/s/Hz", "mean_least_rate": "bit/s/Hz", "mean_power": "W"}
"""Entries with a fixed unit; the entry `unit` of a summary is the unit of its utility and bound."""


def progress() -> Progress:
    """A progress bar on standard error, hidden if standard error is not a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def summarise(summary: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a summary: one JSON object, or one line for each entry that is not empty."""
    if as_json:
        print(json.dumps(_finite(summary), ensure_ascii=False, allow_nan=False))
        return
    said = dict(summary)
    unit = said.pop("unit", "")
    lines = {name: _words(value) for name, value in said.items() if value not in (None, {}, [])}
    units = {"mean_utility": unit, "mean_bound": unit, **UNITS}
    lines |= {name: f"{lines[name]} {units[name]}" for name in lines.keys() & units.keys()}
    width = max(map(len, lines))
    for name, words in lines.items():
        print(f"{name.replace('_', ' '):{width}}  {words}")


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(each)}" for name, each in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    """The value with null in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
