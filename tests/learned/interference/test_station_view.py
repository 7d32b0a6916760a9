"""What base stations see: unchanged by what does not matter, and directions as the equations have them."""

from __future__ import annotations

import numpy as np
import torch
from stations import stations

from beamforge.learned.interference.station_view import StationView, beams, direction


def loads_for(view, seed=1):
    return 10 * torch.rand(view.gain.shape, dtype=view.gain.dtype, generator=torch.Generator().manual_seed(seed))


def numbers(view, loads):
    z = direction(view, loads)
    return torch.cat([x.flatten() for x in (view.gain, view.own, view.cosine, z.heard, z.along, z.norm)])


def test_units_rotations_and_phases_change_nothing():
    before = stations()
    view = StationView.of(before)
    expected = numbers(view, loads_for(view))
    Q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(2)))[0]
    phase = torch.exp(1j * torch.arange(9, dtype=torch.float64).reshape(3, 3, 1))
    moved = before._replace(H=1e-3 * phase * before.H @ Q, power=1e6 * before.power)
    torch.testing.assert_close(numbers(StationView.of(moved), loads_for(view)), expected)


def test_directions_solve_the_linear_system():
    found = stations()
    view = StationView.of(found)
    loads = loads_for(view)
    z = direction(view, loads)
    for b in range(5):
        for k in range(3):
            u = (found.H[b, k].conj() / found.H[b, k].norm(dim=-1, keepdim=True)).numpy()
            A = np.eye(4) + sum(float(loads[b, k, j]) * np.outer(u[j], u[j].conj()) for j in range(3) if j != k)
            expected = np.linalg.solve(A, u[k])
            np.testing.assert_allclose(z.z[b, k].numpy(), expected, rtol=1e-10)
            np.testing.assert_allclose(z.heard[b, k].numpy(), np.abs(u.conj() @ expected) ** 2, rtol=1e-9)
            np.testing.assert_allclose(z.norm[b, k].item(), np.vdot(expected, expected).real, rtol=1e-10)


def test_no_load_is_mrt_and_much_is_zero_forcing():
    found = stations()
    view = StationView.of(found)
    W = beams(direction(view, torch.zeros_like(view.gain)), found.power)
    own = found.own.conj()
    torch.testing.assert_close(W, own / own.norm(dim=-1, keepdim=True) * found.power.sqrt().unsqueeze(-1))
    nulled = direction(view, torch.full_like(view.gain, 1e12))
    assert (nulled.leakage * view.others).max() < 1e-20
    torch.testing.assert_close(beams(nulled, found.power).abs().square().sum(-1), found.power)


def test_more_channels_than_antennas_in_single_precision():
    found = stations(K=5, N=2, B=200, dtype=torch.complex64)
    view = StationView.of(found)
    z = direction(view, torch.full_like(view.gain, 1e6))
    assert (z.norm > 0).all() and (z.along >= z.norm).all()
    torch.testing.assert_close(beams(z, found.power).abs().square().sum(-1), found.power)


def test_users_without_a_channel_are_no_number_less():
    found = stations()
    found.H[0, 1, 1] = 0  # its own
    found.H[1, 0, 2] = 0  # another's
    view = StationView.of(found)
    z = direction(view, loads_for(view))
    assert all(torch.isfinite(torch.view_as_real(x) if x.is_complex() else x).all() for x in z)
    W = beams(z, found.power)
    assert (W[0, 1] == 0).all() and (W[1, 0].norm() > 0)
