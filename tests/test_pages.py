"""The pages do what they say: Python and console blocks of every Markdown page run, and print what stands below them.

The blocks of a page share one namespace and one directory. A ``text`` block right after a ``python`` block is what it
prints; in a ``console`` block the lines below a command are. ``...`` stands for anything.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
from pathlib import Path

import pytest

from beamforge.cli import main

REPOSITORY = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(?P<language>python|console|text)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    page
    for page in sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
    if re.search(r"^```(python|console)$", page.read_text(), re.MULTILINE)
]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def same(expected: str, printed: str) -> bool:
    return doctest.OutputChecker().check_output(expected, printed, OPTIONS)


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
            assert same(code, printed), f"expected:\n{code}\nprinted:\n{printed}"
        printed, end = printed if language == "python" else None, block.end()


def commands(code: str) -> list[tuple[str, str]]:
    """Commands of a console block, continuation lines joined, and what is shown below each."""
    parts = re.split(r"^\$ ", code.replace("\\\n", " "), flags=re.MULTILINE)[1:]
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


def run_command(command: str, expected: str) -> None:
    """Run a command of ours and compare what it prints, if anything is shown; others are only checked to be known."""
    program, *arguments = shlex.split(command)
    if program != "beamforge":
        assert program in ("make", "pip", "git"), f"a page tells people to run {program}"
        return
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main(arguments) == 0, command
    printed = output.getvalue()
    assert not expected.strip() or same(expected, printed), f"expected:\n{expected}\nprinted:\n{printed}"
