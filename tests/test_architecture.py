"""The tree in docs/architecture.md shows every file, and imports go down the layers that it lists."""

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
    """Fenced blocks of the page: the tree, then the layers from top to bottom."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    return re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def layers() -> dict[str, int]:
    """The layer of each part (a module at the root, or a folder); 0 is the lowest."""
    lines = blocks()[1].splitlines()
    return {part: layer for layer, line in enumerate(reversed(lines)) for part in line.split()}


def name_of(path: Path) -> str:
    """Dotted name inside the package; the package itself is `beamforge`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts) or "beamforge"


def part_of(module: str) -> str:
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
    assert shown == files, f"docs/architecture.md lacks {sorted(files - shown)} and has unknown {sorted(shown - files)}"


def test_every_part_has_a_layer():
    assert {part_of(name) for name in NAMES} == set(layers())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path):
    here, layer = part_of(name_of(path)), layers()
    for name in imported(path):
        other = part_of(name)
        assert other == here or layer[other] < layer[here], f"{name_of(path)} imports {name}, which is not below it"


def test_no_import_cycles():
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
