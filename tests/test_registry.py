"""Methods that installed packages add by entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from beamforge import registry
from beamforge.classical.linear import MRT, RZF


def point(name, value):
    return EntryPoint(name, value, registry.GROUP)


@pytest.fixture
def points(monkeypatch):
    found = []
    monkeypatch.setattr(registry, "entry_points", lambda group: found if group == "beamforge.methods" else [])
    return found


def test_a_class_and_a_tuple_of_classes(points, monkeypatch):
    points += [point("one", "beamforge.classical.linear:RZF"), point("two", "some_package:KINDS")]
    monkeypatch.setattr(EntryPoint, "load", lambda self: RZF if self.name == "one" else (MRT, RZF))
    assert registry.installed({"rzf": (RZF,)}) == {"one": (RZF,), "two": (MRT, RZF)}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("rzf", "beamforge.classical.linear:MRT", "its name is taken"),
        ("gone", "no_such_package:Method", "ModuleNotFoundError"),
        ("function", "beamforge.api:solve", "TypeError|no Solver class"),
        ("number", "beamforge.core.network:Network", "no Solver class"),
    ],
)
def test_an_unusable_one_is_left_out_with_a_warning(points, name, value, words):
    points += [point(name, value), point("fine", "beamforge.classical.linear:MRT")]
    with pytest.warns(UserWarning, match=words):
        found = registry.installed({"rzf": (RZF,)})
    assert found == {"fine": (MRT,)}
