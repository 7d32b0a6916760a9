"""What a base station sees: beams against NumPy in the space of its antennas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.decentralised.base_stations import BaseStations
from beamforge.learned.interference.further_rounds import balancing
from beamforge.learned.interference.local_view import LocalView, combination, received


def stations(K=4, N=3, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    H = torch.randn(batch, K, K, N, dtype=torch.complex128, generator=generator)
    ones = torch.ones(batch, K, dtype=torch.float64)
    return BaseStations(H, torch.arange(K), 2 * ones, ones)


@pytest.mark.parametrize(("K", "N"), [(1, 2), (4, 3), (3, 6), (5, 1)])
def test_beams_from_prices_are_those_of_the_antennas(K, N):
    H = stations(K, N).H
    prices = torch.rand(2, K, K, dtype=torch.float64) * 10
    prices.diagonal(dim1=-2, dim2=-1).zero_()
    c = combination(H @ H.mH, prices, torch.arange(K))
    W = (H.mH @ c.unsqueeze(-1)).squeeze(-1)
    for k in range(K):
        h = H[0, k].numpy().conj()  # rows are h^H
        A = np.eye(N) + sum(prices[0, k, j].item() * np.outer(h[j], h[j].conj()) for j in range(K))
        w = np.linalg.solve(A, h[k])
        np.testing.assert_allclose(W[0, k].numpy(), w / np.linalg.norm(w), atol=1e-10)
        np.testing.assert_allclose(received(H @ H.mH, c)[0, k], np.abs(h.conj() @ W[0, k].numpy()) ** 2, atol=1e-10)


def test_zero_forcing_where_prices_are_high_even_in_single_precision():
    H = stations(3, 6).H.to(torch.complex64)
    prices = torch.full((2, 3, 3), 1e6)
    prices.diagonal(dim1=-2, dim2=-1).zero_()
    power = received(H @ H.mH, combination(H @ H.mH, prices, torch.arange(3)))
    power.diagonal(dim1=-2, dim2=-1).zero_()
    assert power.amax() < 1e-6


def test_balancing_beams_spend_the_power_and_meet_their_equation():
    """The price of power is recovered in NumPy from the beam, ``(Q + nu I) w ∝ h``, and put into the equation."""
    K, N = 3, 5
    H = stations(K, N).H
    prices = torch.rand(2, K, 1, dtype=torch.float64).mT.expand(2, K, K) + 0.2
    suffered = torch.rand(2, K, 1, dtype=torch.float64)
    c, priced = balancing(H @ H.mH, prices, suffered, torch.arange(K))
    assert priced.all()
    for k in range(K):
        h = H[0, k].numpy().conj()
        w = h.T @ c[0, k].numpy()
        assert np.linalg.norm(w) == pytest.approx(1, abs=1e-9)
        Q = sum(prices[0, k, j].item() * np.outer(h[j], h[j].conj()) for j in range(K) if j != k)
        (_, nu), residual = np.linalg.lstsq(np.stack([h[k], -w], 1), Q @ w, rcond=None)[:2]
        assert residual[0] < 1e-18 and abs(nu.imag) < 1e-9
        spent = (w.conj() @ Q @ w).real + nu.real
        assert spent == pytest.approx(prices[0, k, k].item() * (1 + suffered[0, k].item()), rel=1e-6)


def test_a_base_station_alone_sees_the_same():
    whole = LocalView.of(stations())
    for k in range(4):
        alone = LocalView.of(stations().alone(k))
        for name in ("gram", "signal", "nodes", "shifts"):
            torch.testing.assert_close(getattr(alone, name)[:, 0], getattr(whole, name)[:, k])
