"""The learned hybrid methods as solvers: beams by an independent score, the observation alone, limits, and losses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from learning import all_random, check_gradient_of_loss

from beamforge.core import batching
from beamforge.core.errors import ConfigError
from beamforge.core.named_problems import build_problem
from beamforge.core.network import Network
from beamforge.core.solution import Status
from beamforge.learned.hybrid.estimates import of_problem
from beamforge.learned.hybrid.full_digital import FullDigitalGCN, within
from beamforge.learned.hybrid.gcn import HybridFCN, HybridGCN
from beamforge.learned.hybrid.two_stage import Hybrid2GCN
from beamforge.learned.hybrid.virtual_hybrid import levels_of
from beamforge.scenarios.base import seeded
from beamforge.scenarios.csi import PilotCSI
from beamforge.scenarios.upa import UPA
from beamforge.training.data.hybrid import HybridPilots

KINDS = (HybridGCN, HybridFCN, FullDigitalGCN, Hybrid2GCN)
HYBRID = (HybridGCN, HybridFCN, Hybrid2GCN)


def made(kind, **settings):
    """A method with random weights, near those of the start."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        solver = kind(checkpoint="random", **settings)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in solver.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return solver.requires_grad_(False)


def sampled(users=3, count=5, dtype=torch.complex128, **fields):
    instance = PilotCSI(UPA(users=users, columns=4, rows=2, target_high_db=3.0, **fields), 10.0, 20.0).sample(
        count, dtype=dtype
    )
    return build_problem("hybrid-min-power", {**instance.context, "outage": 0.1}), instance


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("users", [1, 2, 3])
def test_virtual_targets_are_met_with_equality_and_factors_multiply_to_the_beams(kind, users):
    problem, instance = sampled(users)
    solver = made(kind)
    solution = solver.solve(problem, instance)
    assert solution.solved.all()
    seen = of_problem(problem.bind(instance.truth), instance.observation)
    levels = levels_of(solver.network.eval(), seen)
    H, W = seen.H.numpy(), solution.W.numpy()
    for b, k in np.ndindex(*H.shape[:2]):
        h, w = H[b, k], W[b]
        got = np.abs(h @ w) ** 2
        floor = (np.abs(w) ** 2).sum(0)
        wanted = float(levels.wanted[b, k]) * got[k] + float(levels.wanted_floor[b, k]) * floor[k]
        heard = float(levels.interfering[b, k]) * got + float(levels.interfering_floor[b, k]) * floor
        sinr = wanted / (heard.sum() - heard[k] + 1)
        assert sinr == pytest.approx(float(seen.targets[b, k]), rel=1e-6)
    if kind in HYBRID:
        A, B, p = (each.numpy() for each in (solution.factors.analog, solution.factors.digital, solution.factors.power))
        np.testing.assert_allclose(W, A @ (B * np.sqrt(p)[:, None]), atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(B, axis=1), 1, atol=1e-9)
        codebook = seen.codebook.numpy()
        for b in range(len(A)):
            np.testing.assert_array_equal(A[b], codebook[b][:, solution.factors.codeword[b].numpy()])
            assert len(set(solution.factors.codeword[b].tolist())) == A.shape[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_beams_do_not_depend_on_the_truth(kind):
    problem, instance = sampled()
    poisoned = replace(instance, truth=replace(instance.truth, H=torch.full_like(instance.truth.H, torch.nan)))
    solver = made(kind)
    assert torch.equal(solver.solve(problem, instance).W, solver.solve(problem, poisoned).W)


@pytest.mark.parametrize("kind", KINDS)
def test_relabelled_users_have_relabelled_beams(kind):
    problem, instance = sampled(4, count=3)
    order = torch.tensor([2, 0, 3, 1])
    network = Network.broadcast(instance.observation.network.channel[:, order], 1.0)
    context = {
        name: value[:, order] if name in ("sinr_target", "csi_quality", "covariance") else value
        for name, value in instance.context.items()
    }
    other = replace(instance.observation, network=network, context=context)
    solver = made(kind)
    expected = solver.solve(problem, instance).W[..., order]
    found = solver.solve(build_problem("hybrid-min-power", {**context, "outage": 0.1}), other).W
    power = expected.abs().square().sum((-2, -1))
    torch.testing.assert_close(found.abs().square().sum((-2, -1)), power, rtol=1e-3, atol=0)
    near = (found.abs() - expected.abs()).square().sum((-2, -1)) < 1e-4 * power
    assert near.any(), "up to ties between codewords"


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_is_close_to_double(kind):
    problem, instance = sampled()
    single, given = sampled(dtype=torch.complex64)
    solver = made(kind)
    wide, narrow = solver.solve(problem, instance), solver.solve(single, given)
    assert narrow.W.dtype == torch.complex64
    ratio = narrow.W.abs().square().sum((-2, -1)).double() / wide.W.abs().square().sum((-2, -1))
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=2e-3, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_power_stays_within_its_limit(kind):
    problem, instance = sampled()
    free = made(kind).solve(problem, instance).W.abs().square().sum((-2, -1))
    limit = free.median()
    tight = build_problem("hybrid-min-power", {**instance.context, "outage": 0.1, "p_max": limit.expand(5)})
    power = made(kind).solve(tight, instance).W.abs().square().sum((-2, -1))
    torch.testing.assert_close(power, free.minimum(limit))


@pytest.mark.parametrize("kind", KINDS)
def test_targets_that_cannot_be_met_are_flagged_and_spoil_no_other_instance(kind):
    problem, instance = sampled()
    before = made(kind).solve(problem, instance)
    H = instance.observation.network.channel.clone()
    H[1, 1] = H[1, 0]  # two users that no beams tell apart, with targets above 0 dB
    seen = replace(instance.observation, network=Network.broadcast(H, 1.0))
    after = made(kind).solve(problem, seen)
    assert after.status[1] == Status.INFEASIBLE and (after.W[1] == 0).all()
    others = torch.tensor([0, 2, 3, 4])
    torch.testing.assert_close(after.W[others], before.W[others])


def test_a_smaller_outage_than_that_of_the_training_is_refused():
    problem, instance = sampled()
    with pytest.raises(ConfigError, match=r"at least 0\.2"):
        made(HybridGCN, outage=0.2).solve(problem, instance)


@pytest.mark.parametrize("kind", KINDS)
def test_without_csi_quality_and_covariance_the_estimate_counts_as_good(kind):
    problem, instance = sampled()
    bare = replace(instance.observation, context={"sinr_target": instance.context["sinr_target"]})
    assert made(kind).solve(problem, bare).solved.all()


def trained_on(users=2, count=8):
    source = HybridPilots(users=(users, users), columns=8, rows=4, pilot_db=(5.0, 20.0))
    return source.build(source.draw(seeded(0, 0), count))


@pytest.mark.parametrize("kind", [HybridGCN, FullDigitalGCN])
def test_gradient_of_the_loss_by_finite_differences(kind):
    """Where no codeword is selected with a gradient, which finite differences do not see."""
    settings = {"selections": 0} if kind is HybridGCN else {}
    solver = made(kind, width=4, layers=2, degree=1, **settings).double().eval().requires_grad_()
    check_gradient_of_loss(solver, trained_on())


@pytest.mark.parametrize("kind", HYBRID)
def test_the_selection_of_a_codeword_adds_to_the_gradient(kind):
    solver, instance = made(kind, width=4, selections=1).double().eval().requires_grad_(), trained_on()
    loss, figures = solver.loss(instance, torch.Generator())
    loss.backward()
    grads = {name: p.grad for name, p in solver.named_parameters()}
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads.values())
    assert {"power", "users", "outage_1", "price_4", "infeasible"} <= figures.keys()
    name = "statistical" if kind is Hybrid2GCN else "network"
    assert any(grad.abs().max() > 0 for each, grad in grads.items() if each.startswith(name))


