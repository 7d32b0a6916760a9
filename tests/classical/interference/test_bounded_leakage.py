"""The problem of one base station against CVXPY, its slopes against finite differences, and its extremes."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

from beamforge.classical.interference.bounded_leakage import strongest


def drawn(K, N, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    H = torch.randn(count, K, N, dtype=torch.complex128, generator=generator)
    power = 10 ** (4 * torch.rand(count, dtype=torch.float64, generator=generator) - 1)
    serves = torch.randint(K, (count,), generator=generator)
    share = 10 ** (7 * torch.rand(count, K, dtype=torch.float64, generator=generator) - 6)
    return H, serves, power, power[:, None] * H.abs().square().sum(-1) * share


@pytest.mark.parametrize(("K", "N"), [(1, 4), (2, 2), (3, 4), (4, 3), (4, 8)])
def test_signal_is_the_optimum_and_bounds_are_kept(K, N):
    H, serves, power, bounds = drawn(K, N, 6)
    found = strongest(H, serves, power, bounds)
    assert found.gap.abs().max() < 1e-9
    assert (found.W.abs().square().sum(-1) <= power * (1 + 1e-10)).all()
    for b in range(6):
        w, k, scale = cp.Variable(N, complex=True), int(serves[b]), np.sqrt(power[b].item())
        heard = (H[b] * scale).numpy() @ w
        limits = [cp.abs(heard[j]) / np.sqrt(bounds[b, j].item()) <= 1 for j in range(K) if j != k]
        problem = cp.Problem(cp.Maximize(cp.real(heard[k])), [cp.norm(w) <= 1, *limits])
        problem.solve(solver=cp.CLARABEL)
        power_heard = (H[b] @ found.W[b]).abs().square()
        assert power_heard[k].item() == pytest.approx(problem.value**2, rel=1e-5)
        assert found.signal[b].item() == pytest.approx(power_heard[k].item(), rel=1e-9)
        assert all(power_heard[j] <= bounds[b, j] * (1 + 1e-9) for j in range(K) if j != k)


def test_slopes_are_those_of_finite_differences():
    H, serves, power, bounds = drawn(3, 4, 5, seed=1)
    found = strongest(H, serves, power, bounds)
    for j in range(3):
        step = torch.zeros_like(bounds)
        step[:, j] = 1e-4 * bounds[:, j]
        ahead, behind = (strongest(H, serves, power, bounds + sign * step).signal for sign in (1, -1))
        slope = (ahead - behind) / (2 * step[:, j])
        torch.testing.assert_close(found.slope[:, j], slope, rtol=1e-4, atol=1e-6)


def test_extremes_are_maximum_ratio_and_zero_forcing():
    H, serves, power, bounds = drawn(3, 4, 4, seed=2)
    own = H[torch.arange(4), serves]
    loose = strongest(H, serves, power, torch.full_like(bounds, 1e9))
    torch.testing.assert_close(loose.signal, power * own.abs().square().sum(-1), rtol=1e-7, atol=0)
    tight = strongest(H, serves, power, torch.zeros_like(bounds))
    column = torch.linalg.pinv(H).mT[torch.arange(4), serves]
    torch.testing.assert_close(tight.signal, power / column.abs().square().sum(-1), rtol=1e-3, atol=0)


def test_odd_ones_spoil_nobody():
    H, serves, power, bounds = drawn(3, 4, 5, seed=3)
    expected = strongest(H, serves, power, bounds)
    H, power = H.clone(), power.clone()
    H[0, serves[0]] = 0  # nobody to serve
    H[1] = 0  # nobody at all
    H[2, (serves[2] + 1) % 3] = 2 * H[2, serves[2]]  # the others hear all that the user does
    found = strongest(H, serves, power, bounds)
    assert all(torch.isfinite(torch.view_as_real(each) if each.is_complex() else each).all() for each in found)
    assert (found.W[:2] == 0).all() and (found.signal[:2] == 0).all()
    limit = (bounds[2, (serves[2] + 1) % 3] / 4).clamp_max(power[2] * H[2, serves[2]].abs().square().sum())
    assert found.signal[2] <= limit * (1 + 1e-9)
    torch.testing.assert_close(found.W[3:], expected.W[3:])
    single = strongest(H.to(torch.complex64), serves, power.float(), bounds.float())
    assert single.W.dtype == torch.complex64 and single.signal.dtype == torch.float32
    torch.testing.assert_close(single.signal.double(), found.signal, rtol=1e-4, atol=1e-6)
