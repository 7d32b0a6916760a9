"""Closed forms against NumPy, and the known properties of each."""

import numpy as np
import pytest
import torch
from oracles import channels, rates

import beamforge
from beamforge import Network, Problem
from beamforge.classical.linear import RZF
from beamforge.classical.structure import directions, unit
from beamforge.core.constraints import PerAntennaPower, PerTransmitterPower, TotalPower
from beamforge.core.utilities import SumRate


def solve(H, method, noise=0.1, p_max=2.0, **settings):
    return beamforge.solve(torch.as_tensor(H), noise=noise, p_max=p_max, method=method, **settings).W.numpy()


def normalised(W):
    return W / np.linalg.norm(W, axis=-2, keepdims=True)


@pytest.mark.parametrize(("K", "N"), [(3, 5), (4, 4), (5, 3)])
@pytest.mark.parametrize("method", ["rzf", "slnr"])
def test_rzf_is_the_regularised_inverse_with_equal_powers(K, N, method):
    H = channels(6, K, N)
    inverse = np.linalg.inv(H @ H.conj().swapaxes(-1, -2) + K * 0.1 / 2.0 * np.eye(K))
    expected = normalised(H.conj().swapaxes(-1, -2) @ inverse) * np.sqrt(2.0 / K)
    np.testing.assert_allclose(solve(H, method), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("K", "N"), [(3, 5), (4, 4)])
def test_zero_forcing_leaves_no_interference(K, N):
    H = channels(6, K, N)
    W = solve(H, "zf")
    np.testing.assert_allclose(normalised(W), normalised(np.linalg.pinv(H)), rtol=1e-8, atol=1e-10)
    leak = np.abs(H @ W) * (1 - np.eye(K))
    assert leak.max() < 1e-10


def test_wslnr_maximises_its_weighted_ratio():
    """Eq. 6: no random perturbation of a beam has a larger weighted signal-to-leakage-and-noise ratio."""
    H, noise, alpha = channels(1, 4, 5)[0] * np.array([[0.1], [1.0], [3.0], [0.5]]), 0.1, 0.7
    weight = np.linalg.norm(H, axis=1) ** (-2 * alpha)
    weight *= len(H) / weight.sum()
    F = normalised(solve(H, "wslnr", noise=noise, alpha=alpha))

    def ratio(f, u):
        power = np.abs(H @ f) ** 2
        return power[u] / (sum(weight[j] * power[j] for j in range(4) if j != u) + noise)

    generator = np.random.default_rng(1)
    for u in range(4):
        step = generator.standard_normal((200, 5, 2)) @ np.array([1, 1j]) * 10 ** generator.uniform(-4, 0, (200, 1))
        tries = normalised((F[:, u] + step).T)
        assert max(ratio(f, u) for f in tries.T) <= ratio(F[:, u], u)


def test_fairness_increases_with_alpha():
    H = channels(200, 6, 8) * 10 ** (np.linspace(-1, 1, 6)[:, None] / 2)
    found = [rates(H, solve(H, "wslnr", alpha=alpha), 0.1) for alpha in (0.0, 0.5, 1.0, 2.0)]
    jain = [np.mean(r.sum(-1) ** 2 / (6 * (r**2).sum(-1))) for r in found]
    assert jain == sorted(jain)


def test_mrt_has_the_most_signal_and_rzf_tends_to_mrt_and_zf():
    H = channels(5, 3, 4)
    own = np.abs(np.einsum("bkn,bnk->bk", H, normalised(solve(H, "mrt"))))
    np.testing.assert_allclose(own, np.linalg.norm(H, axis=-1), rtol=1e-10)
    for noise, method in ((1e6, "mrt"), (1e-9, "zf")):
        overlap = np.abs((normalised(solve(H, "rzf", noise=noise)).conj() * normalised(solve(H, method))).sum(-2))
        np.testing.assert_allclose(overlap, 1, rtol=1e-5)


@pytest.mark.parametrize("method", ["mrt", "zf", "rzf", "wslnr"])
def test_a_user_without_a_channel_gets_no_beam_and_does_not_change_directions(method):
    H = channels(3, 4, 6)
    H[:, 2] = 0
    W = solve(H, method)
    others = [0, 1, 3]
    alone = solve(H[:, others], method)
    assert np.isfinite(W).all()
    np.testing.assert_array_equal(W[..., 2], 0)
    if method in ("mrt", "zf"):
        np.testing.assert_allclose(normalised(W[..., others]), normalised(alone), rtol=1e-8, atol=1e-10)


def test_power_limits_scale_each_transmitter_independently():
    generator = torch.Generator().manual_seed(0)
    H = torch.randn(4, 2, 3, 5, dtype=torch.complex128, generator=generator)
    network = Network.multicell(H, 0.1, torch.tensor([0, 1, 1]))
    antenna = PerAntennaPower(torch.tensor([0.3, 0.1, 0.2, 0.4, 0.2], dtype=torch.float64))
    W = RZF().solve(Problem(SumRate(), (antenna,)), network).W
    use = network.antenna_power(W) / antenna.bind(network).limit
    torch.testing.assert_close(use.amax(-1), torch.ones(4, 2, dtype=torch.float64))
    each = PerTransmitterPower(torch.tensor([1.0, 3.0], dtype=torch.float64))
    W = RZF().solve(Problem(SumRate(), (each,)), network).W
    torch.testing.assert_close(network.transmit_power(W), torch.tensor([[1.0, 3.0]], dtype=torch.float64).expand(4, 2))
    W = RZF().solve(Problem(SumRate(), (TotalPower(3.0),)), network).W
    torch.testing.assert_close(network.transmit_power(W), torch.tensor([[1.0, 2.0]], dtype=torch.float64).expand(4, 2))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("scale", [1e-14, 1e-7, 1e6])
def test_directions_do_not_depend_on_the_scale(dtype, scale):
    H = torch.as_tensor(channels(5, 4, 6)).to(dtype)
    for multipliers in (torch.zeros(4), torch.full((4,), 2.0), torch.tensor([0.0, 1.0, 3.0, 10.0])):
        lam = multipliers.to(H.real.dtype)
        reference = directions(H, lam)
        there = directions(H * scale, lam / scale**2)
        torch.testing.assert_close(there, reference, rtol=1e-4, atol=1e-4 if dtype is torch.complex64 else 1e-10)


def test_directions_are_the_columns_of_the_stated_inverse():
    H = channels(5, 4, 6)
    lam = np.array([0.0, 0.5, 3.0, 20.0])
    expected = H.conj().swapaxes(-1, -2) @ np.linalg.inv(np.eye(4) + lam[:, None] * (H @ H.conj().swapaxes(-1, -2)))
    found = directions(torch.as_tensor(H), torch.as_tensor(lam))
    np.testing.assert_allclose(found, normalised(expected), rtol=1e-7, atol=1e-9)


def test_unit_is_accurate_where_squares_underflow_in_single_precision():
    W = torch.tensor([[3e-30, 0.0, 3e30], [4e-30, 0.0, 4e30]], dtype=torch.complex64)
    expected = torch.tensor([[0.6, 0.0, 0.6], [0.8, 0.0, 0.8]], dtype=torch.complex64)
    torch.testing.assert_close(unit(W), expected)
