"""Sphinx extension: docstrings keep the form in which they are read in the source.

Arguments stand in columns, ``name  meaning``, a meaning's later lines below its first; here they become definition
lists. Text outside backticks is plain text, so that ``|x|`` and ``x*`` mean themselves there too.
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
    """Replace a docstring's lines in place, as autodoc wants it."""
    lines[:] = definitions(lines)


def skip(app: Sphinx, kind: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    """Fields of a named tuple are told of in its docstring; "Alias for field number 0" tells nothing."""
    return True if type(thing).__name__ == "_tuplegetter" else None


def definitions(lines: list[str]) -> list[str]:
    """`lines` with every block of aligned rows as a definition list, and text outside code and examples as plain."""
    out: list[str] = []
    column = literal = None  # where the meanings of the rows at hand begin; the indent that a literal block exceeds
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
    """`text` with the marks of reStructuredText escaped outside code."""
    parts = CODE.split(text)
    return "".join(part if i % 2 else MARK.sub(r"\\\g<0>", part) for i, part in enumerate(parts))
