"""Base stations as processes: the same beams, each from its own channels alone, and nothing hangs if one dies."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from dataclasses import replace

import pytest
import torch
from stations import Polite, question

from beamforge.core.errors import ConfigError
from beamforge.core.observation import Observation
from beamforge.core.solution import Status
from beamforge.core.utilities import MinRate
from beamforge.decentralised.backhaul import SharedMemory
from beamforge.decentralised.base_stations import BaseStations
from beamforge.decentralised.launch import apart

KILLS = int(os.environ.get("BEAMFORGE_KILLS", 8))
"""Processes killed at random; 50 of them: BEAMFORGE_KILLS=50 python -m pytest tests/decentralised -k killed"""


@pytest.mark.parametrize("cells", [1, 2, 4])
@pytest.mark.parametrize(("dtype", "gap"), [(torch.complex128, 1e-12), (torch.complex64, 1e-6)])
def test_processes_find_what_one_process_finds(cells, dtype, gap):
    method = Polite()
    with apart(method, cells) as operator:
        for seed, count in enumerate((4, 3)):
            problem, instance = question(cells, count, dtype, seed=seed)
            together, alone = method.solve(problem, instance), operator.solve(problem, instance)
            assert (together.W - alone.W).abs().max() <= gap * together.W.abs().max()
            assert alone.W.dtype == dtype and torch.equal(together.status, alone.status)
            assert not alone.info["missed"].any()
            for name in ("scalars", "bits"):
                assert torch.equal(together.info[name], alone.info[name])
            assert alone.info["scalars"].tolist() == [3 * cells * (cells - 1)] * count
            assert alone.info["bits"].tolist() == [3 * cells * (cells - 1) * 4 * dtype.itemsize] * count


class Recorder(SharedMemory):
    """Keeps what was said, and answers a base station that is alone here with what it heard before."""

    def __init__(self, heard=None, number=0):
        super().__init__()
        self.heard, self.number, self.kept, self.exchanges = heard, number, [], 0

    def exchange(self, sent, otherwise=0.0):
        if self.heard is None:
            self.kept.append(super().exchange(sent, otherwise))
            return self.kept[-1]
        self.exchanges += 1
        return self.heard[self.exchanges - 1][:, self.number : self.number + 1]


def test_a_base_station_needs_nothing_but_its_own_channels_and_what_it_hears():
    """All that belongs to others is NaN in its observation and in its problem."""
    problem, instance = question()
    bound, network = problem.bind(instance.truth), instance.truth
    everybody = Recorder()
    W = Polite().beams(BaseStations.of(bound, network), everybody)
    for k in range(3):
        local = Observation(network).local(k).network
        others = torch.arange(3) != k
        unknown = [
            replace(term, **{name: getattr(term, name).masked_fill(others, torch.nan)})
            for term, name in ((bound.maximise, "weights"), (bound.subject_to[0], "limit"))
        ]
        poisoned = replace(bound, maximise=unknown[0], subject_to=(unknown[1],))
        alone = BaseStations.of(poisoned, local).alone(k)
        assert all(torch.isfinite(each).all() for each in alone)
        own = Polite().beams(alone, Recorder(everybody.kept, k))
        torch.testing.assert_close(own[:, 0], W[:, k], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("when", [0, 1, 2])
def test_the_others_go_on_with_what_they_last_heard_or_with_the_bound(when):
    problem, instance = question(count=2)
    with apart(Polite(culprit=1, when=when, what="die"), 3, time_limit=0.4) as operator:
        solution = operator.solve(problem, instance)
        again = operator.solve(problem, instance)
    assert solution.info["missed"].tolist() == [[False, True, False]] * 2
    assert solution.status.tolist() == [Status.MAX_ITERATIONS] * 2
    assert (solution.W[..., 1] == 0).all() and again.info["missed"].tolist() == [[False, True, False]] * 2

    class Silenced(SharedMemory):
        def exchange(self, sent, otherwise=0.0):
            self.scalars += 1
            heard = super().exchange(sent)
            if self.scalars > 7 * when:
                heard[..., 1] = otherwise[..., 1]
                heard[:, 1] = 0
            return heard

    expected = Polite().beams(BaseStations.of(problem.bind(instance.truth), instance.truth), Silenced()).mT
    for k in (0, 2):
        torch.testing.assert_close(solution.W[..., k], expected[..., k], rtol=1e-9, atol=1e-9)


def test_one_that_is_late_is_missed_and_comes_back():
    problem, instance = question(count=2)
    method = Polite()
    expected = method.solve(problem, instance).W
    with apart(method, 3, time_limit=0.3) as operator:
        os.kill(operator.pids[2], signal.SIGSTOP)
        began = time.monotonic()
        solution = operator.solve(problem, instance)
        assert time.monotonic() - began < 3
        assert solution.info["missed"].tolist() == [[False, False, True]] * 2
        os.kill(operator.pids[2], signal.SIGCONT)
        end = time.monotonic() + 20
        while operator.solve(problem, instance).info["missed"].any() and time.monotonic() < end:
            time.sleep(0.1)
        torch.testing.assert_close(operator.solve(problem, instance).W, expected, rtol=1e-9, atol=1e-9)


def test_one_killed_at_any_moment_holds_nobody_up():
    """Some are dead before they are asked, some die at work, some when all is over."""
    chance, limit = random.Random(0), 0.2
    problem, instance = question(count=2, cells=3)
    missed = 0
    for _ in range(KILLS):
        victim = chance.randrange(3)
        with apart(Polite(rounds=30), 3, time_limit=limit) as operator:
            death = threading.Timer(chance.uniform(0, 0.12), os.kill, (operator.pids[victim], signal.SIGKILL))
            began = time.monotonic()
            death.start()
            solutions = [operator.solve(problem, instance) for _ in range(2)]
            assert time.monotonic() - began < 2 * limit + 5
            death.join()
        for solution in solutions:
            assert torch.isfinite(solution.W.abs()).all()
            assert set(solution.info["missed"].nonzero()[:, 1].tolist()) <= {victim}
            alive = torch.arange(3) != victim
            assert (solution.W[..., alive].abs().square().sum(-2) > 0).all()
        missed += int(solutions[-1].info["missed"].any())
    assert missed >= KILLS // 4


def test_refusals():
    problem, instance = question()
    with (
        apart(Polite(culprit=2, what="refuse"), 3, 0.2) as operator,
        pytest.raises(ConfigError, match=r"in \[0, 1\], got 2"),
    ):
        operator.solve(problem, instance)
    with apart(Polite(), 2) as operator, pytest.raises(ConfigError, match="must be as many as processes"):
        operator.solve(problem, instance)
    nothing = replace(problem, maximise=MinRate(torch.tensor([0.0, 0.0, 0.0], dtype=torch.float64)))
    with apart(Polite(), 3) as operator, pytest.raises(ConfigError, match="weights must be positive for some user"):
        operator.solve(nothing, instance)
