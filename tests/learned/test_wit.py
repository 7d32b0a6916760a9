"""The wireless transformer against the paper's formulas in NumPy, and the symmetries that it must have."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from beamforge.classical.linear import ZF
from beamforge.errors import ConfigError
from beamforge.goals import build_problem
from beamforge.instance import Instance
from beamforge.learned import wit
from beamforge.learned.frame import frame
from beamforge.learned.wit import WiT
from beamforge.network import Network
from beamforge.scenarios import Fairness
from beamforge.training.recipe import Recipe


@pytest.fixture(scope="module")
def drops():
    return Fairness().sample(6, seed=3, dtype=torch.complex128)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WiT(weights="random").double().requires_grad_()
        nn.init.normal_(model.network.head[-1].weight)  # not zero: something to be checked
        return model


def channels(instance):
    """h_u [B, K, N], noise and power as NumPy arrays."""
    return (
        instance.truth.channel.conj().resolve_conj().numpy(),
        instance.truth.noise.numpy(),
        instance.context["p_max"].numpy(),
    )


def test_it_has_the_published_size(network):
    assert f"{sum(p.numel() for p in network.parameters()):.2e}" == "8.73e+05"


def test_the_frame_is_the_eigenbasis_of_the_directions(drops):
    h, _, _ = channels(drops)
    direction = h / np.linalg.norm(h, axis=-1, keepdims=True)
    seen, forced, basis = (part.numpy() for part in frame(drops.truth.whitened().channel))
    for d, x, u, B in zip(direction, seen, forced, basis, strict=True):
        size = np.linalg.eigvalsh(d.T @ d.conj())[::-1][:12]
        V = B * np.sqrt(size)
        np.testing.assert_allclose(V.conj().T @ V, np.eye(12), atol=1e-9)
        np.testing.assert_allclose(V.conj().T @ (d.T @ d.conj()) @ V, np.diag(size), atol=1e-9)
        np.testing.assert_allclose(abs(((x @ V.T).conj() * d).sum(-1)), 1, atol=1e-9)
        np.testing.assert_allclose(u.conj().T @ u, np.eye(12), atol=1e-9)
        np.testing.assert_allclose(abs(d.conj() @ B @ u.T), np.eye(12), atol=1e-9)
    assert abs(seen[..., 0].imag).max() < 1e-12 and seen[..., 0].real.min() > 0
    strongest = np.linalg.norm(h, axis=-1).argmax(-1)
    own = np.take_along_axis(seen, strongest[:, None, None], 1)
    assert abs(own.imag).max() < 1e-12 and own.real.min() > 0


def test_features_are_those_of_the_paper_in_that_frame(drops):
    h, noise, power = channels(drops)
    beta = (abs(h) ** 2).sum(-1) / noise
    features, own = wit.features(drops.truth.whitened().channel, drops.context["p_max"])
    assert features.shape == (6, 12, 33)
    features = features.numpy()
    found = (features[..., :16] + 1j * features[..., 16:32]) * np.array([*wit.SIZES, 1, 1, 1, 1])
    np.testing.assert_allclose(found[..., :12], own.seen.numpy(), atol=1e-9)
    assert (found[..., 12:] == 0).all()
    snr_db = 10 * np.log10(power[:, None] * beta)
    np.testing.assert_allclose(features[..., 32], (snr_db - wit.LEVEL_DB) / wit.SPREAD_DB, atol=1e-9)
    many = Fairness().sample(500, seed=4)
    size = wit.features(many.truth.whitened().channel, many.context["p_max"])[0].square().mean((0, 1)).sqrt()
    assert size[:12].min() > 0.6 and size[[*range(12), 32]].max() < 1.2


def test_untrained_it_is_zero_forcing(drops):
    model = WiT(weights="random").double()
    rate = drops.truth.rate(model.beams(drops.truth, drops.context["p_max"]))
    forced = ZF().solve(build_problem("sum-rate", drops.context), drops)
    torch.testing.assert_close(rate, drops.truth.rate(forced.W))


def test_relabelled_users_have_relabelled_beams(drops, network):
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    moved = Network.broadcast(drops.truth.channel[:, order], drops.truth.noise[:, order])
    with torch.no_grad():
        there, here = network.beams(drops.truth, drops.context["p_max"]), network.beams(moved, drops.context["p_max"])
    torch.testing.assert_close(here, there[..., order], rtol=1e-8, atol=1e-8)


def test_views_are_of_the_same_channels(drops, network):
    power = drops.context["p_max"]
    mirrored = Network.broadcast(drops.truth.channel.conj().resolve_conj(), drops.truth.noise)
    with torch.no_grad():
        one, several, there = (
            network.beams(which, power, views) for which, views in ((drops.truth, 1), (drops.truth, 3), (mirrored, 3))
        )
    rate = drops.truth.rate(several)
    torch.testing.assert_close(mirrored.rate(there), rate, rtol=1e-7, atol=1e-7)
    assert (rate - drops.truth.rate(one)).abs().max() > 1e-3
    untrained = WiT(weights="random").double()  # zero forcing, whoever looks at it
    forced = [drops.truth.rate(untrained.beams(drops.truth, power, views)) for views in (1, 3)]
    torch.testing.assert_close(forced[0], forced[1])


def test_rotated_antennas_units_and_power_change_no_rate(drops, network):
    generator = torch.Generator().manual_seed(2)
    U, _ = torch.linalg.qr(torch.randn(16, 16, dtype=torch.complex128, generator=generator))
    turn = torch.polar(torch.ones(12, 1).double(), torch.rand(12, 1, generator=generator).double() * 6)
    power = drops.context["p_max"]
    moved = Network.broadcast(3 * turn * drops.truth.channel @ U, 18 * drops.truth.noise)
    with torch.no_grad():
        there, here = network.beams(drops.truth, power), network.beams(moved, 2 * power)
    torch.testing.assert_close(moved.rate(here), drops.truth.rate(there), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(there.abs().square().sum(-2), (power / 12).unsqueeze(-1).expand(6, 12))


def by_hand(instance, W, target, price):
    """Eqs. 3 to 5, 11 and 12 in NumPy."""
    h, noise, _ = channels(instance)
    received = abs(h.conj() @ W.detach().numpy()) ** 2
    signal = np.diagonal(received, axis1=-2, axis2=-1)
    rate = np.log2(1 + signal / (received.sum(-1) - signal + noise))
    total, jain = rate.sum(-1), rate.sum(-1) ** 2 / (12 * (rate**2).sum(-1))
    scaled = (total - total.min()) / (total.max() - total.min())
    return -(scaled.mean() + price * min(jain.mean() - target, 0)), total.mean(), jain.mean()


@pytest.mark.parametrize("target", [0.99, 0.2])
def test_the_loss_is_the_hinge_lagrangian_of_scaled_rates(drops, network, target):
    network.dual.target = target
    loss, figures = network.loss(drops, torch.Generator())
    W = network.beams(drops.truth, drops.context["p_max"])
    expected, total, jain = by_hand(drops, W, target, 2.0)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert figures["sum_rate"].item() == pytest.approx(total, rel=1e-9)
    assert figures["jain"].item() == pytest.approx(jain, rel=1e-9)
    assert figures["violation"].item() == pytest.approx(target - jain, rel=1e-9)
    assert figures["price"].item() == 2.0
    network.eval()
    shown = network.loss(drops, torch.Generator())[0].item()
    network.train()
    assert shown == pytest.approx(wit.FORFEIT * max(target - jain, 0) - total, rel=1e-9)


def test_the_extremes_of_a_batch_are_not_learned_from(drops, network):
    network.dual.target = 0.2  # no violation: the gradient is that of the mean sum rate over the range
    bias = network.network.head[-1].bias
    (slope,) = torch.autograd.grad(network.loss(drops, torch.Generator())[0], bias)
    total = drops.truth.rate(network.beams(drops.truth, drops.context["p_max"])).sum(-1)
    (expected,) = torch.autograd.grad(-total.mean(), bias)
    torch.testing.assert_close(slope, expected / (total.max() - total.min()).detach())


def test_the_dual_step_is_that_of_the_paper():
    network = WiT(jain=0.86, price=1.0, weights="random")
    network.adapt({"jain": 0.8})
    assert network.dual.price.item() == pytest.approx(1.0006)
    network.adapt({"jain": 0.8575})
    assert network.dual.price.item() == pytest.approx(1.0006)


def test_its_recipe_trains_on_the_papers_cell():
    recipe = Recipe.find("wit")
    assert (recipe.run.batch, recipe.optimiser.lr, recipe.optimiser.weight_decay) == (128, 2e-3, 0.0)
    stream = recipe.data.build(recipe.data.draw(torch.Generator().manual_seed(0), 4000))
    assert stream.truth.channel.shape == (4000, 12, 16)
    ours = (stream.truth.channel.abs().square().sum(-1) / stream.truth.noise).log10()
    theirs = Fairness().sample(2000, seed=1)
    theirs = (theirs.truth.channel.abs().square().sum(-1) / theirs.truth.noise).log10()
    assert math.isclose(ours.mean(), theirs.mean(), abs_tol=0.02)
    assert math.isclose(ours.std(), theirs.std(), rel_tol=0.03)


@pytest.mark.parametrize("wrong", [{"jain": 0.05}, {"jain": 1.0}, {"price": -1.0}, {"weights": "wit-12"}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        WiT(**{"weights": "random", **wrong})


def test_it_learns():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WiT(weights="random").requires_grad_()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    instance: Instance = Fairness().sample(16, seed=0)
    fairness = []
    for _ in range(15):
        loss, figures = model.loss(instance, torch.Generator())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        fairness.append(figures["jain"].item())
    assert fairness[-1] > fairness[0] + 0.05
