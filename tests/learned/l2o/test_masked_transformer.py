"""The transformer as a method: every size by one network, masks that are exact, and ascent that helps."""

from __future__ import annotations

import pytest
import torch
from learning import all_random

from beamforge.classical.linear import RZF
from beamforge.core.errors import ConfigError, UnsupportedProblem
from beamforge.core.named_problems import build_problem
from beamforge.core.network import Network
from beamforge.learned.l2o.masked_transformer import MTSAO, DTSAOLift, MTSAOLift
from beamforge.learned.l2o.masks import Masks
from beamforge.registry import create
from beamforge.training.data.masked import Masked
from beamforge.training.stream import Stream

PROBLEM = build_problem("sum-rate", {"p_max": 1.0})
FORMS = [(tokens, metric) for tokens in ("invariants", "coordinates") for metric in ("auxiliary", "euclidean")]


def made(kind=MTSAOLift, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small = {"checkpoint": "random", "size": 6, "layers": 3, "width": 8, "heads": 2, "depth": 4}
        return kind(**{**small, **settings})


def network(users, antennas, seed=0, dtype=torch.complex64, batch=4):
    H = torch.randn(batch, users, antennas, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
    return Network.broadcast(H.to(dtype), 0.01)


def rate(solver, network):
    with torch.no_grad():
        return network.rate(solver.solve(PROBLEM, network).W).sum(-1)


@pytest.mark.parametrize(("tokens", "metric"), FORMS)
@pytest.mark.parametrize(("users", "antennas"), [(1, 1), (1, 4), (4, 1), (5, 3), (3, 5), (6, 6)])
def test_it_is_never_below_what_it_begins_with_and_layers_never_lower_the_trace(tokens, metric, users, antennas):
    solver, cell = made(tokens=tokens, metric=metric), network(users, antennas)
    with torch.no_grad():
        solution = solver.solve(PROBLEM, cell)
    torch.testing.assert_close(solution.W.abs().square().sum((-2, -1)), torch.ones(4))
    assert solution.trace.shape == (4, 4) and (solution.trace.diff() >= 0).all()
    found = cell.rate(solution.W).sum(-1)
    torch.testing.assert_close(solution.trace[:, -1], found, rtol=1e-4, atol=1e-4)
    assert (found >= rate(RZF(), cell) * (1 - 1e-5)).all()


@pytest.mark.parametrize(("tokens", "metric"), FORMS)
def test_a_user_without_a_channel_gets_nothing_and_changes_nothing(tokens, metric):
    solver, cell = all_random(made(tokens=tokens, metric=metric), 0.2), network(5, 5)
    H = cell.channel.clone()
    H[:, 2], H[:, :, 4] = 0, 0
    whole = Network.broadcast(H, 0.01)
    with torch.no_grad():
        W = solver.solve(PROBLEM, whole).W
    assert (W[..., 2] == 0).all() and (W[:, 4] == 0).all()
    if tokens == "invariants":
        kept = torch.tensor([0, 1, 3, 4])
        small = Network.broadcast(H[:, kept, :4], 0.01)
        torch.testing.assert_close(whole.rate(W)[:, kept].sum(-1), rate(solver, small), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("tokens", ["invariants", "coordinates"])
def test_masks_are_exact(tokens):
    """Whatever stands in masked places: every bit of every layer's beams is that of zeros there."""
    solver = all_random(made(tokens=tokens), 0.2)
    instance = Stream.training(Masked(size=6, sizes=3), 0, 8).batch_at(3)
    H = 10 * instance.truth.channel
    masks = Masks.of(H)
    noisy = torch.where(masks.samples(), H, torch.full_like(H, 1e3 - 5j))
    with torch.no_grad():
        one, two = (solver.walk(matrix, masks, torch.ones(8, 6)) for matrix in (H, noisy))
    assert len(one) == 4 and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("kind", [MTSAOLift, MTSAO])
def test_more_users_or_antennas_than_it_was_trained_for_are_refused(kind):
    solver = made(kind)
    for users, antennas in ((7, 2), (2, 7)):
        words = f"{solver.model} has weights for up to 6 users and 6 antennas, got {users} and {antennas}; .*wmmse"
        with pytest.raises(UnsupportedProblem, match=words):
            solver.solve(PROBLEM, network(users, antennas))


def test_the_dedicated_one_serves_its_own_size_alone():
    solver = made(DTSAOLift)
    rate(solver, network(6, 6))
    for users, antennas in ((6, 5), (5, 6), (5, 5)):
        with pytest.raises(UnsupportedProblem, match="DTSAOLift does not serve"):
            solver.solve(PROBLEM, network(users, antennas))
    with pytest.raises(
        UnsupportedProblem, match=r"dt-sao-lift \(8 users and 8 antennas, or .*\) does not serve.*wmmse"
    ):
        create(PROBLEM, network(6, 6), "dt-sao-lift")


def test_a_request_by_name_is_refused_with_the_size_of_the_weights():
    with pytest.raises(UnsupportedProblem, match=r"mt-sao \(up to 16 users and 16 antennas.*does not serve.*wmmse"):
        create(PROBLEM, network(17, 4), "mt-sao")


def test_ascent_steps_are_a_setting_and_more_of_them_better_an_untrained_network():
    cell = network(4, 4, batch=40)
    means = [rate(made(ascent_steps=steps), cell).mean() for steps in (0, 1, 4)]
    assert means[0] < means[1] < means[2]
    torch.testing.assert_close(means[0], rate(RZF(), cell).mean())
    solver = create(PROBLEM, cell, "mt-sao-lift", {"ascent_steps": "3", "checkpoint": "random"})
    assert solver.ascent_steps == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ascent_steps": -1}, "ascent_steps must not be negative, got -1"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"tokens": "invariant"}, "did you mean invariants|invariants"),
        ({"metric": "euclid"}, "euclidean"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        made(**settings)


@pytest.mark.parametrize(
    ("kind", "tokens"), [(MTSAOLift, "invariants"), (MTSAO, "invariants"), (MTSAOLift, "coordinates")]
)
def test_the_gradient_of_the_loss_is_that_of_finite_differences(kind, tokens):
    """Through the ascent steps, whose derivative is of second order, and through masks."""
    solver = made(kind, tokens=tokens, layers=2, size=4).double()
    solver = all_random(solver, 0.1).requires_grad_()
    data = Masked(size=4, sizes=2, snr_db=(10.0, 10.0))
    instance = Stream.training(data, 0, 3, torch.complex128).batch_at(0)
    solver.loss(instance, torch.Generator())[0].backward()
    checked = 0
    for name, parameter in solver.named_parameters():
        if parameter.grad is None:
            continue
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        ends = []
        with torch.no_grad():
            for move in (1e-5, -2e-5):
                parameter += move * direction
                ends.append(solver.loss(instance, torch.Generator())[0].item())
            parameter += 1e-5 * direction
        slope = (parameter.grad * direction).sum().item()
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-7), name
        checked += slope != 0
    assert checked > len(list(solver.parameters())) / 2


def test_only_the_layers_of_the_window_learn():
    solver = made().requires_grad_()
    instance = Stream.training(Masked(size=6, sizes=2), 0, 4).batch_at(0)
    solver.focus(range(1, 2))
    solver.loss(instance, torch.Generator())[0].backward()
    assert [any(p.grad is not None for p in layer.parameters()) for layer in solver.layers] == [False, True, False]
    solver.eval()
    last = solver.loss(instance, torch.Generator())[0]
    solver.focus(range(3))
    torch.testing.assert_close(solver.loss(instance, torch.Generator())[0], last), "validation is of the whole network"


def test_the_loss_is_the_mean_logarithm_of_the_rates_behind_the_layers():
    solver = made()
    instance = Stream.training(Masked(size=6, sizes=2), 0, 4).batch_at(5)
    H = instance.truth.channel / instance.truth.noise.sqrt().unsqueeze(-1)
    with torch.no_grad():
        found = solver.walk(H, Masks.of(H), torch.ones(4, 6))[1:]
        expected = -torch.stack([instance.truth.rate(W).sum(-1) * 0.6931471805599453 for W in found]).log().mean()
        torch.testing.assert_close(solver.loss(instance, torch.Generator())[0], expected, rtol=1e-4, atol=1e-4)


def test_both_precisions_give_the_same_rates_and_their_own_dtype():
    solver = all_random(made(), 0.1)
    one, two = (rate(solver, network(5, 4, dtype=dtype)) for dtype in (torch.complex64, torch.complex128))
    assert two.dtype == torch.float64
    torch.testing.assert_close(one.double(), two, rtol=1e-3, atol=1e-3)


def test_without_a_lift_the_auxiliary_channel_stays():
    lifted, plain = made(), made(MTSAO)
    cell = network(6, 3, batch=20)
    assert (rate(lifted, cell) - rate(plain, cell)).abs().max() > 1e-3
