"""Every example in a docstring runs and prints the expected output, up to rounding."""

from __future__ import annotations

import doctest
import importlib
import math
import re
from itertools import zip_longest
from pathlib import Path

import pytest

import beamforge

PACKAGE = Path(beamforge.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.name != "__main__.py"
)
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\d.a-ik-zA-Z_])")


class Checker(doctest.OutputChecker):
    """Compares numbers to 1e-3 relative or 1e-6 absolute, and the text between them exactly."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        if super().check_output(want, got, optionflags):
            return True
        words = [NUMBER.split("".join(text.split())) for text in (want, got)]
        numbers = [[float(found) for found in NUMBER.findall(text)] for text in (want, got)]
        return words[0] == words[1] and all(
            None not in pair and math.isclose(*pair, rel_tol=1e-3, abs_tol=1e-6) for pair in zip_longest(*numbers)
        )


@pytest.mark.parametrize(
    ("want", "got", "same"),
    [
        ("tensor([1.0000, 2.3219])", "tensor([1., 2.3219])", True),
        ("tensor([1.0000, 2.3219])", "tensor([1.0001, 2.3220])", True),
        ("tensor([1.0000, 2.3219])", "tensor([1.0000, 2.4219])", False),
        ("tensor([0., 1.])", "tensor([-0.0000, 1.0000])", True),
        ("tensor([1., 2.])", "tensor([1., 2., 3.])", False),
        ("tensor([1., 2.])", "array([1., 2.])", False),
        ("torch.Size([2, 3])", "torch.Size([2, 4])", False),
        ("(True, 1e-3)", "(True, 0.001)", True),
        ("(1.5+0.j)", "(1.5+0j)", True),
    ],
)
def test_numbers_are_compared_as_numbers(want, got, same):
    assert Checker().check_output(want, got, 0) is same


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(Checker(), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for example in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), name):
        runner.run(example)
    assert not runner.failures
