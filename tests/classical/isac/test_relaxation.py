"""Minimum power for SINRs and sensing SNRs against a semidefinite program; derivatives by finite differences."""

import numpy as np
import pytest
import torch

from beamforge.classical.isac.relaxation import (
    PowerProblem,
    covariance,
    derivatives,
    dual,
    initial_multipliers,
    solve,
    value,
)
from beamforge.core.sensing import steering
from tests.oracles_convex import least_power_with_sensing

SINR = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
LARGE = torch.full((2,), 1e3, dtype=torch.float64)


def power_problem(level, e):
    generator = torch.Generator().manual_seed(0)
    H = torch.randn(2, 3, 5, dtype=torch.complex128, generator=generator)
    C = 4 * steering(1.5 * torch.rand(2, 2, dtype=torch.float64, generator=generator), 5)
    one = torch.ones(2, dtype=torch.float64)
    return PowerProblem(H, C, (SINR / (1 + SINR)).expand(2, 3), torch.full((2, 2), level, dtype=torch.float64), e * one)


@pytest.mark.parametrize("level", [2.0, 20.0])
def test_minimum_power_equals_that_of_the_semidefinite_program(level):
    z = initial_multipliers(power_problem(level, 1.0))
    for e in (1e-1, 1e-3, 1e-5, 1e-7):
        data = power_problem(level, e)
        z = solve(data, z, LARGE)
    S = covariance(data, z)[1]
    power = np.trace(S.numpy(), axis1=1, axis2=2).real
    for instance in range(2):
        H, C = data.H[instance].numpy(), data.C[instance].numpy().T
        least = least_power_with_sensing(H, C, SINR.numpy(), data.level[instance].numpy())
        assert power[instance] == pytest.approx(least, rel=1e-5)
        assert dual(data, z)[instance].item() == pytest.approx(least, rel=1e-5)


@pytest.mark.parametrize("e", [1.0, 1e-6])
def test_recovered_beams_meet_all_targets_within_the_covariance(e):
    z = initial_multipliers(power_problem(20.0, e))
    for weight in (1.0, 1e-2, 1e-4, 1e-6):
        if weight >= e:
            data = power_problem(20.0, weight)
            z = solve(data, z, LARGE)
    W, S = covariance(data, z)
    H, W, S, C = data.H.numpy(), W.numpy(), S.numpy(), data.C.numpy()
    assert np.linalg.eigvalsh(S - W @ W.conj().swapaxes(1, 2)).min() >= -1e-9
    received = np.einsum("bkn,bnm,bkm->bk", H, S, H.conj()).real
    signal = np.abs(np.einsum("bkn,bnk->bk", H, W)) ** 2
    assert (signal / (received - signal + 1) >= SINR.numpy() * (1 - 1e-7)).all()
    assert (np.einsum("bnm,bni,bim->bm", C.conj(), S, C).real >= 20 * (1 - 1e-7)).all()


def test_derivatives_of_the_dual():
    data = power_problem(5.0, 0.3)
    z = initial_multipliers(data) * torch.tensor([1.1, 0.8, 1.2, 0.7, 0.9], dtype=torch.float64)
    _, gradient, hessian = derivatives(data, z)
    for place in range(5):
        shift = torch.zeros(5, dtype=torch.float64)
        shift[place] = 1e-5 * z[:, place].mean()
        slope = (value(data, z + shift) - value(data, z - shift)) / (2 * shift[place])
        torch.testing.assert_close(gradient[:, place], slope, rtol=1e-6, atol=1e-6)
        difference = (derivatives(data, z + shift)[1] - derivatives(data, z - shift)[1]) / (2 * shift[place])
        torch.testing.assert_close(hessian[:, place], difference, rtol=1e-6, atol=1e-5)


def test_zero_sensing_targets_give_uplink_downlink_duality():
    """Uplink powers q solve q_k = s_k / (h_k^H X^-1 h_k), and their sum is the minimum power."""
    data = power_problem(1e-9, 1e-8)
    z = initial_multipliers(data)
    for e in (1e-2, 1e-4, 1e-6, 1e-8):
        z = solve(data._replace(barrier=torch.full_like(data.barrier, e)), z, LARGE)
    H, s = data.H.numpy(), data.share[0].numpy()
    for instance in range(2):
        q = np.ones(3)
        for _ in range(500):
            X = np.eye(5) + (H[instance].conj().T * q) @ H[instance]
            q = s / np.einsum("kn,nm,km->k", H[instance], np.linalg.inv(X), H[instance].conj()).real
        assert dual(data, z)[instance].item() == pytest.approx(q.sum(), rel=1e-5)
