"""``beamforge reproduce`` on tiny instances, and the parts that its figures are made of."""

from __future__ import annotations

import csv
import importlib
import math

import numpy as np
import pytest
import torch
from oracles_sumrate import sum_rate

from beamforge.bench.statistics import Estimate, percent_of_mean
from beamforge.bench.timing import one_thread
from beamforge.cli import main
from beamforge.core.errors import ConfigError
from beamforge.core.evaluate import evaluate
from beamforge.core.named_problems import build_problem
from beamforge.learned.multipliers.sum_rate import SumRateMultipliers
from beamforge.reproduce.exhibits import Goal, Table
from beamforge.reproduce.multipliers import time_to_rate
from beamforge.reproduce.multipliers.methods import ANNEALED, Learned, Wmmse
from beamforge.scenarios import Rayleigh
from beamforge.scenarios.base import Scenario

multipliers = importlib.import_module("beamforge.reproduce.multipliers.tables")
FILES = {"steps.csv", "rate-steps.png", "time.csv", "rate-time.csv", "rate-time.png", "goals.csv"}


class Missing(Scenario):
    def sample(self, *arguments, **options):
        raise ConfigError("these channels need something")


@pytest.fixture
def tiny(monkeypatch):
    """Three cases, one of which cannot be sampled here, and a short time_to_rate."""
    square, _, *_, munich, _ = multipliers.CASES
    cases = (
        multipliers.Case("small", Rayleigh(4, 4, 20.0), {1: 1.0, 10: 1000.0}),
        multipliers.Case("absent", Missing()),
        munich,
    )
    assert square.source == Rayleigh(16, 16, 20.0)
    monkeypatch.setattr(multipliers, "CASES", cases)
    monkeypatch.setattr(multipliers, "PICTURED", ("small", "Munich, ray-traced, 16×64"))
    monkeypatch.setattr(multipliers, "QUICK", 4)
    monkeypatch.setattr(multipliers, "CONVERGED", 40)
    monkeypatch.setattr(time_to_rate, "SOURCE", Rayleigh(6, 6, 20.0))
    monkeypatch.setattr(time_to_rate, "BATCH", 8)
    monkeypatch.setattr(time_to_rate, "CURVE", (1, 5))


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_figures_and_goals(tiny, tmp_path, capsys):
    out = tmp_path / "a" / "b"
    np.savez(
        tmp_path / "johnston_n16k16.npz",
        H=torch.randn(2, 16, 16, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)).numpy(),
        snr_db=np.array([0.0, 20.0]),
        published_rnn_sum_rate=np.array([[1.0, 3.0], [5.0, 7.0]]),
    )
    arguments = ["reproduce", "multipliers", "--quick", "--set", "checkpoint=random", "--out", str(out)]
    assert main([*arguments, "--peers", str(tmp_path)]) == 0
    said, err = capsys.readouterr()
    assert err == "" and "threads 1" in said and "commit" in said
    assert {path.name for path in out.iterdir()} == FILES | {"published.csv"}
    assert all(str(out / name) in said for name in FILES)

    steps = rows(out / "steps.csv")
    assert [row["Method"] for row in steps[:5]] == [
        "multipliers",
        "wmmse from RZF",
        "wmmse, best start",
        "squarem, best start",
        "wmmse, annealed",
    ]
    assert steps[5]["Channels"] == "absent" and steps[5]["Method"] == "left out: these channels need something"
    small = {row["Method"]: row for row in steps if row["Channels"] == "small"}
    assert [name for name, row in small.items() if row["1"] == ""] == ["squarem, best start", "wmmse, annealed"]
    assert float(small["wmmse, best start"]["3"]) >= float(small["wmmse from RZF"]["3"])
    assert float(small["wmmse from RZF"]["50 ±"]) < float(small["wmmse from RZF"]["1 ±"]) < 50
    assert f"{float(small['multipliers']['10']):.2f}" in said

    goals = {row[""]: row for row in rows(out / "goals.csv")}
    assert goals["small: percent after 1"]["Met"] == "yes" and goals["small: percent after 1"]["Wanted"] == "≥ 1"
    assert goals["small: percent after 10"]["Met"] == "NO"
    assert goals["Munich, ray-traced, 16×64: after 3, percent of 10 from RZF"]["Wanted"] == "≥ 100"
    ratios = [row for name, row in goals.items() if name.startswith("time to")]
    assert [row["Wanted"] for row in ratios] == ["≤ 0.4", "", "≤ 0.25", ""]
    published = rows(out / "published.csv")
    assert [row["Published"] for row in published] == ["2.0", "6.0"]
    assert goals["published channels, 20 dB: rate after 10"]["Wanted"] == "≥ 71"
    time = rows(out / "time.csv")
    assert all(float(row["Time (ms)"]) > 0 and 0 <= int(row["Steps"]) <= time_to_rate.MAX_STEPS for row in time)
    assert {row["Percent"] for row in time} == {"99", "99.9"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["multipleirs"], ["unknown paper 'multipleirs'", "did you mean 'multipliers'"]),
        (["multipliers", "--set", "checkpoint=/nowhere"], ["must be a safetensors file", "/nowhere"]),
        (["multipliers", "--set", "weights"], ["--set must be name=value"]),
        (["multipliers", "--set", "checkpoint=random", "--peers", "/nowhere", "--quick"], ["peers must be a folder"]),
        (["multipliers", "--out", "file/x"], ["out must be a folder that can be written"]),
    ],
)
def test_invalid_requests_are_rejected_in_one_sentence(arguments, words, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(multipliers, "CASES", ())
    monkeypatch.setattr(multipliers, "PICTURED", ("none",))
    (tmp_path / "file").write_text("")
    assert main(["reproduce", *arguments]) == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1 and all(word in sentence for word in words), sentence


# --- ways ------------------------------------------------------------------------------------------------------------
def drawn(K=5, N=4):
    instance = Rayleigh(K, N, 20.0).sample(6, seed=5, dtype=torch.complex128)
    return build_problem("sum-rate", instance.context).bind(instance.truth), instance


@torch.no_grad()
def after(method, steps):
    problem, instance = drawn()
    return evaluate(problem, instance, method.beams(problem, instance, steps)).utility


def reduced_wmmse(h, noise, steps):
    """From the beams of RZF with one common scale, in NumPy: receivers u, weights w, beams, the power in the noise."""
    K = len(h)
    W = h.conj().T @ np.linalg.inv(h @ h.conj().T + K * noise * np.eye(K))
    for _ in range(steps):
        A = h @ W
        interference = np.sum(np.abs(A) ** 2, 1) - np.abs(np.diag(A)) ** 2 + noise * np.sum(np.abs(W) ** 2)
        total = interference + np.abs(np.diag(A)) ** 2
        u, w = np.diag(A) / total, total / interference
        q = w * np.abs(u) ** 2
        W = h.conj().T @ np.linalg.inv(np.diag(q) @ h @ h.conj().T + noise * q.sum() * np.eye(K)) @ np.diag(w * u)
    return W / np.linalg.norm(W)


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_a_step_is_receivers_weights_and_beams_once(steps):
    _, instance = drawn()
    H, noise = instance.truth.H.numpy(), instance.truth.noise.numpy()
    expected = [sum_rate(H[i], reduced_wmmse(H[i, 0], noise[i, 0], steps), [0] * 5, noise[i]) for i in range(6)]
    np.testing.assert_allclose(after(Wmmse("RZF"), steps).numpy(), expected, rtol=1e-7)


def test_steps_are_counted_equally():
    """Polishing is WMMSE: learned beams of n steps are n more from those of none; heated steps count."""
    learned = Learned(SumRateMultipliers(checkpoint="random"))
    rising = torch.stack([after(learned, n) for n in (0, 1, 2, 8)], -1)
    assert (rising.diff(dim=-1) >= -1e-9).all()
    for method, least in ((Wmmse("RZF"), 1), (Wmmse("MRT", "squarem"), 2), (Wmmse(ANNEALED), 5)):
        assert method.min_steps == least
    assert Wmmse(ANNEALED, "anderson").min_steps == 6
    torch.testing.assert_close(after(Wmmse("RZF", "squarem"), 2), after(Wmmse("RZF"), 2))
    assert (after(Wmmse("RZF"), 2) > after(Wmmse("RZF"), 1)).all()


def test_the_least_number_of_steps():
    track = time_to_rate.TimedBatch(8)
    method = Wmmse("RZF")
    for steps in (1, 2, 7):
        rate = track.run(method, steps)
        assert track.fewest_steps(method, rate) == steps
        assert track.fewest_steps(method, rate * (1 + 1e-6)) == steps + 1
    assert track.fewest_steps(method, 1e3) is None


# --- numbers and tables ----------------------------------------------------------------------------------------------
def test_percent_of_mean_interval_coverage():
    """95 % of intervals hold the true ratio of means, 102 %, whatever the spread that both methods share."""
    rng = np.random.default_rng(0)
    hits, repeats = 0, 600
    for _ in range(repeats):
        shared = rng.lognormal(3, 0.5, 60)
        found = percent_of_mean(1.02 * shared + rng.normal(0, 0.5, 60), shared)
        hits += abs(found.value - 102) <= found.half
    assert 0.92 < hits / repeats < 0.975
    assert percent_of_mean(1.02 * shared, shared) == Estimate(pytest.approx(102), pytest.approx(0, abs=1e-9))


def test_a_goal_is_met_at_its_limit_and_never_by_nan():
    assert Goal("", Estimate(99.5, 3.0), 99.5).met and not Goal("", 99.49, 99.5).met
    assert Goal("", 0.4, 0.4, at_most=True).met and not Goal("", 0.41, 0.4, at_most=True).met
    assert not Goal("", math.nan, 0.4).met and not Goal("", math.nan, 0.4, at_most=True).met
    assert Goal("", 1.0, None).met is None
    table = Goal.table([Goal("a", 1.0, 0.0), Goal("b", 1.0, 2.0), Goal("c", 1.0, None)])
    assert table.title == "Goals: 1 of 2 met"
    assert table.texts() == [["a", "1.000", "≥ 0", "yes"], ["b", "1.000", "≥ 2", "NO"], ["c", "1.000", "–", "–"]]


def test_a_table_keeps_every_digit():
    table = Table("t", "", ["what", "x", "y"], [["a, b", Estimate(1 / 3, 0.125), 2], ["c", None, 1e-9]])
    assert table.content().decode() == f'what,x,x ±,y\n"a, b",{1 / 3},0.125,2\nc,,,1e-09\n'


def test_number_of_threads_is_restored():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
