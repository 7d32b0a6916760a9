"""Networks that improve beams step by step: what they begin with, what their steps depend on, and their gradients."""

from __future__ import annotations

import pytest
import torch
from learning import all_random, check_gradient_of_loss

from beamforge.core.errors import ConfigError
from beamforge.learned.l2o.ascent import Received, gradient, lmmse, of_full_power
from beamforge.learned.l2o.bicnn import BiCNN, around
from beamforge.learned.l2o.rnn_optimizer import FIRST_STEP, RNNOptimizer
from beamforge.training.data.masked import Masked
from beamforge.training.stream import Stream


def rnn(steps=4, std=0.3):
    solver = RNNOptimizer(checkpoint="random", steps=steps, width=6).double().requires_grad_()
    return all_random(solver, std) if std else solver


def cnn(std=0.3):
    solver = BiCNN(checkpoint="random", blocks=2, width=5, reach=2).double().requires_grad_()
    return all_random(solver, std) if std else solver


def channels(users=5, antennas=4):
    return 3 * torch.randn(3, users, antennas, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))


def beams(solver, H):
    with torch.no_grad():
        return solver.beams(H, torch.ones_like(H.real[..., 0]))


def test_an_untrained_recurrent_network_is_plain_gradient_ascent():
    H = channels()
    weights = torch.ones_like(H.real[..., 0])
    W = lmmse(H, weights > 0)
    before = Received.of(H, W).rate(weights)
    for _ in range(4):
        W = of_full_power(W + FIRST_STEP * of_full_power(gradient(H, W, weights)[0]))
    torch.testing.assert_close(
        (H @ beams(rnn(std=0), H)).abs(), (H @ W).abs(), rtol=1e-6, atol=1e-6
    )  # single: the length
    assert (Received.of(H, W).rate(weights) > before).all()


def test_untrained_convolutions_change_no_beam():
    H = channels()
    torch.testing.assert_close((H @ beams(cnn(std=0), H)).abs(), (H @ lmmse(H, H.abs().sum(-1) > 0)).abs())


@pytest.mark.parametrize("make", [rnn, cnn])
def test_the_order_of_users_and_antennas_and_phases_do_not_matter(make):
    solver, H = make(), channels()
    users, antennas = torch.tensor([2, 0, 4, 3, 1]), torch.tensor([3, 1, 0, 2])
    power = (H @ beams(solver, H)).abs()
    turned = torch.polar(torch.ones(5, 1).double(), torch.arange(5.0).double().unsqueeze(-1)) * H
    torch.testing.assert_close((turned @ beams(solver, turned)).abs(), power)
    moved = H[:, users][:, :, antennas]
    torch.testing.assert_close((moved @ beams(solver, moved)).abs(), power[:, users][:, :, users])
    assert (power - (H @ beams(make(std=0), H)).abs()).abs().max() > 1e-2


def test_convolutions_see_as_far_as_they_reach():
    solver, H = all_random(BiCNN(checkpoint="random", blocks=1, width=4, reach=1).double(), 0.3), channels(9, 9)
    image = torch.randn(1, 6, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    present = torch.ones(1, 1, 9, 9, dtype=torch.bool)
    block = solver.beamformer.blocks[0]
    moved = image.clone()
    moved[..., 0, 0] += 1
    changed = (block(moved, present) - block(image, present)).abs().sum((0, 1)) > 1e-12
    reached = torch.zeros(9, 9, dtype=torch.bool)
    for i in range(-2, 3):  # two layers of convolutions along either axis
        for j in range(-2, 3):
            reached[i, j] = abs(i) + abs(j) <= 2
    assert torch.equal(changed, reached)
    assert beams(solver, H).shape == (3, 9, 9)
    assert around(torch.arange(4), 6, -1).tolist() == [2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize("make", [rnn, cnn])
def test_users_and_antennas_without_a_channel_have_no_power(make):
    solver, H = make(), channels()
    H[:, 1], H[:, :, 2] = 0, 0
    W = beams(solver, H)
    assert (W[..., 1] == 0).all() and (W[:, 2] == 0).all()
    torch.testing.assert_close(W.abs().square().sum((-2, -1)), torch.ones(3, dtype=torch.float64))
    if make is rnn:
        rows, columns = torch.tensor([0, 2, 3, 4]), torch.tensor([0, 1, 3])
        torch.testing.assert_close(W[:, columns][:, :, rows], beams(solver, H[:, rows][:, :, columns]))
    assert beams(solver, 0 * H).eq(0).all()


def test_gradients_of_convolutions_agree_with_differences():
    stream = Stream.training(Masked(size=4, sizes=2, snr_db=(0, 10)), 0, 4, torch.complex128, torch.device("cpu"))
    check_gradient_of_loss(cnn(), stream.batch_at(3))


def test_the_loss_of_the_recurrent_network_is_of_all_steps():
    stream = Stream.training(Masked(size=4, sizes=1, snr_db=(0, 10)), 0, 4, torch.complex128, torch.device("cpu"))
    solver, instance = rnn(), stream.batch_at(0)
    loss, figures = solver.loss(instance, torch.Generator())
    H = instance.truth.channel * instance.truth.noise.rsqrt().unsqueeze(-1)
    weights = torch.ones_like(H.real[..., 0])
    rates = [Received.of(H, W).rate(weights).detach() for W in solver.iterates(H, weights)]
    torch.testing.assert_close(loss.detach(), -torch.stack(rates).log().mean())
    torch.testing.assert_close(figures["sum_rate"], rates[-1].mean() / torch.tensor(2.0).double().log())


@pytest.mark.parametrize(
    ("kind", "sizes", "match"),
    [
        (RNNOptimizer, {"steps": 0}, "steps and width must be at least 1"),
        (BiCNN, {"reach": 0}, "blocks, width and reach must be at least 1"),
    ],
)
def test_sizes_are_positive(kind, sizes, match):
    with pytest.raises(ConfigError, match=match):
        kind(checkpoint="random", **sizes)
