"""Timing of tasks that record their calls and advance a fake clock."""

import pytest

from beamforge.bench import timing


class Clock:
    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_tasks_are_warmed_up_and_then_interleaved(clock):
    calls = []
    tasks = {name: lambda index, name=name: calls.append((name, index)) for name in "ab"}
    timing.interleaved(tasks, 2)
    assert calls == [("a", 0), ("b", 0), ("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_the_result_is_the_median_without_the_warm_up(clock):
    durations = {"a": iter([100.0, 1.0, 9.0, 2.0]), "b": iter([100.0, 5.0, 5.0, 6.0])}

    def task(name):
        def run(index):
            clock.now += next(durations[name])

        return run

    assert timing.interleaved({name: task(name) for name in "ab"}, 3) == {"a": 2.0, "b": 5.0}


def test_the_machine_is_described():
    machine = timing.Machine.here()
    assert machine.processor
    assert machine.threads >= 1
    assert machine.torch.split(".")[0].isdigit()


def test_the_commit_is_unknown_where_git_does_not_track_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "__file__", str(tmp_path / "timing.py"))
    assert timing.commit() == "unknown"
