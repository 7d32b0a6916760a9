"""`evaluate` against numbers computed by hand."""

import numpy as np
import torch

from beamforge import Instance, Network, Problem, evaluate
from beamforge.core.constraints import PerAntennaPower, PerTransmitterPower, SinrAtLeast, TotalPower, jain_index
from beamforge.core.utilities import MinRate, MinSinr, SumRate, TransmitPower

H = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.complex128)
W = torch.tensor([[1.0, 0.0], [1.0, 2.0]], dtype=torch.complex128)  # user 2 receives amplitude 1 of user 1's beam
NETWORK = Network.broadcast(H, noise=torch.tensor([1.0, 3.0], dtype=torch.float64))  # SINR 9 and 4 / (1 + 3) = 1


def test_every_utility_by_hand():
    weights = torch.tensor([0.5, 2.0], dtype=torch.float64)
    cases = {
        SumRate(): np.log2(10) + 1,
        SumRate(weights): 0.5 * np.log2(10) + 2,
        MinRate(): 1.0,
        MinRate(weights): 0.5 * np.log2(10),
        MinSinr(torch.tensor([18.0, 0.5], dtype=torch.float64)): 0.5,
        TransmitPower(): 6.0,
    }
    for utility, expected in cases.items():
        np.testing.assert_allclose(evaluate(Problem(utility), NETWORK, W).utility, expected, rtol=1e-12)


def test_violations_are_relative_and_flagged():
    limits = (TotalPower(4.0), PerAntennaPower(torch.tensor([2.0, 2.5], dtype=torch.float64)), SinrAtLeast(2.0))
    report = evaluate(Problem(SumRate(), limits), NETWORK, W)
    expected = {"TotalPower": 0.5, "PerAntennaPower": 1.0, "SinrAtLeast": 0.5}
    assert {name: round(value.item(), 12) for name, value in report.violation.items()} == expected
    assert not report.feasible
    assert evaluate(Problem(SumRate(), (PerTransmitterPower(6.0),)), NETWORK, W).feasible


def test_beams_are_scored_on_the_truth_not_on_the_estimate():
    blurred = Network.broadcast(H * 0.5, noise=torch.tensor([1.0, 3.0], dtype=torch.float64))
    report = evaluate(Problem(SumRate()), Instance.estimated(NETWORK, blurred), W)
    np.testing.assert_allclose(report.sinr, [9.0, 1.0], rtol=1e-12)


def test_jain_index_of_known_shares():
    rates = torch.tensor([[1.0, 1.0, 1.0, 1.0], [4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [2.0, 1.0, 0.0, 1.0]])
    np.testing.assert_allclose(jain_index(rates), [1.0, 0.25, 1.0, 16 / 24], rtol=1e-6)
