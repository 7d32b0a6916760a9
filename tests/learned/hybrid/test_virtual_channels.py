"""Virtual channels: shifts, gains and matrices against NumPy; equivariance; units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.learned.hybrid.graph_convolution import GraphNetwork
from beamforge.learned.hybrid.virtual_channels import (
    FEATURES,
    START,
    Virtual,
    channel_gain,
    channel_shift,
    covariance_shift,
    virtual_channels,
)


def channels(users=3, seed=0):
    return torch.randn(4, users, 6, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def made(seed=0):
    network = GraphNetwork(FEATURES, START).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return network


def test_shifts_are_correlations():
    H = channels()
    h = H.numpy()[1]
    expected = [[abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b) for b in h] for a in h]
    np.testing.assert_allclose(channel_shift(H)[1], expected, atol=1e-12)
    R = torch.einsum("bkn,bkm->bknm", H, H.conj())
    torch.testing.assert_close(covariance_shift(R), channel_shift(H).square())
    assert (channel_shift(torch.zeros_like(H)) == 0).all() and (covariance_shift(torch.zeros_like(R)) == 0).all()


def test_matrices_are_those_of_the_equation():
    levels = Virtual(*(torch.rand(4, 3, dtype=torch.float64) for _ in range(4)))
    A = torch.randn(4, 6, 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(3))
    H = channels()
    heard = torch.einsum("bkn,bnm->bkm", H, A)  # h_k^H A
    G = heard.conj().unsqueeze(-1) * heard.unsqueeze(-2)
    wanted, interfering = levels.matrices(G, A.mH @ A)
    for b, k in ((0, 0), (3, 2)):
        a, h = A[b].numpy(), H[b, k].numpy().conj()
        for found, level, floor in (
            (wanted, levels.wanted, levels.wanted_floor),
            (interfering, levels.interfering, levels.interfering_floor),
        ):
            virtual = float(level[b, k]) * np.outer(h, h.conj()) + float(floor[b, k]) * np.eye(6)
            np.testing.assert_allclose(found[b, k], a.conj().T @ virtual @ a, atol=1e-12)


@pytest.mark.parametrize("users", [1, 2, 6])
def test_relabelled_users_have_relabelled_virtual_channels(users):
    H, network = channels(users), made()
    aims = torch.rand(4, users, dtype=torch.float64) + 0.5
    order = torch.randperm(users, generator=torch.Generator().manual_seed(1))

    def levels(H, aims):
        return virtual_channels(network, channel_shift(H), channel_gain(H), aims, aims)

    for one, other in zip(levels(H, aims), levels(H[:, order], aims[:, order]), strict=True):
        torch.testing.assert_close(other, one[:, order], rtol=1e-3, atol=1e-4)  # in single precision


def test_a_user_without_a_channel_is_harmless():
    H = channels()
    H[0, 1] = 0
    one = torch.ones(4, 3, dtype=torch.float64)
    levels = virtual_channels(made(), channel_shift(H), channel_gain(H), one, one)
    assert all(torch.isfinite(level).all() for level in levels)
