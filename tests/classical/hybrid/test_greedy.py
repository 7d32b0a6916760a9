"""Greedy, exhaustive and margin methods for hybrid beams, scored in NumPy and against all subsets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from beamforge.classical.duality.min_power import Duality
from beamforge.classical.hybrid.digital import digital_beams
from beamforge.classical.hybrid.exhaustive import ExhaustiveHybrid
from beamforge.classical.hybrid.greedy import GreedyHybrid
from beamforge.classical.hybrid.margin import MARGINS_DB, HybridMargin, bisected_margin, margin_table, mean_outage
from beamforge.core.constraints import SinrAtLeast
from beamforge.core.errors import ConfigError
from beamforge.core.evaluate import evaluate
from beamforge.core.hybrid import dft_codebook
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.network import Network
from beamforge.core.problem import Problem
from beamforge.core.solution import Status
from beamforge.core.utilities import TransmitPower
from beamforge.scenarios.hybrid import HybridOutage
from tests.oracles import channels

POWERS = ("radiated", "baseband")


def question(scenario=None, count=12, seed=3, power="radiated", **stated):
    """Instances with perfect channel knowledge, and the problem of least power for them."""
    sampled = (scenario or HybridOutage()).sample(count, seed=seed, dtype=torch.complex128)
    known = {name: sampled.context[name] for name in ("sinr_target", "codebook", "p_max")}
    return build_problem("hybrid-min-power", {**known, "power": power, **stated}), Instance.perfect(sampled.truth)


def sinr(H, W, noise=1.0):
    """SINR [B, K] by definition."""
    found = np.zeros(H.shape[:2])
    for b in range(len(H)):
        power = np.abs(H[b] @ W[b]) ** 2
        for k in range(len(power)):
            found[b, k] = power[k, k] / (sum(power[k, j] for j in range(len(power)) if j != k) + noise)
    return found


@pytest.mark.parametrize("power", POWERS)
def test_beams_scored_in_numpy(power):
    problem, instance = question(power=power)
    found = GreedyHybrid().solve(problem, instance)
    assert (found.status == Status.CONVERGED).all()
    A, B, p = (x.numpy() for x in (found.factors.analog, found.factors.digital, found.factors.power))
    book, index = dft_codebook(8, 4, oversampling=(2, 1)).numpy(), found.factors.codeword.numpy()
    np.testing.assert_array_equal(A, np.stack([book[:, row] for row in index]))
    np.testing.assert_allclose(found.W, A @ (B * np.sqrt(p)[:, None]), rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(B, axis=1), 1, rtol=1e-12)
    targets = problem.get(SinrAtLeast).target.numpy()
    assert (sinr(instance.truth.channel.numpy(), found.W.numpy()) >= targets - 1e-6).all()
    report = evaluate(problem, instance, found.beams)
    W = found.W.numpy() if power == "radiated" else B * np.sqrt(p)[:, None]
    np.testing.assert_allclose(report.utility, (np.abs(W) ** 2).sum((-2, -1)), rtol=1e-12)
    np.testing.assert_allclose(found.trace[:, -1], report.utility, rtol=1e-9)
    assert report.feasible.all()


@pytest.mark.parametrize("power", POWERS)
def test_every_selection_takes_the_cheapest_codeword_and_power_never_rises(power):
    """Each selection against the digital problem solved for every codeword."""
    problem, instance = question(count=2, power=power)
    H, targets = instance.truth.channel, problem.get(SinrAtLeast).target
    book = dft_codebook(8, 4, oversampling=(2, 1))
    found = GreedyHybrid(selections=7).solve(problem, instance)
    assert (found.trace[:, 1:] <= found.trace[:, :-1] * (1 + 1e-9)).all()
    for b in range(2):
        h = H[b].numpy()
        score = (np.abs(h @ book.numpy()) ** 2 / (np.abs(h) ** 2).sum(1)[:, None]).sum(0)
        index = []
        for c in np.argsort(-score, kind="stable"):
            if np.linalg.matrix_rank(book[:, [*index, c]].numpy(), tol=1e-6) == len(index) + 1:
                index.append(int(c))
            if len(index) == 5:
                break
        for selection in range(7):
            m = selection % 5
            trials = np.array(
                [[*index[:m], c, *index[m + 1 :]] for c in range(64) if c not in index[:m] + index[m + 1 :]]
            )
            A = book[:, torch.from_numpy(trials)].movedim(1, 0)
            seen = (H[b] @ A).conj()
            G = seen.unsqueeze(-1) * seen.conj().unsqueeze(-2)
            D = A.mH @ A if power == "radiated" else torch.eye(5).to(A).expand(len(A), -1, -1)
            cost = digital_beams(G, G, D, targets[b].expand(len(A), -1)).cost
            index = trials[int(cost.argmin())].tolist()
        assert found.trace[b, -1].item() == pytest.approx(cost.min().item(), rel=1e-8)
        assert sorted(found.factors.codeword[b].tolist()) == sorted(index)


def test_as_many_chains_as_antennas_are_the_digital_optimum():
    problem, instance = question(HybridOutage(users=3, columns=3, rows=2), count=5)
    targets = Problem(TransmitPower(), (SinrAtLeast(problem.get(SinrAtLeast).target),))
    digital = Duality().solve(targets, instance)
    found = GreedyHybrid(rf_chains=6, selections=30).solve(problem, instance)
    power = [(solution.W.abs() ** 2).sum((-2, -1)) for solution in (found, digital)]
    np.testing.assert_allclose(*power, rtol=1e-8)
    fewer = GreedyHybrid(rf_chains=4).solve(problem, instance)
    assert ((fewer.W.abs() ** 2).sum((-2, -1)) >= power[1] * (1 - 1e-9)).all()


@pytest.mark.parametrize("power", POWERS)
def test_exhaustive_is_the_least_power_of_all_subsets(power):
    problem, instance = question(HybridOutage(users=2, columns=4, rows=2), count=4, power=power)
    H, targets = instance.truth.channel, problem.get(SinrAtLeast).target
    book = dft_codebook(4, 2, oversampling=(2, 1))
    found = ExhaustiveHybrid(rf_chains=3).solve(problem, instance)
    subsets = torch.tensor(list(combinations(range(16), 3)))
    A = book[:, subsets].movedim(1, 0)
    keep = torch.linalg.matrix_rank(A, rtol=1e-6) == 3
    A = A[keep]
    for b in range(4):
        seen = (H[b] @ A).conj()
        G = seen.unsqueeze(-1) * seen.conj().unsqueeze(-2)
        D = A.mH @ A if power == "radiated" else torch.eye(3).to(A).expand(len(A), -1, -1)
        cost = digital_beams(G, G, D, targets[b].expand(len(A), -1)).cost
        assert found.trace[b, -1].item() == pytest.approx(cost.min().item(), rel=1e-8)
        assert found.factors.codeword[b].tolist() == subsets[keep][cost.argmin()].tolist()
    greedy = GreedyHybrid(rf_chains=3).solve(problem, instance)
    assert (greedy.trace[:, -1] >= found.trace[:, -1] * (1 - 1e-9)).all()


def test_exhaustive_refuses_a_large_codebook():
    problem, instance = question(count=1)
    with pytest.raises(ConfigError, match="7624512 of 64 codewords; use greedy-hybrid"):
        ExhaustiveHybrid().solve(problem, instance)


def test_more_users_than_chains_are_infeasible_unless_targets_are_low():
    instance = Instance.perfect(Network.broadcast(torch.from_numpy(channels(6, 4, 8, seed=1)), noise=1.0))
    low, high = (build_problem("hybrid-min-power", {"sinr_target": target}) for target in (0.05, 10.0))
    found = GreedyHybrid(rf_chains=2).solve(high, instance)
    assert (found.status == Status.INFEASIBLE).all() and (found.W == 0).all() and (found.factors.power == 0).all()
    assert GreedyHybrid(rf_chains=2).solve(low, instance).solved.all()


def test_one_user_one_chain_is_the_strongest_codeword():
    H = torch.from_numpy(channels(5, 1, 8, seed=2))
    problem = build_problem("hybrid-min-power", {"sinr_target": 2.0})
    instance = Instance.perfect(Network.broadcast(H, noise=0.5))
    found = GreedyHybrid(rf_chains=1).solve(problem, instance)
    gain = (H @ dft_codebook(8)).abs().square().squeeze(1)
    assert found.factors.codeword.squeeze(-1).tolist() == gain.argmax(-1).tolist()
    power = (found.W.abs() ** 2).sum((-2, -1))
    np.testing.assert_allclose(power, 2.0 * 0.5 / gain.amax(-1), rtol=1e-12)


def test_failed_instances_and_a_power_limit():
    problem, instance = question(count=4)
    clean = GreedyHybrid().solve(problem, instance)
    H = instance.truth.channel.clone()
    H[0, 1] = 0
    H[1] = torch.nan
    found = GreedyHybrid().solve(problem, Network.broadcast(H, 1.0))
    assert found.status.tolist() == [Status.INFEASIBLE, Status.NUMERICAL_FAILURE, Status.CONVERGED, Status.CONVERGED]
    torch.testing.assert_close(found.W[2:], clean.W[2:], rtol=1e-9, atol=1e-9)
    power = (clean.W.abs() ** 2).sum((-2, -1))
    limited, _ = question(count=4, p_max=power * torch.tensor([0.99, 1.01, 0.99, 1.01]))
    assert GreedyHybrid().solve(limited, instance).solved.tolist() == [False, True, False, True]


def test_codebooks_of_each_instance_and_settings():
    problem, instance = question(count=3)
    book = dft_codebook(8, 4, oversampling=(2, 1))
    own = torch.stack([book, book.roll(1, 1), book[:, torch.arange(63, -1, -1)]])
    other, _ = question(count=3, codebook=own)
    one, two = (GreedyHybrid().solve(each, instance) for each in (problem, other))
    np.testing.assert_allclose(one.trace, two.trace, rtol=1e-8)
    with pytest.raises(
        ConfigError, match="rf_chains must be at most the number of the 32 antennas and the 64 codewords"
    ):
        GreedyHybrid(rf_chains=33).solve(problem, instance)
    for settings in ({"rf_chains": 0}, {"selections": 0}):
        with pytest.raises(ConfigError, match="must be at least 1"):
            GreedyHybrid(**settings)


def test_users_without_a_target_get_no_beam_and_the_factors_agree():
    problem, instance = question(count=4)
    targets = problem.get(SinrAtLeast).target.clone()
    targets[1, 2] = targets[3, 0] = 0
    targets[2] = 0
    some, _ = question(count=4, sinr_target=targets)
    found = GreedyHybrid().solve(some, instance)
    assert found.solved.all() and (found.W[1, :, 2] == 0).all() and (found.W[2] == 0).all()
    torch.testing.assert_close(found.factors.W, found.W)
    whole = GreedyHybrid().solve(problem, instance)
    torch.testing.assert_close(found.W[0], whole.W[0], rtol=1e-8, atol=1e-9)


def estimated(count, seed, **changes):
    """Instances with estimated channels, and the problem with a nominal outage."""
    instance = HybridOutage(**changes).sample(count, seed=seed, dtype=torch.complex128)
    return build_problem("hybrid-min-power", {**instance.context, "outage": 0.1}), instance


def test_the_truth_changes_no_beam():
    problem, instance = estimated(4, 5)
    poisoned = Network.broadcast(torch.full_like(instance.truth.channel, torch.nan), 1.0)
    blind = Instance(poisoned, instance.observation)
    for solver in (GreedyHybrid(), HybridMargin()):
        assert torch.equal(solver.solve(problem, instance).W, solver.solve(problem, blind).W)


def test_margin_raises_the_targets_on_the_estimate():
    problem, instance = estimated(4, 5)
    found = HybridMargin(margin_db=3.0).solve(problem, instance)
    on_estimate = sinr(instance.observation.network.channel.numpy(), found.W.numpy())
    targets = instance.context["sinr_target"].numpy()
    np.testing.assert_allclose(on_estimate[found.solved], (10**0.3 * targets)[found.solved], rtol=1e-9)
    with pytest.raises(ConfigError, match="margin_db must be within"):
        HybridMargin(margin_db=100.0)


def test_table_of_margins():
    outage, pilot = torch.tensor([0.05, 0.1, 0.2, 0.1, 0.1, 0.01]), torch.tensor([0.0, 5, 20, -10, 40, 10])
    found = margin_table(outage, 10 ** (pilot / 10))
    expected = [
        MARGINS_DB[0][0],
        MARGINS_DB[1][1],
        MARGINS_DB[2][4],
        MARGINS_DB[1][0],
        MARGINS_DB[1][4],
        MARGINS_DB[0][2],
    ]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-5)
    half = margin_table(torch.tensor(0.1), torch.tensor(10**0.75))
    assert half.item() == pytest.approx((MARGINS_DB[1][1] + MARGINS_DB[1][2]) / 2, rel=1e-5)
    between = margin_table(torch.tensor(0.02**0.5), torch.tensor(10.0))
    assert between.item() == pytest.approx((MARGINS_DB[1][2] + MARGINS_DB[2][2]) / 2, rel=1e-5)


def test_margins_of_the_table_reach_the_outage_where_pilots_differ():
    """400 users: the share in outage has a standard deviation of 0.015."""
    problem, instance = estimated(100, 7)
    assert abs(mean_outage(problem, instance, HybridMargin()) - 0.1) < 0.05
    assert mean_outage(problem, instance, GreedyHybrid()) > 0.4


def test_bisected_margin_gives_the_nominal_outage():
    problem, instance = estimated(150, 6, users=2, columns=4, pilot_low_db=10.0, pilot_high_db=10.0)
    solver = HybridMargin(rf_chains=3, selections=3)
    margin = bisected_margin(problem, instance, solver)
    outages = [mean_outage(problem, instance, HybridMargin(3, 3, margin + step)) for step in (-0.5, 0.0, 0.5)]
    assert outages[0] > 0.1 >= outages[1] >= outages[2]


@pytest.mark.parametrize("kind", [GreedyHybrid, HybridMargin])
def test_single_precision(kind):
    problem, instance = estimated(4, 5)
    single = HybridOutage().sample(4, seed=5)
    rough = build_problem("hybrid-min-power", {**single.context, "outage": 0.1})
    found, exact = kind().solve(rough, single), kind().solve(problem, instance)
    assert found.W.dtype == torch.complex64
    torch.testing.assert_close(found.factors.codeword, exact.factors.codeword)
    torch.testing.assert_close(found.W, exact.W.to(torch.complex64), rtol=1e-3, atol=1e-4)
