"""The codeword sweep for covariances against the digital kernel, and against the sweep for channels of rank one."""

from __future__ import annotations

import pytest
import torch

from beamforge.classical.hybrid.digital import digital_beams
from beamforge.learned.hybrid import sweep
from beamforge.learned.hybrid.covariance_sweep import Statistics, candidates, first, priced, start, swept, tried
from beamforge.learned.hybrid.sweep import Codebook
from beamforge.learned.hybrid.virtual_channels import Virtual

N, M, C, RANK = 6, 3, 10, 2


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def posed(users=3, batch=4, rank=RANK, seed=0):
    """Covariances [B, K, N, N], codewords [B, N, C], levels and targets [K, B]."""
    H = random(batch, users, rank, N, seed=seed)
    R = torch.einsum("bksn,bksm->bknm", H.conj(), H)
    spread = torch.rand(5, users, batch, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 2))
    levels = Virtual(0.6 + 0.4 * spread[0], 0.02 * spread[1], 0.4 + 0.2 * spread[2], 0.02 * spread[3])
    return R, random(batch, N, C, seed=seed + 1), levels, 0.2 + 0.4 * spread[4]


def exact(R, A, levels, targets):
    D, G = A.mH @ A, A.mH.unsqueeze(1) @ R @ A.unsqueeze(1)
    return digital_beams(*Virtual(*(each.mT for each in levels)).matrices(G, D), D, targets.mT)


def taken(words, codewords):
    return torch.take_along_dim(words, codewords.unsqueeze(1), -1)


@pytest.mark.parametrize("users", [1, 2, 4])
def test_powers_at_the_start_are_those_of_the_digital_kernel(users):
    R, words, levels, targets = posed(users)
    known = Statistics.of(R, words)
    found, receivers = swept(known, levels, targets, M, 0)
    best = exact(R, taken(words, found.codewords), levels, targets)
    assert torch.equal(found.feasible, best.feasible) and found.feasible.any()
    torch.testing.assert_close(found.q.mT[found.feasible], best.q[found.feasible], rtol=1e-3, atol=0)
    assert receivers.shape == (len(R), N, users)


def test_candidates_are_behind_the_codewords_in_their_place():
    R, words, _levels, _targets = posed()
    known = Statistics.of(R, words)
    codewords = start(known, M)
    _, seen = first(known, codewords)
    found = candidates(known, codewords, 1, random(4, N, 3))
    b, c = 2, next(c for c in range(C) if c not in codewords[2])
    basis = torch.cat([found.U[b], found.added[b, :, c : c + 1]], -1)
    torch.testing.assert_close(basis.mH @ basis, torch.eye(M, dtype=basis.dtype))
    torch.testing.assert_close(found.behind.G[..., b * C + c].permute(2, 0, 1), basis.mH @ R[b] @ basis)
    assert seen.G.shape == (M, M, 3, 4)


def test_costs_are_upper_bounds_and_close_for_the_best():
    R, words, levels, targets = posed()
    known = Statistics.of(R, words)
    found, receivers = swept(known, levels, targets, M, 1)
    assert found.feasible.all()
    costs, _, _ = tried(candidates(known, found.codewords, 1, receivers), levels, targets, found.q)
    columns = []
    for c in range(C):
        other = found.codewords.clone()
        other[:, 1] = c
        columns.append(exact(R, taken(words, other), levels, targets).cost)
    plain = torch.stack(columns, -1)
    usable = torch.isfinite(costs)
    assert (costs[usable] >= plain[usable] * (1 - 1e-9)).all()
    assert (costs.amin(-1) <= 1.02 * plain.amin(-1)).all()


def test_power_never_rises():
    R, words, levels, targets = posed(batch=8)
    known, before = Statistics.of(R, words), torch.inf
    for selections in range(2 * M):
        found, _ = swept(known, levels, targets, M, selections)
        cost = exact(R, taken(words, found.codewords), levels, targets).cost
        assert (cost <= before * (1 + 1e-3)).all()
        before = cost


def test_covariances_of_rank_one_are_channels():
    R, words, levels, targets = posed(rank=1, batch=8)
    H = random(8, 3, 1, N).squeeze(2)
    torch.testing.assert_close(R, torch.einsum("bkn,bkm->bknm", H.conj(), H))
    found, _ = swept(Statistics.of(R, words), levels, targets, M, M)
    plain = sweep.swept(Codebook.of(H, words), levels, targets, M, M)
    ours, theirs = (exact(R, taken(words, each.codewords), levels, targets).cost for each in (found, plain))
    assert (ours / theirs).median() < 1.01 and (theirs / ours).median() < 1.01


def test_prices_of_candidates_have_the_derivatives_of_the_digital_kernel():
    R, words, levels, targets = posed(batch=2)
    known = Statistics.of(R, words)
    chosen, receivers = swept(known, levels, targets, M, 2 * M)
    given = Virtual(*(each.clone().requires_grad_() for each in levels))
    costs = priced(known, given, targets, chosen, receivers, 1)
    best = costs.argmin(-1)
    other = chosen.codewords.clone()
    other[:, 1] = best
    picked = Virtual(*(each.clone().requires_grad_() for each in levels))
    expected = exact(R, taken(words, other), picked, targets).cost
    found = costs.gather(-1, best.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    ours, theirs = torch.autograd.grad(found.sum(), given), torch.autograd.grad(expected.sum(), picked)
    for one, another in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, another, rtol=0.1, atol=1e-3)


def test_codewords_that_users_receive_least_are_left_out():
    R, _, _, _ = posed()
    words = random(4, N, 40, seed=9)
    known = Statistics.of(R, words)
    assert known.kept.shape == (4, 24)
    unit = words / words.norm(dim=-2, keepdim=True)
    total = R.diagonal(dim1=-2, dim2=-1).real.sum(-1, keepdim=True)
    share = (torch.einsum("bnc,bknm,bmc->bkc", unit.conj(), R, unit).real / total).amax(1)
    for b in range(4):
        kept = set(known.kept[b].tolist())
        left = [c for c in range(40) if c not in kept]
        assert share[b, list(kept)].min() >= share[b, left].max()
    torch.testing.assert_close(known.unit, torch.take_along_dim(unit, known.kept.unsqueeze(1), -1))
    assert torch.equal(known.original(torch.zeros(4, 1, dtype=torch.long))[:, 0], known.kept[:, 0])
