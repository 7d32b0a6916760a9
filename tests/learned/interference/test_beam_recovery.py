"""The subproblem (7) and its dual against CVXPY: recovered beams, the dual function, and its slope."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import torch
from stations import stations

from beamforge.learned.interference.beam_recovery import Duals, full_power_price, recover, slackness
from beamforge.learned.interference.station_view import StationView, beams, direction


def problem(tightness, seed=0):
    """Base stations, their view, temperatures they promise as shares, and what each hears."""
    found = stations(seed=seed)
    view = StationView.of(found)
    share = tightness * view.cosine
    heard = (share * view.gain * view.others).mT * view.others
    return found, view, share, heard


def optimum(H, k, P, c, noise):
    """The beam of (7) and its dual variables, for one base station: channels [K, N], temperatures c [K]."""
    K, N = H.shape
    w = cp.Variable(N, complex=True)
    limits = [cp.square(cp.abs(H[j] @ w)) <= c[j] for j in range(K) if j != k] + [cp.sum_squares(w) <= P]
    cp.Problem(cp.Maximize(cp.real(H[k] @ w)), limits).solve(solver=cp.CLARABEL)
    signal = abs(H[k] @ w.value)
    slope = 2 * signal / ((noise + signal**2) * np.log(2))  # of the rate over the amplitude
    duals = slope * np.array([np.asarray(limit.dual_value).item() for limit in limits])
    return w.value, np.log2(1 + signal**2 / noise), np.insert(duals[:-1], k, 0.0), duals[-1]


def test_optimal_duals_recover_the_optimal_beam():
    found, view, share, heard = problem(0.3)
    for b in range(2):
        for k in range(3):
            P, noise = float(found.power[b, k]), 1 + float(heard[b, k].sum())
            c = (share * view.gain)[b, k].numpy()
            w, rate, d, power_dual = optimum(found.H[b, k].numpy(), k, P, c, noise)
            norm = found.H[b, k].abs().square().sum(-1)
            loads = torch.zeros_like(view.gain)
            loads[b, k] = torch.as_tensor(d) * norm / power_dual
            z = direction(view, loads)
            duals = Duals(loads, torch.full_like(view.own, power_dual * P), z)
            answer = recover(view, duals, heard)
            np.testing.assert_allclose(answer.share[b, k].item(), 1, rtol=1e-3)
            W = beams(z, found.power * answer.share)[b, k].numpy()
            np.testing.assert_allclose(abs(np.vdot(W, w)), P, rtol=1e-3)
            np.testing.assert_allclose(answer.leakage[b, k, d > 1e-6].numpy(), share[b, k, d > 1e-6].numpy(), rtol=1e-3)
            assert abs(slackness(view, duals, answer, share)[b, k].item()) < 1e-3 * rate
            closed = full_power_price(view, z, 1 + heard.sum(-1))[b, k].item()
            np.testing.assert_allclose(closed, power_dual * P, rtol=1e-3)


def dual_function(view, duals, heard, share):
    """(30): the rate of the recovered beam within the temperatures, and (31)."""
    found = recover(view, duals, heard)
    signal = (found.leakage * view.gain * view.itself).sum(-1)
    return torch.log2(1 + signal / (1 + heard.sum(-1))) + slackness(view, duals, found, share)


def test_the_dual_function_is_never_below_the_optimum():
    found, view, share, heard = problem(0.5, seed=3)
    best = [
        optimum(
            found.H[0, k].numpy(),
            k,
            float(found.power[0, k]),
            (share * view.gain)[0, k].numpy(),
            1 + float(heard[0, k].sum()),
        )[1]
        for k in range(3)
    ]
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        loads = view.gain * torch.rand(view.gain.shape, dtype=torch.float64, generator=generator) * 3
        price = 0.05 + 2 * torch.rand(view.own.shape, dtype=torch.float64, generator=generator)
        bound = dual_function(view, Duals(loads, price, direction(view, loads)), heard, share)[0].numpy()
        assert (bound >= np.array(best) - 1e-6).all()


def test_the_slope_of_the_dual_function_is_what_holding_the_beam_gives():
    _, view, share, heard = problem(0.5, seed=4)

    def duals(d, price):  # prices of temperatures times gain: the loads are over the price of power
        loads = d / price.unsqueeze(-1)
        return Duals(loads, price, direction(view, loads))

    d, price = 2 * torch.rand(view.gain.shape, dtype=torch.float64), torch.full_like(view.own, 0.4)
    d, price = (d * view.others).requires_grad_(), price.requires_grad_()
    now = duals(d, price)
    with torch.no_grad():
        held = recover(view, now, heard)
    slopes = torch.autograd.grad(slackness(view, now, held, share).sum(), (d, price))
    step = 1e-6
    for number, (value, slope) in enumerate(zip((d, price), slopes, strict=True)):
        move = torch.rand(value.shape, dtype=torch.float64) * (view.others if number == 0 else 1)
        both = [(d + s * move, price) if number == 0 else (d, price + s * move) for s in (step, -step)]
        with torch.no_grad():
            up, down = (dual_function(view, duals(*each), heard, share).sum() for each in both)
        torch.testing.assert_close((slope * move).sum(), (up - down) / (2 * step), rtol=1e-5, atol=1e-6)


def test_full_power_price_uses_all_power():
    _, view, _, heard = problem(0.7, seed=5)
    z = direction(view, view.gain)
    price = full_power_price(view, z, 1 + heard.sum(-1))
    torch.testing.assert_close(recover(view, Duals(view.gain, price, z), heard).share, torch.ones_like(price))
