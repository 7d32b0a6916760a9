"""Quantised DFT feedback against a plain implementation, and what the scenario draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.core.errors import ConfigError
from beamforge.scenarios import UPA, FeedbackCSI
from beamforge.scenarios.feedback import dft_feedback, feedback_bits
from tests.oracles import channels


def fed_back(h, beams, columns, rows):
    """The feedback of one channel, by loops over bases and coefficients."""
    best = None
    for r in range(4):
        for s in range(4):
            basis = np.zeros((columns * rows, columns * rows), complex)
            for c in range(columns):
                for d in range(rows):
                    for m in range(columns):
                        for n in range(rows):
                            phase = m * (c + r / 4) / columns + n * (d + s / 4) / rows
                            basis[m * rows + n, c * rows + d] = np.exp(2j * np.pi * phase) / np.sqrt(columns * rows)
            x = basis.conj().T @ h
            kept = np.argsort(-np.abs(x), kind="stable")[:beams]
            y = np.zeros_like(x)
            for place in kept:
                ratio = x[place] / x[kept[0]]
                levels = [0] + [2 ** (-i / 2) for i in range(7)]
                amplitude = min(levels, key=lambda level: abs(level - abs(ratio)))
                phases = [np.exp(2j * np.pi * i / 8) for i in range(8)]
                phase = min(phases, key=lambda each: abs(each - ratio / abs(ratio)))
                y[place] = amplitude * phase * x[kept[0]]
            g = basis @ y
            if best is None or np.linalg.norm(h - g) < np.linalg.norm(h - best):
                best = g
    return best


@pytest.mark.parametrize("beams", [1, 2, 4])
def test_feedback_by_loops(beams):
    h = channels(6, 8, seed=1)
    found = dft_feedback(torch.from_numpy(h), torch.tensor(beams), 4, 2)
    for i in range(6):
        np.testing.assert_allclose(found[i], fed_back(h[i], beams, 4, 2), atol=1e-12)


def test_more_beams_have_a_smaller_error_and_a_beam_of_the_dft_has_none():
    h = torch.from_numpy(channels(200, 8, seed=2))
    errors = [(h - dft_feedback(h, torch.tensor(n), 4, 2)).abs().square().mean().item() for n in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.1 * errors[0]
    assert (dft_feedback(0 * h[:1], torch.tensor(2), 4, 2) == 0).all()
    alone = [dft_feedback(h[i], torch.tensor(1 + i), 4, 2) for i in range(3)]
    torch.testing.assert_close(dft_feedback(h[:3], torch.tensor([1, 2, 3]), 4, 2), torch.stack(alone))


def test_bits_of_a_feedback():
    """4 bits name the basis; then which beams, which of them is strongest, and 6 bits for each other beam."""
    assert feedback_bits(1, 32) == 4 + 5
    assert feedback_bits(2, 32) == 4 + 9 + 1 + 6
    assert feedback_bits(4, 32) == 4 + 16 + 2 + 18


def test_the_scenario_feeds_the_true_channels_back():
    small = UPA(users=2, columns=4, rows=2, angular_spread_deg=5.0)
    scenario = FeedbackCSI(small, beams_low=1, beams_high=3)
    instance = scenario.sample(40, seed=4, dtype=torch.complex128)
    truth = small.sample(40, seed=4, dtype=torch.complex128)
    torch.testing.assert_close(instance.truth.H, truth.truth.H, rtol=0, atol=0)
    h, g = instance.truth.channel.numpy().conj(), instance.observation.network.channel.numpy().conj()
    bits = {feedback_bits(n, 8): n for n in (1, 2, 3)}
    counts = [bits[int(each)] for each in instance.context["csi_quality"]]
    assert set(counts) == {1, 2, 3}
    for i in range(5):
        for k in range(2):
            np.testing.assert_allclose(g[i, k], fed_back(h[i, k], counts[i], 4, 2), atol=1e-12)
    assert (instance.truth.H[7].to(torch.complex64) == scenario.sample(1, seed=4, first=7).truth.H).all()


def test_sample_covariance_of_earlier_feedbacks():
    """For many samples of many beams it approaches the true covariance; its rank is at most their number."""
    small = UPA(users=2, columns=2, rows=2)
    many = FeedbackCSI(small, beams_low=4, beams_high=4, samples=3000).sample(1, dtype=torch.complex128)
    true = FeedbackCSI(small, beams_low=4, beams_high=4).sample(1, dtype=torch.complex128).context["covariance"]
    difference = torch.linalg.matrix_norm(many.context["covariance"] - true) / torch.linalg.matrix_norm(true)
    assert difference.max() < 0.15  # the quantisation alone changes some per cent
    few = FeedbackCSI(small, samples=2, beams_high=3).sample(3, dtype=torch.complex128).context["covariance"]
    assert (torch.linalg.matrix_rank(few, hermitian=True) <= 2).all()


@pytest.mark.parametrize(("name", "value"), [("beams_low", 0), ("beams_high", 1), ("beams_high", 33), ("samples", -1)])
def test_fields_out_of_range(name, value):
    with pytest.raises(ConfigError, match=name):
        FeedbackCSI(**{name: value})
