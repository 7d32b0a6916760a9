"""The wireless transformer against the paper's formulas in NumPy, and its symmetries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from beamforge.core.errors import ConfigError
from beamforge.core.instance import Instance
from beamforge.core.network import Network
from beamforge.learned.fairness import wit
from beamforge.learned.fairness.transformer import Transformer
from beamforge.learned.fairness.wit import WiT
from beamforge.scenarios import Fairness
from beamforge.training.recipe import Recipe


@pytest.fixture(scope="module")
def drops():
    return Fairness().sample(6, seed=3, dtype=torch.complex128)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WiT(checkpoint="random").double().requires_grad_()
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


def test_features_are_those_of_the_paper(drops):
    h, noise, power = channels(drops)
    beta = (abs(h) ** 2).sum(-1) / noise
    features = wit.input_features(drops.truth.whitened().channel, drops.context["p_max"]).numpy()
    assert features.shape == (6, 12, 33)
    found = (features[..., :16] + 1j * features[..., 16:32]) / math.sqrt(32)
    np.testing.assert_allclose(found, h / np.linalg.norm(h, axis=-1, keepdims=True), atol=1e-9)
    snr_db = 10 * np.log10(power[:, None] * beta)
    np.testing.assert_allclose(features[..., 32], (snr_db - wit.LEVEL_DB) / wit.SPREAD_DB, atol=1e-9)
    many = Fairness().sample(500, seed=4)
    size = wit.input_features(many.truth.whitened().channel, many.context["p_max"]).square().mean((0, 1)).sqrt()
    assert size.min() > 0.9 and size.max() < 1.1


def test_the_initial_weights_reduce_leakage(drops):
    """The first block is nearly a gradient step on leakage, and the beams before it are MRT."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Transformer().double()
    h, _, _ = channels(drops)
    d = h / np.linalg.norm(h, axis=-1, keepdims=True)
    gram = d.conj() @ d.swapaxes(-1, -2)  # d_l^H d_k at [l, k]
    step = -(gram.swapaxes(-1, -2) * (1 - np.eye(12))) @ d  # other users only: a user's own term only scales its beam
    beam = slice(33, 65)
    with torch.no_grad():
        x = model.embed(wit.input_features(drops.truth.whitened().channel, drops.context["p_max"]))
        block = model.blocks[0]
        moved = block.mix(block.attention(x))[..., beam].numpy()
    before = x[..., beam].numpy()
    np.testing.assert_allclose((before[..., :16] + 1j * before[..., 16:]) / math.sqrt(32), d, atol=1e-9)
    moved = moved[..., :16] + 1j * moved[..., 16:]
    moved = moved - (d.conj() * moved).sum(-1, keepdims=True) * d  # the part along a user's own channel is no leakage
    step = step - (d.conj() * step).sum(-1, keepdims=True) * d
    along = (step.conj() * moved).sum(-1).real / np.linalg.norm(step, axis=-1) / np.linalg.norm(moved, axis=-1)
    assert along.mean() > 0.7 and along.min() > 0.2


def test_relabelled_users_have_relabelled_beams(drops, network):
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    moved = Network.broadcast(drops.truth.channel[:, order], drops.truth.noise[:, order])
    with torch.no_grad():
        there, here = network.beams(drops.truth, drops.context["p_max"]), network.beams(moved, drops.context["p_max"])
    torch.testing.assert_close(here, there[..., order], rtol=1e-8, atol=1e-8)


def test_units_and_power_change_no_rate(drops, network):
    power = drops.context["p_max"]
    moved = Network.broadcast(3 * drops.truth.channel, 18 * drops.truth.noise)
    with torch.no_grad():
        there, here = network.beams(moved, 2 * power), network.beams(drops.truth, power)
    torch.testing.assert_close(there, math.sqrt(2) * here, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(here.abs().square().sum(-2), (power / 12).unsqueeze(-1).expand(6, 12))


def test_with_fixed_phases_the_users_phases_change_no_beam(drops, network):
    turn = torch.polar(torch.ones(6, 12, 1).double(), 9 * torch.rand(6, 12, 1, generator=torch.Generator()).double())
    moved = Network.broadcast(drops.truth.channel * turn, drops.truth.noise)
    power = drops.context["p_max"]
    with torch.no_grad():
        here, there = (network.beams(wit.with_fixed_phases(each), power) for each in (drops.truth, moved))
        raw = network.beams(moved, power) - network.beams(drops.truth, power)
    torch.testing.assert_close(there, here, rtol=1e-8, atol=1e-8)
    assert raw.abs().max() > 1e-3, "the network itself depends on the phases"
    d = wit.with_fixed_phases(moved).channel / moved.channel.abs().square().sum(-1, keepdim=True).sqrt()
    torch.testing.assert_close(wit.with_fixed_phases(moved).rate(here), drops.truth.rate(here))
    square, cube = (d * d).sum(-1), d.real.pow(3).sum(-1)
    assert (square.real > 0).all() and square.imag.abs().max() < 1e-9 and (cube > 0).all()


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
    assert shown == pytest.approx(wit.VIOLATION_COST * max(target - jain, 0) - total, rel=1e-9)


def test_the_scale_of_the_loss_has_no_gradient(drops, network):
    network.dual.target = 0.2  # no violation: the gradient is that of the mean sum rate over the range
    bias = network.network.head[-1].bias
    (slope,) = torch.autograd.grad(network.loss(drops, torch.Generator())[0], bias)
    total = drops.truth.rate(network.beams(drops.truth, drops.context["p_max"])).sum(-1)
    (expected,) = torch.autograd.grad(-total.mean(), bias)
    torch.testing.assert_close(slope, expected / (total.max() - total.min()).detach())


def test_the_dual_step_is_that_of_the_paper():
    network = WiT(jain=0.86, price=1.0, checkpoint="random")
    network.adapt({"jain": 0.8})
    assert network.dual.price.item() == pytest.approx(1.0006)
    network.adapt({"jain": 0.8575})
    assert network.dual.price.item() == pytest.approx(1.0006)


def test_its_recipe_trains_on_the_papers_cell():
    recipe = Recipe.find("wit")
    assert (recipe.run.batch, recipe.optimiser.lr, recipe.optimiser.weight_decay) == (256, 2e-3, 0.0)
    stream = recipe.data.build(recipe.data.draw(torch.Generator().manual_seed(0), 4000))
    assert stream.truth.channel.shape == (4000, 12, 16)
    ours = (stream.truth.channel.abs().square().sum(-1) / stream.truth.noise).log10()
    theirs = Fairness().sample(2000, seed=1)
    theirs = (theirs.truth.channel.abs().square().sum(-1) / theirs.truth.noise).log10()
    assert math.isclose(ours.mean(), theirs.mean(), abs_tol=0.02)
    assert math.isclose(ours.std(), theirs.std(), rel_tol=0.03)


@pytest.mark.parametrize("wrong", [{"jain": 0.05}, {"jain": 1.0}, {"price": -1.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        WiT(**{"checkpoint": "random", **wrong})


def test_it_learns():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WiT(checkpoint="random").requires_grad_()
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
