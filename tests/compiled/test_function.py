"""Compiled methods agree with `beamforge.solve` to rounding, for every size, precision and kind of array."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import beamforge
from beamforge import ConfigError, ShapeError
from beamforge.compiled.lapack import loaded_inverse

NOISE, POWER = 0.02, 3.0


def channel(K, N, seed=0, dtype=np.complex128):
    rng = np.random.default_rng(seed)
    return ((rng.standard_normal((K, N)) + 1j * rng.standard_normal((K, N))) / np.sqrt(2)).astype(dtype)


def received(H, W):
    return np.abs(H @ W) ** 2


def rate(H, W, noise=NOISE, weights=1.0):
    power = received(H, W)
    signal = power.diagonal()
    return float((weights * np.log2(1 + signal / (power.sum(-1) - signal + noise))).sum())


def assert_same(H, one, other, tolerance, noise=NOISE):
    a, b = received(H, one), received(H, other)
    assert (np.abs(a - b) <= tolerance * (a.max(-1, keepdims=True) + noise)).all()


@pytest.mark.parametrize(("K", "N"), [(1, 1), (1, 5), (2, 2), (3, 8), (6, 6), (12, 9), (20, 32)])
@pytest.mark.parametrize("steps", [0, 1, 3, 5])
@pytest.mark.parametrize("snr_db", [0, 10, 20])
def test_multipliers(K, N, steps, snr_db):
    noise = POWER * 10 ** (-snr_db / 10)
    beams = beamforge.compile("multipliers", noise=noise, p_max=POWER, steps=steps)
    for seed in range(4):
        H = channel(K, N, seed)
        expected = beamforge.solve(H, noise=noise, p_max=POWER, method="multipliers", steps=steps).W
        assert_same(H, beams(H), expected, 1e-6, noise)
        single = beams(H.astype(np.complex64))
        assert single.dtype == np.complex64
        assert rate(H, single, noise) >= rate(H, expected, noise) * (1 - 2e-3)
        assert np.vdot(single, single).real == pytest.approx(POWER, rel=1e-5)


@pytest.mark.parametrize("method", ["rzf", "slnr", "mrt"])
@pytest.mark.parametrize(("K", "N"), [(1, 1), (4, 7), (6, 6), (9, 5)])
@pytest.mark.parametrize("scale", [1e-3, 1, 10])
def test_closed_forms(method, K, N, scale):
    beams, H = beamforge.compile(method, noise=NOISE, p_max=POWER), scale * channel(K, N, 3)
    expected = beamforge.solve(H, noise=NOISE, p_max=POWER, method=method).W
    assert_same(H, beams(H), expected, 1e-7)
    single = beams(H.astype(np.complex64))
    assert single.dtype == np.complex64 and single.shape == (N, K)
    assert rate(H, single) == pytest.approx(rate(H, expected), rel=5e-3)


def test_a_tiny_channel_does_not_underflow():
    H = (1e-25 * channel(3, 4)).astype(np.complex64)
    W = beamforge.compile("mrt", noise=1e-38, p_max=1.0)(H)
    np.testing.assert_allclose((np.abs(W) ** 2).sum(0), np.full(3, 1 / 3), rtol=1e-5)


def test_noise_and_weights_of_each_user():
    H, noise, weights = channel(4, 6), np.array([0.01, 0.1, 0.03, 0.2]), np.array([1.0, 0.2, 3.0, 1.0])
    for method, settings in (("multipliers", {"steps": 2}), ("rzf", {})):
        beams = beamforge.compile(method, noise=noise, p_max=POWER, weights=weights, **settings)
        known = beamforge.solve(H, noise=noise, p_max=POWER, weights=weights, method=method, **settings)
        assert_same(H, beams(H), known.W, 1e-6, noise[:, None])


def test_a_user_with_weight_zero_gets_no_power():
    H, weights = channel(4, 6), np.array([1.0, 0.0, 1.0, 1.0])
    W = beamforge.compile("multipliers", noise=NOISE, p_max=POWER, weights=weights)(H)
    known = beamforge.solve(H, noise=NOISE, p_max=POWER, weights=weights, method="multipliers").W
    assert_same(H, W, known, 1e-6)
    assert np.abs(W[:, 1]).max() < 1e-9


def test_outside_the_trained_range_the_answer_is_that_of_solve():
    beams = beamforge.compile("multipliers", noise=NOISE, p_max=POWER)
    weak, blocked, many = 1e-6 * channel(3, 4), channel(3, 4), channel(12, 2)
    blocked[1] = 0
    for H in (weak, blocked, many):
        known = beamforge.solve(H, noise=NOISE, p_max=POWER, method="multipliers")
        np.testing.assert_array_equal(beams(H), known.W)


def test_torch_tensors_and_views():
    beams = beamforge.compile("multipliers", noise=NOISE, p_max=POWER)
    H = torch.from_numpy(channel(5, 4))
    for view in (H, H.conj(), H.T, H[::2, 1:]):
        W = beams(view)
        assert isinstance(W, torch.Tensor)
        array = view.resolve_conj().numpy()
        np.testing.assert_allclose(W.numpy(), beams(np.ascontiguousarray(array)), rtol=1e-12, atol=1e-14)


def test_a_call_changes_neither_its_input_nor_later_calls_also_in_threads():
    beams = beamforge.compile("multipliers", noise=NOISE, p_max=POWER)
    channels = [channel(K, N, seed) for K, N in ((4, 4), (8, 16), (12, 12)) for seed in range(8)]
    kept = [H.copy() for H in channels]
    alone = [beams(H).copy() for H in channels]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(beams, channels * 4))
    for number, W in enumerate(together):
        np.testing.assert_array_equal(W, alone[number % len(channels)])
    for before, after in zip(kept, channels, strict=True):
        np.testing.assert_array_equal(before, after)


def test_relabelling_users_relabels_beams():
    beams, H, order = beamforge.compile("multipliers", noise=NOISE, p_max=POWER), channel(6, 7), [3, 0, 5, 1, 2, 4]
    np.testing.assert_allclose(beams(H[order]), beams(H)[:, order], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"method": "wmmse"}, ConfigError, "compiled method"),
        ({"steps": 6}, ConfigError, "0 to 5"),
        ({"stpes": 2}, ConfigError, "did you mean 'steps'"),
        ({"method": "rzf", "steps": 2}, ConfigError, "setting of compiled rzf"),
        ({"checkpoint": "random"}, ConfigError, "trained weights"),
        ({"p_max": 0.0}, ConfigError, "p_max"),
        ({"noise": -1.0}, ConfigError, "noise"),
        ({"noise": np.ones((2, 2))}, ShapeError, "noise"),
        ({"weights": [0.0, 0.0]}, ConfigError, "weights"),
    ],
)
def test_errors_of_the_request(arguments, kind, words):
    stated = {"noise": NOISE, "p_max": POWER} | arguments
    with pytest.raises(kind, match=words):
        beamforge.compile(stated.pop("method", "multipliers"), **stated)


@pytest.mark.parametrize("method", ["multipliers", "rzf", "mrt"])
@pytest.mark.parametrize(
    "H", [np.ones((2, 3)), np.ones((1, 2, 3), complex), np.ones((0, 3), complex), np.full((2, 3), np.nan + 0j)]
)
def test_errors_of_a_channel(method, H):
    with pytest.raises(ShapeError, match="H must be"), np.errstate(all="ignore"):
        beamforge.compile(method, noise=NOISE, p_max=POWER)(H)
    with pytest.raises(ShapeError, match="as many users as noise, 2, got 3"):
        beamforge.compile(method, noise=[0.1, 0.2], p_max=POWER)(channel(3, 4))


@pytest.mark.parametrize("dtype", [np.float64, np.complex64, np.complex128])
def test_loaded_inverse(dtype):
    A = channel(5, 3)
    A = A.real.copy() if dtype is np.float64 else A.astype(dtype)
    M, level = A @ A.conj().T, np.linspace(0.5, 1, 5)
    expected = np.linalg.inv(M + np.diag(level))
    np.testing.assert_allclose(loaded_inverse(M.copy(), level.astype(M.real.dtype)), expected, rtol=1e-4, atol=1e-5)
    assert np.isnan(loaded_inverse(-M, 0.0)).all()
