"""Networks that give the beams at once: what they begin with, their structure, and their symmetries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learning import all_random, check_gradient_of_loss
from scipy.optimize import least_squares

from beamforge.core.errors import ConfigError
from beamforge.learned.l2o.ascent import lmmse
from beamforge.learned.l2o.graph_transformer import GraphTransformer, settling
from beamforge.learned.l2o.hpe_transformer import HPETransformer
from beamforge.learned.l2o.masks import Masks, applied
from beamforge.training.data.masked import Masked
from beamforge.training.stream import Stream

KINDS = [HPETransformer, GraphTransformer]


def made(kind, std=0.2):
    solver = kind(checkpoint="random", layers=2, width=8, heads=2, depth=4).double().requires_grad_()
    return all_random(solver, std) if std else solver


def channels(users=5, antennas=4):
    generator = torch.Generator().manual_seed(0)
    return 5 * torch.randn(3, users, antennas, dtype=torch.complex128, generator=generator)


def beams(solver, H):
    with torch.no_grad():
        return solver.beams(H, torch.ones_like(H.real[..., 0]))


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_they_are_regularised_zero_forcing(kind):
    H = channels()
    W, expected = beams(made(kind, std=0), H), lmmse(H, H.abs().sum(-1) > 0)
    torch.testing.assert_close(W.abs(), expected.abs(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close((H @ W).abs(), (H @ expected).abs(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_relabelled_users_and_antennas_have_relabelled_beams(kind):
    solver, H = made(kind), channels()
    users, antennas = torch.tensor([2, 0, 4, 3, 1]), torch.tensor([3, 1, 0, 2])
    W = beams(solver, H)
    torch.testing.assert_close(beams(solver, H[:, users][:, :, antennas]), W[:, antennas][:, :, users])
    assert (W - beams(made(kind, std=0), H)).abs().max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_phases_of_users_turn_no_power(kind):
    solver, H = made(kind), channels()
    turned = torch.polar(torch.ones(5, 1).double(), torch.arange(5.0).double().unsqueeze(-1)) * H
    torch.testing.assert_close((turned @ beams(solver, turned)).abs(), (H @ beams(solver, H)).abs())


def test_phases_are_settled_by_what_does_not_turn():
    H = settling(channels()) * channels()
    square = (H * H).sum(-1)
    assert (square.real > 0).all() and square.imag.abs().max() < 1e-9 and (H.real.pow(3).sum(-1) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_users_and_antennas_without_a_channel_change_nothing(kind):
    solver, H = made(kind), channels()
    H[:, 1], H[:, :, 2] = 0, 0
    masks = Masks.of(H)
    W = beams(solver, applied(H, masks))
    assert (W[..., 1] == 0).all() and (W[:, 2] == 0).all()
    rows, columns = torch.tensor([0, 2, 3, 4]), torch.tensor([0, 1, 3])
    if kind is HPETransformer:
        alone = beams(solver, H[:, rows][:, :, columns])
        torch.testing.assert_close(W[:, columns][:, :, rows], alone)
    assert beams(solver, 0 * H).eq(0).all()


def test_the_beams_of_hpe_have_the_optimal_structure():
    """``W = M^-1 H^H diag(t)``: multiplied by M in NumPy, every beam is along its user's channel."""
    solver, H = made(HPETransformer), channels()
    W = beams(solver, H).numpy()
    for i in range(3):
        h = H[i].numpy()

        def off(prices, h=h, W=W[i]):
            image = (np.eye(4) + h.conj().T @ np.diag(np.exp(prices)) @ h) @ W
            along = h.conj().T / np.linalg.norm(h, axis=1)
            rest = image - along * (along.conj() * image).sum(0)
            return np.linalg.norm(rest, axis=0) / np.linalg.norm(image, axis=0)

        found = least_squares(lambda prices: off(prices), -np.log(5.0) * np.ones(5))
        assert abs(off(found.x)).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_the_loss_is_that_of_finite_differences(kind):
    instance = Stream.training(Masked(size=4, sizes=2, snr_db=(10.0, 10.0)), 0, 3, torch.complex128).batch_at(30)
    check_gradient_of_loss(made(kind, std=0.1), instance)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="layers, width, heads and depth must be at least 1"):
        HPETransformer(checkpoint="random", heads=0)
