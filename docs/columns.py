"""Sphinx extension that converts the docstrings of this library to reStructuredText.

Docstrings list arguments in columns, ``name  meaning``, with continuation lines aligned to the meaning; the extension
turns these columns into definition lists. Text outside backticks is plain text: ``|x|`` and ``x*`` are escaped.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

ROW = re.compile(r"(?P<indent> *)(?P<name>[\w.,/+=-]+(?: [\w.,/+=-]+)*)  +(?P<meaning>\S.*)")
CODE = re.compile(r"(``.*?``|`[^`]+`)")
MARK = re.compile(r"[|*]|(?<=\w)_(?!\w)|(?<=^\w)[.)]")


def setup(app: Sphinx) -> dict[str, Any]:
    """Hook into autodoc."""
    app.connect("autodoc-process-docstring", rewrite)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}


def rewrite(app: Sphinx, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Replace a docstring's lines in place, as autodoc requires."""
    lines[:] = definitions(lines)


def skip(app: Sphinx, kind: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    """Skip the fields of named tuples: the class docstring describes them, "Alias for field number 0" does not."""
    return True if type(thing).__name__ == "_tuplegetter" else None


def definitions(lines: list[str]) -> list[str]:
    """`lines` with every block of aligned rows as a definition list, and text outside code and examples escaped."""
    out: list[str] = []
    column = literal = None  # column of the meanings in the current rows; indent of the line before a literal block
    example = False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        row = ROW.fullmatch(line)
        if not line.strip():
            column, example = None, False
            out.append(line)
            continue
        example = example or line.lstrip().startswith(">>>")
        literal = None if literal is not None and indent <= literal else literal
        if example or literal is not None:
            out.append(line)
        elif row and column in (None, row.start("meaning")):
            column = row.start("meaning")
            out += [f"{row['indent']}``{row['name']}``", f"{row['indent']}    {plain(row['meaning'])}"]
        elif column is not None and indent == column:
            out.append(f"    {plain(line.strip())}")
        else:
            column, literal = None, indent if line.endswith("::") else None
            out.append(plain(line))
    return out


def plain(text: str) -> str:
    """`text` with the markup characters of reStructuredText escaped outside code."""
    parts = CODE.split(text)
    return "".join(part if i % 2 else MARK.sub(r"\\\g<0>", part) for i, part in enumerate(parts))
