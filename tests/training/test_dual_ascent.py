"""Dual ascent computed by hand, in one process and in two, and resumed after a kill."""

from __future__ import annotations

import signal

import pytest
import torch
from safetensors.torch import load_file
from training import toy_fair
from training.runs import TWO_PROCESSES, end, run_here, start

from beamforge.core.errors import ConfigError
from beamforge.training import log
from beamforge.training.dual_ascent import DualAscent


def test_the_price_follows_the_violation():
    dual = DualAscent(target=0.8, price=0.01, step=0.1, tolerance=0.05)
    expected = 0.01
    for value, change in ((0.5, 0.03), (0.74, 0.006), (0.76, 0.0), (0.84, 0.0), (0.9, -0.01)):
        dual.adapt(value)
        expected += change
        assert dual.price.item() == pytest.approx(expected, rel=1e-6)
    dual.adapt(1.5)
    assert dual.price.item() == 0, "a negative price would reward violations"
    assert "price" in dual.state_dict()


def test_only_a_violation_is_penalised():
    dual = DualAscent(target=0.8, price=3.0)
    value = torch.tensor([0.7, 0.9], requires_grad=True)
    cost = dual.penalty(value)
    torch.testing.assert_close(cost, torch.tensor([0.3, 0.0]))
    cost.sum().backward()
    torch.testing.assert_close(value.grad, torch.tensor([-3.0, 0.0]))


@pytest.mark.parametrize("wrong", [{"price": -1.0}, {"step": 0.0}, {"tolerance": -1e-3}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DualAscent(0.8, **wrong)


def prices(run):
    return [line["price"] for line in log.read(run / "log.jsonl") if "price" in line]


def test_two_processes_agree_on_the_price_and_a_killed_run_resumes_it(tmp_path):
    shared = start(toy_fair, tmp_path, "--out", "shared", launcher=TWO_PROCESSES)
    run_here(toy_fair, tmp_path, "--out", "whole")
    end(start(toy_fair, tmp_path, "--out", "parts", TOY_SIGNAL=f"{signal.SIGKILL:d}@13"), -signal.SIGKILL)
    end(start(toy_fair, tmp_path, "--out", "parts", "--resume"))
    end(shared)
    one, two, three = (load_file(tmp_path / run / "weights.safetensors") for run in ("whole", "parts", "shared"))
    assert all(torch.equal(two[name], value) for name, value in one.items())
    for name, value in one.items():
        torch.testing.assert_close(three[name], value, rtol=1e-9, atol=1e-11)
    assert prices(tmp_path / "whole") == prices(tmp_path / "parts")
    assert prices(tmp_path / "shared") == pytest.approx(prices(tmp_path / "whole"), rel=1e-9)
    assert len(set(prices(tmp_path / "whole"))) > 10, "the price never moved"
    run_here(toy_fair, tmp_path, "--out", "half", "--set", "run.precision=16", "--set", "run.steps=2")
    kept = load_file(tmp_path / "half" / "weights.safetensors")
    assert kept["net.0.weight"].dtype == torch.bfloat16 and kept["dual.price"].dtype == torch.float32
    assert (tmp_path / "whole" / "curves.png").stat().st_size > 10_000
