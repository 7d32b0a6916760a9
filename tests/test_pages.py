"""Python and console blocks of every Markdown page run and print the output that the page shows.

The blocks of a page share one namespace and one directory. A ``text`` block right after a ``python`` block is its
output; in a ``console`` block the lines below a command are its output.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import shlex
from pathlib import Path

import pytest

from beamforge.cli import main

REPOSITORY = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(?P<language>python|console|text)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
UNEQUAL = (["seconds"], ["iterations"])
"""First words of lines that differ between machines."""

PAGES = [
    page
    for page in sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
    if re.search(r"^```(python|console)$", page.read_text(), re.MULTILINE)
]


def same_output(shown: str, printed: str) -> bool:
    """Whether words are equal and numbers agree to 1e-2 relative or 1e-6 absolute, except in lines of `UNEQUAL`."""
    words = [
        [word for line in text.splitlines() if line.split()[:1] not in UNEQUAL for word in line.split()]
        for text in (shown, printed)
    ]
    return len(words[0]) == len(words[1]) and all(map(close, *words))


def close(one: str, other: str) -> bool:
    try:
        return math.isclose(float(one), float(other), rel_tol=1e-2, abs_tol=1e-6)
    except ValueError:
        return one == other


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    printed, end = None, 0
    text = page.read_text()
    for block in BLOCK.finditer(text):
        language, code = block["language"], block["code"]
        follows = not text[end : block.start()].strip()
        if language == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(code, str(page), "exec"), names)
            printed = output.getvalue()
        elif language == "console":
            for command, expected in commands(code):
                run_command(command, expected)
        elif printed is not None and follows:
            assert same_output(code, printed), f"expected:\n{code}\nprinted:\n{printed}"
        printed, end = printed if language == "python" else None, block.end()


def commands(code: str) -> list[tuple[str, str]]:
    """Commands of a console block, with continuation lines joined, and the output shown for each."""
    parts = re.split(r"^\$ ", code.replace("\\\n", " "), flags=re.MULTILINE)[1:]
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


def run_command(command: str, expected: str) -> None:
    """Run a `beamforge` command and compare its output, if shown; of other commands, only check the program."""
    program, *arguments = shlex.split(command)
    if program != "beamforge":
        assert program in ("make", "pip", "git"), f"a page tells people to run {program}"
        return
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main(arguments) == 0, command
    printed = output.getvalue()
    assert not expected.strip() or same_output(expected, printed), f"expected:\n{expected}\nprinted:\n{printed}"
