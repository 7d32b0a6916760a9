"""The picture of the tree in docs/architecture.md is the tree, and imports run down it."""

from __future__ import annotations

import ast
import re
import statistics
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "src" / "beamforge"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST, MEDIAN = 400, 150


def blocks() -> list[str]:
    """Fenced blocks of the page: the tree, then the rooms from the top floor to the ground."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    return re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def floors() -> dict[str, int]:
    """Rooms (a module at the root, or a folder) by floor, the ground being 0."""
    lines = blocks()[1].splitlines()
    return {room: floor for floor, line in enumerate(reversed(lines)) for room in line.split()}


def name_of(path: Path) -> str:
    """Dotted name inside the package; the package itself is `beamforge`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts) or "beamforge"


def room(module: str) -> str:
    return module.partition(".")[0]


NAMES = {name_of(path) for path in MODULES}


def imported(path: Path) -> set[str]:
    """Modules of the package that a module imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole.removeprefix("beamforge.") in NAMES else node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("beamforge.") for name in found if name.partition(".")[0] == "beamforge"}


def test_the_tree_shows_every_file():
    shown, folders = set(), []
    for line in blocks()[0].splitlines()[1:]:
        indent, path = re.match(r"( *)(\S+)", line).groups()
        folders = folders[: len(indent) // 2 - 1]
        if path.endswith("/"):
            folders.append(path)
        else:
            shown.add("".join(folders) + path)
    files = {str(path.relative_to(PACKAGE)) for path in MODULES if path.name != "__init__.py"}
    assert shown == files, f"docs/architecture.md lacks {sorted(files - shown)} and invents {sorted(shown - files)}"


def test_every_room_has_a_floor():
    assert {room(name) for name in NAMES} == set(floors())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_down(path):
    here, floor = room(name_of(path)), floors()
    for name in imported(path):
        other = room(name)
        assert other == here or floor[other] < floor[here], f"{name_of(path)} imports {name}, which is not below it"


def test_no_circle_inside_a_room():
    graph = {name_of(path): imported(path) - {name_of(path)} for path in MODULES}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_file_has_one_subject(path):
    assert len(path.read_text().splitlines()) <= LONGEST


def test_files_are_short():
    assert statistics.median(len(path.read_text().splitlines()) for path in MODULES) <= MEDIAN


def test_every_file_says_what_it_is_for():
    for path in MODULES:
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"
