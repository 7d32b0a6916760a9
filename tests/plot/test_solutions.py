"""The lines of the figures are those of the solutions' numbers, computed here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import beamforge
from beamforge import ConfigError, ShapeError, plot
from beamforge.core.sensing import steering

H = torch.randn(4, 3, 5, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))


def solved(method="wmmse", channels=H, **stated):
    return beamforge.solve(channels, noise=0.1, p_max=2.0, method=method, **stated)


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_rate_cdf(kind):
    channels = H if kind == "torch" else H.numpy()
    rate = np.asarray(solved("rzf", channels).rate).ravel()
    ax = plot.rate_cdf({"rzf": solved("rzf", channels), "given": np.array([[1.0, np.nan], [3.0, 2.0]])}).axes[0]
    first, second = ax.get_lines()
    np.testing.assert_allclose(first.get_xdata()[1:], np.sort(rate))
    np.testing.assert_allclose(first.get_ydata(), np.arange(13) / 12)
    assert second.get_xdata().tolist() == [0, 1, 2, 3] and second.get_ydata()[-1] == 1
    alone = plot.rate_cdf(solved("rzf", channels))
    assert not alone.legends and len(alone.axes[0].get_lines()) == 1


def test_trace():
    wmmse = solved(starts=1, acceleration="none", max_iterations=5)
    figure = plot.trace({"wmmse": wmmse, "fastfp": solved("fastfp")})
    drawn = figure.axes[0].get_lines()[0]
    np.testing.assert_allclose(drawn.get_ydata(), wmmse.trace.mean(0))
    assert figure.axes[0].get_ylabel() == "Mean utility (bit/s/Hz)"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["wmmse", "fastfp"]
    with pytest.raises(ConfigError, match="no trace of rzf"):
        plot.trace({"rzf": solved("rzf")})


def test_frontier_is_ordered_by_fairness_without_unsolved_instances():
    fair = [solved("wslnr", problem="fair-sum-rate", jain=limit) for limit in (0.99, 0.9)]
    (drawn,) = plot.frontier({"wslnr": fair}).axes[0].get_lines()
    jain, rate = drawn.get_data()
    assert (np.diff(jain) >= 0).all()
    known = [(float(each.report.jain.mean()), float(each.rate.sum(-1).mean())) for each in fair]
    np.testing.assert_allclose(sorted(zip(jain, rate, strict=True)), sorted(known))


@pytest.mark.parametrize("shape", [(), (4,), (2, 2)])
def test_beam_pattern(shape):
    channels = H[0] if shape == () else H.reshape(*shape, 3, 5)
    solution = solved("mrt", channels)
    place = 0 if shape == () else 3
    W = solution.W.reshape(-1, 5, 3)[place]
    drawn = plot.beam_pattern(solution, place).axes[0].get_lines()[0]
    angle = torch.tensor(np.radians(drawn.get_xdata()), dtype=torch.float64)
    power = (steering(angle, 5).mH @ W).abs().square().sum(-1)
    np.testing.assert_allclose(drawn.get_ydata(), 10 * np.log10(power.numpy()), atol=1e-6)
    with pytest.raises(ShapeError, match="instance must be"):
        plot.beam_pattern(solution, place + 1)


def test_beam_pattern_of_numpy_beams_and_of_a_solver():
    assert plot.beam_pattern(solved("mrt", H.numpy()), 1).axes[0].get_lines()
    from beamforge.classical.linear import MRT

    solution = solved("mrt")
    alone = MRT().solve(solution.asked.problem, solution.asked.instance)
    with pytest.raises(LookupError, match=r"beamforge\.solve"):
        plot.beam_pattern(alone)
