"""How networks, problems and solutions are printed: a few lines, as text and as HTML."""

from __future__ import annotations

import html
from collections import Counter
from typing import Any

import numpy as np
from torch import Tensor


class Summarised:
    """Base of objects that are printed as a title and some rows: `print`, `repr` and notebooks show the same."""

    def summary(self) -> tuple[str, dict[str, str]]:
        """The title, and the rows by their labels."""
        raise NotImplementedError

    def __str__(self) -> str:
        title, rows = self.summary()
        width = max(map(len, rows), default=0)
        return "\n".join([title, *(f"  {label:{width}}  {value}" for label, value in rows.items())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        title, rows = self.summary()
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for label, value in rows.items()
        )
        return f"<table><caption style='text-align:left'>{html.escape(title)}</caption>{cells}</table>"


def term(bound: Any) -> str:
    """A utility or constraint with its numbers."""
    numbers = {name: getattr(bound, name) for name in vars(bound)}
    stated = ", ".join(f"{name} {spread(value)}" for name, value in numbers.items() if value is not None)
    return type(bound).__name__ + (f": {stated}" if stated else "")


def spread(values: Any) -> str:
    """A number, or the mean and range of several."""
    if isinstance(values, str | bool):
        return str(values)
    found = array(values).reshape(-1)
    if np.iscomplexobj(found):
        return f"{found.size} complex numbers"
    if found.size == 0:
        return "none"
    least, most = found.min(), found.max()
    if most - least <= 1e-6 * max(abs(most), abs(least)):
        return f"{most:.4g}"
    return f"mean {found.mean():.4g} ({least:.4g} to {most:.4g})"


def counted(number: int, name: str) -> str:
    """A count with a noun in the right number."""
    return f"{number} {name}" + ("" if number == 1 else "s")


def counts(status: Any, names: list[str]) -> dict[str, int]:
    """How many instances have each status, in the order of the statuses."""
    found = Counter(array(status).reshape(-1).tolist())
    return {name: found[value] for value, name in enumerate(names) if found[value]}


def array(values: Any) -> np.ndarray[Any, Any]:
    """Numbers as a NumPy array."""
    if isinstance(values, Tensor):
        return values.detach().resolve_conj().cpu().numpy()
    return np.asarray(values)
