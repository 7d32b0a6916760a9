"""Sensing SNRs and rates against NumPy, and errors."""

import numpy as np
import pytest
import torch

from beamforge import ConfigError, Network, ShapeError, evaluate
from beamforge.core.beams import Beams
from beamforge.core.named_problems import build_problem
from beamforge.core.problem import Problem
from beamforge.core.sensing import RateAndSensing, SensingSnrAtLeast, steering
from beamforge.core.utilities import SumRate
from beamforge.scenarios import Isac

INSTANCE = Isac(users=3, antennas=6, targets=2).sample(4, seed=1, dtype=torch.complex128)


def beams(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.2 * torch.randn(4, 6, 9, dtype=torch.complex128, generator=generator)


def sensing_snr(W):
    """Eq. 27 with the matrices G_m written out."""
    angles, gain = (INSTANCE.context[name].numpy() for name in ("target_angles", "target_gain"))
    found = np.zeros(angles.shape)
    for b, m in np.ndindex(*angles.shape):
        a = np.exp(1j * np.pi * np.arange(6) * np.sin(angles[b, m])) / np.sqrt(6)
        G = gain[b, m] * np.outer(a, a.conj())
        found[b, m] = np.linalg.norm(G @ W[b].numpy()) ** 2 / 0.01
    return found


def test_sensing_snr_of_all_streams():
    problem, W = build_problem("isac", INSTANCE.context), beams()
    report = evaluate(problem, INSTANCE, W)
    expected = sensing_snr(W)
    np.testing.assert_allclose(report.figures["sensing_snr"], expected, rtol=1e-10)
    level = 10**0.5
    np.testing.assert_allclose(report.violation["SensingSnrAtLeast"], (1 - expected / level).max(-1), rtol=1e-9)
    only_data = W.clone()
    only_data[..., 3:] = 0
    assert (evaluate(problem, INSTANCE, only_data).rate >= report.rate).all()  # sensing streams interfere


def test_sum_of_communication_and_sensing_rates():
    stated = {name: value for name, value in INSTANCE.context.items() if name != "sensing_snr_target"}
    problem, W = build_problem("isac", stated | {"sensing_weight": 0.5}), beams()
    assert isinstance(problem.maximise, RateAndSensing)
    report = evaluate(problem, INSTANCE, W)
    expected = INSTANCE.truth.rate(W).sum(-1).numpy() + 0.5 * np.log2(1 + sensing_snr(W)).sum(-1)
    np.testing.assert_allclose(report.utility, expected, rtol=1e-10)


def test_merged_constraints_enforce_both():
    one = SensingSnrAtLeast([0.1], [1.0], 0.02, [3.0])
    two = SensingSnrAtLeast([0.7, 0.2], [2.0, 1j], 0.01, [5.0])
    both = Problem(SumRate(), (one, two)).bind(INSTANCE.truth)
    merged, W = both.merged().subject_to[0], beams()
    worst = torch.stack([limit.violation(INSTANCE, Beams(W)) for limit in both.subject_to]).amax(0)
    torch.testing.assert_close(merged.violation(INSTANCE, Beams(W)), worst)


def test_steering_vectors_have_norm_one():
    a = steering(torch.linspace(-1.5, 1.5, 7, dtype=torch.float64), 5)
    torch.testing.assert_close(torch.linalg.vector_norm(a, dim=-2), torch.ones(7, dtype=torch.float64))


def test_errors():
    gain, H = torch.ones(1, dtype=torch.complex64), torch.ones(2, 3, dtype=torch.complex64)
    for angle, words in ((2.0, "radians in"), (90.0, "radians in")):
        with pytest.raises(ShapeError, match=words):
            SensingSnrAtLeast(torch.tensor([angle]), gain).bind(Network.broadcast(H, 1.0))
    with pytest.raises(ShapeError, match="at least one target"):
        SensingSnrAtLeast(torch.zeros(0), gain[:0]).bind(Network.broadcast(H, 1.0))
    with pytest.raises(ShapeError, match="one transmitter"):
        SensingSnrAtLeast(torch.zeros(1), gain).bind(Network.interference(H.expand(2, 2, 3), 1.0))
    for lacking in ("target_angles", "target_gain", "p_max"):
        with pytest.raises(ConfigError, match=lacking):
            build_problem("isac", {name: value for name, value in INSTANCE.context.items() if name != lacking})
    with pytest.raises(ConfigError, match="either sensing_snr_target or sensing_weight"):
        build_problem("isac", {**INSTANCE.context, "sensing_weight": 1.0})