@pytest.mark.parametrize("kind", KINDS)
def test_any_weights_have_finite_losses(kind):
    solver = all_random(made(kind, width=4), std=3.0).requires_grad_()
    loss, _ = solver.loss(batching.tree_map(lambda leaf: leaf, trained_on(3)), torch.Generator())
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in solver.parameters() if p.grad is not None)


def test_prices_follow_the_groups_of_a_batch():
    solver, instance = made(FullDigitalGCN), trained_on(users=2)
    _, figures = solver.loss(instance, torch.Generator())
    before = solver.priced.constraint.price.clone()
    solver.adapt({name: float(value) for name, value in figures.items()})
    moved = (solver.priced.constraint.price != before).nonzero().squeeze(-1).tolist()
    assert moved and set(moved) <= {4, 5, 6, 7}, "two users: the second row of four kinds"


def test_the_fully_digital_bound_keeps_to_the_span_of_the_codebook():
    H, book = torch.randn(2, 3, 8, dtype=torch.complex128), torch.randn(2, 8, 4, dtype=torch.complex128)
    inside = within(H, book).mH
    torch.testing.assert_close(book @ torch.linalg.pinv(book) @ inside, inside)
    assert torch.equal(within(H, torch.randn(2, 8, 9, dtype=torch.complex128)), H)


@pytest.mark.parametrize("settings", [{"rf_chains": 0}, {"selections": -1}])
@pytest.mark.parametrize("kind", HYBRID)
def test_settings_out_of_range_are_refused(kind, settings):
    with pytest.raises(ConfigError):
        kind(checkpoint="random", **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_floors_are_lowered_where_virtual_targets_cannot_be_met(kind):
    _, instance = sampled(3, target_low_db=2.0)
    solver = made(kind)
    without_limit = {name: value for name, value in instance.context.items() if name != "p_max"}
    problem = build_problem("hybrid-min-power", {**without_limit, "outage": 0.1})
    with torch.no_grad():
        for name in solver.networks:
            last = getattr(solver, name).layers[-1].taps
            for tap in last:
                tap.weight.zero_()
            last[0].bias.copy_(torch.tensor([0.0, -9.0, 0.0, 9.0]))  # interference that nothing can overcome
    seen = of_problem(problem.bind(instance.truth), instance.observation)
    assert not solver.eval().build(seen).digital.feasible.any()
    solution = solver.solve(problem, instance)
    assert solution.solved.all()
    sinr = instance.observation.network.sinr(solution.W)
    torch.testing.assert_close(sinr, instance.context["sinr_target"], rtol=1e-6, atol=0)  # without floors
