"""Weights and SNRs that networks for interference channels were not trained for are refused or reported."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.cli import main
from beamforge.core.errors import ConfigError
from beamforge.core.named_problems import build_problem
from beamforge.registry import create
from beamforge.scenarios.interference import Interference


def answer(method, weights, problem="sum-rate", snr_db=10.0):
    instance = Interference(cells=4, snr_db=snr_db).sample(len(weights), seed=3)
    stated = build_problem(problem, {**instance.context, "weights": weights}).bind(instance.truth)
    return create(stated, instance.truth, method).solve(stated, instance)


@pytest.mark.parametrize("method", ["itnet-dualnet", "dbl", "nfl"])
def test_weights_above_one_are_refused_by_the_networks_of_the_paper(method):
    with pytest.raises(ConfigError, match=r"weights must be in \[0, 1\], got 1.5; divide them by the largest"):
        answer(method, torch.tensor([[1.0, 1.5, 0.5, 0.2]]))


@pytest.mark.parametrize("method", ["itnet-dualnet", "multipliers"])
@pytest.mark.parametrize(
    ("snr_db", "outside"), [(10.0, False), (-5.0, False), (25.0, False), (45.0, True), (-25.0, True)]
)
def test_instances_outside_the_trained_snrs_are_marked(method, snr_db, outside):
    solution = answer(method, torch.ones(5, 4), snr_db=snr_db)
    assert (solution.info["outside_trained_range"] == outside).all()


@pytest.mark.parametrize("more", [[], ["--decentralised"]])
def test_the_summary_warns_of_them(more, tmp_path, capsys):
    path = str(tmp_path / "channels.npz")
    H = Interference(cells=2, snr_db=0.0).sample(3, seed=4).truth.H.numpy()
    np.savez(path, H=H, noise=np.array([1.0, 1.0, 1e-6])[:, None] * np.ones(2), p_max=1.0)
    call = ["solve", path, "--problem", "sum-rate", "--method", "itnet-dualnet", "--out", str(tmp_path / "out.npz")]
    assert main([*call, *more]) == 0
    assert "warning: 1 instances are outside the range that itnet-dualnet was trained on" in capsys.readouterr().out
