"""What commands print: progress on a terminal, and a summary for a reader or, as JSON, for a program."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

UNITS = {"mean_sum_rate": "bit/s/Hz", "mean_least_rate": "bit/s/Hz", "mean_power": "W"}
"""Of what is always measured in the same one; `unit` of a summary is that of its utility and bound."""


def progress() -> Progress:
    """A progress bar on standard error, silent where that is no terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def summarise(summary: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a summary: one JSON object, or one line for each entry that has something to say."""
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
    """JSON knows no NaN: what is not a number is null."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
