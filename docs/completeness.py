"""Fails when a public name is missing from the manual: `python docs/completeness.py docs/_build/objects.inv`.

The reference shows every name with a docstring in a module that a page names. So a name that the inventory lacks has no
docstring, or its module has no page.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from sphinx.util.inventory import InventoryFile

import beamforge

ROOT = Path(beamforge.__file__).parent


def public_names() -> Iterator[str]:
    """Names of all modules without an underscore, and of the functions, classes and methods that they define."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            module = ".".join(parts)
            importlib.import_module(module)
            yield module
            yield from (f"{module}.{name}" for name in defined(ast.parse(path.read_text())))


def defined(tree: ast.Module) -> Iterator[str]:
    """Public functions, classes and methods of a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
            if isinstance(node, ast.ClassDef):
                methods = (item.name for item in node.body if isinstance(item, ast.FunctionDef))
                yield from (f"{node.name}.{name}" for name in methods if not name.startswith("_"))


def shown_as_command(name: str) -> bool:
    """Whether a name is a command, which the manual shows by its ``--help``."""
    module, _, own = name.rpartition(".")
    return isinstance(getattr(sys.modules.get(module), own, None), click.Command)


if __name__ == "__main__":
    inventory = InventoryFile.loads(Path(sys.argv[1]).read_bytes(), uri="")
    shown = {name for kind, names in inventory.data.items() if kind.startswith("py:") for name in names}
    missing = [name for name in public_names() if name not in shown and not shown_as_command(name)]
    sys.exit("not in the manual (no docstring or no page):\n  " + "\n  ".join(missing) if missing else 0)
