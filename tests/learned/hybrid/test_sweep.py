"""Elimination, uplink powers, screening and the codeword sweep against NumPy and the digital kernel."""

from __future__ import annotations

import itertools

import pytest
import torch

from beamforge.classical.hybrid.digital import digital_beams
from beamforge.learned.hybrid.elimination import eliminated
from beamforge.learned.hybrid.screening import screened
from beamforge.learned.hybrid.sweep import (
    Chosen,
    Codebook,
    behind,
    others,
    priced,
    start,
    swept,
    tried,
)
from beamforge.learned.hybrid.uplink import Question, least_powers, links, powers, receivers
from beamforge.learned.hybrid.virtual_channels import Virtual

N, M, C = 6, 3, 10


def random(*shape, dtype=torch.complex128, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def posed(users=3, batch=4, seed=0):
    """Channels [B, K, N], codewords [B, N, C], levels and targets [K, B]."""
    H, words = random(batch, users, N, seed=seed), random(batch, N, C, seed=seed + 1)
    generator = torch.Generator().manual_seed(seed + 2)
    spread = torch.rand(5, users, batch, dtype=torch.float64, generator=generator)
    levels = Virtual(0.6 + 0.4 * spread[0], 0.02 * spread[1], 0.8 + 0.4 * spread[2], 0.05 * spread[3])
    return H, words, levels, 0.3 + 0.7 * spread[4]


def exact(H, A, levels, targets):
    """Costs [B] and q of the digital kernel behind A [B, N, M], with radiated power."""
    D, heard = A.mH @ A, A.mH @ H.mH
    G = torch.einsum("bmk,bnk->bkmn", heard, heard.conj())
    return digital_beams(*Virtual(*(each.mT for each in levels)).matrices(G, D), D, targets.mT)


def taken(words, codewords):
    return torch.take_along_dim(words, codewords.unsqueeze(1), -1)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_elimination_solves_many_equations(size):
    A, y = random(size, size, 50), random(size, 50, seed=1)
    A = torch.einsum("ijn,kjn->ikn", A, A.conj()) + torch.eye(size, dtype=A.dtype).unsqueeze(-1)
    expected = torch.linalg.solve(A.permute(2, 0, 1), y.mT.unsqueeze(-1)).squeeze(-1).mT
    found, pivots = eliminated(A, y)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(pivots.prod(0), torch.linalg.det(A.permute(2, 0, 1)))


@pytest.mark.parametrize("users", [1, 2, 3, 4])
def test_least_powers_are_those_of_the_digital_kernel(users):
    H, words, levels, targets = posed(users)
    codewords = torch.arange(M).expand(len(H), M)
    q, met = least_powers(Question(behind(Codebook.of(H, words), codewords), levels, targets))
    best = exact(H, taken(words, codewords), levels, targets)
    assert torch.equal(met, best.feasible) and met.any()
    torch.testing.assert_close(q.mT[met], best.q[met], rtol=1e-6, atol=0)


def test_targets_that_cannot_be_met_are_found_out():
    H, words, levels, targets = posed(4)
    targets[:, 0] = 1e3
    codewords = torch.arange(2).expand(len(H), 2)  # two RF chains, four users
    _, met = least_powers(Question(behind(Codebook.of(H, words), codewords), levels, targets))
    assert not met[0] and torch.equal(met, exact(H, taken(words, codewords), levels, targets).feasible)


def test_screening_gives_the_links_of_every_candidate():
    H, words, levels, targets = posed()
    book = Codebook.of(H, words)
    codewords = start(book, M)
    found = others(book, codewords, 1)
    q = 0.1 + torch.rand(3, len(H), dtype=torch.float64)
    fast = screened(Question(found.gram, levels, targets), found.added, q)
    for c in range(C):
        gram = found.among(torch.full((len(H), 1), c))
        plain = links(Question(gram, levels, targets), receivers(Question(gram, levels, targets), q))
        torch.testing.assert_close(fast.own[:, c::C], plain.own)
        torch.testing.assert_close(fast.crossed[:, :, c::C], plain.crossed)


def test_costs_of_candidates_are_upper_bounds_and_exact_for_the_best():
    H, words, levels, targets = posed()
    book = Codebook.of(H, words)
    codewords = start(book, M)
    q, met = least_powers(Question(behind(book, codewords), levels, targets))
    assert met.all()
    costs, _ = tried(others(book, codewords, 0), levels, targets, q)
    plain = []
    for c in range(C):
        tried_words = torch.cat([torch.full((len(H), 1), c), codewords[:, 1:]], -1)
        plain.append(exact(H, taken(words, tried_words), levels, targets).cost)
    plain = torch.stack(plain, -1)
    usable = torch.isfinite(costs)
    assert (costs[usable] >= plain[usable] * (1 - 1e-9)).all()
    assert (costs.amin(-1) <= plain.amin(-1) * 1.001).all()
    assert all(torch.isinf(costs[b, codewords[b, 1:]]).all() for b in range(len(H))), (
        "codewords that are chosen already"
    )


def test_power_never_rises_and_ends_below_the_start():
    H, words, levels, targets = posed(batch=8)
    book, before = Codebook.of(H, words), None
    for selections in range(2 * M + 1):
        found = swept(book, levels, targets, M, selections)
        cost = exact(H, taken(words, found.codewords), levels, targets).cost
        if before is not None:
            assert (cost <= before * (1 + 1e-9)).all()
        before = cost
    all_words = [torch.tensor(words_).expand(len(H), M) for words_ in itertools.combinations(range(C), M)]
    best = torch.stack([exact(H, taken(words, each), levels, targets).cost for each in all_words]).amin(0)
    assert (before >= best * (1 - 1e-9)).all() and (before / best).median() < 1.1


def test_zero_and_repeated_codewords_are_not_chosen():
    H, words, levels, targets = posed()
    words = torch.cat([torch.zeros_like(words[..., :1]), words[..., :4], 2 * words[..., :4]], -1)
    found = swept(Codebook.of(H, words), levels, targets, M, 5)
    A = taken(words, found.codewords)
    assert (torch.linalg.matrix_rank(A) == M).all() and found.feasible.all()


def test_the_start_has_the_strongest_independent_codewords():
    H, words, _, _ = posed(batch=1)
    words[..., 3] = words[..., 2] + 1e-9
    book = Codebook.of(H, words)
    unit = words / words.norm(dim=-2, keepdim=True)
    gain = (H @ unit).abs().square()[0]
    order = (gain / H[0].abs().square().sum(-1, keepdim=True)).sum(0).argsort(descending=True).tolist()
    expected = [c for c in order if c not in (2, 3) or c == next(w for w in order if w in (2, 3))][:M]
    assert start(book, M)[0].tolist() == expected


def test_prices_of_candidates_have_the_derivatives_of_the_digital_kernel():
    H, words, levels, targets = posed(batch=2)
    book = Codebook.of(H, words)
    chosen = swept(book, levels, targets, M, 2)
    given = Virtual(*(each.clone().requires_grad_() for each in levels))
    costs = priced(book, given, targets, chosen, 2)
    best = costs.argmin(-1)
    picked = Virtual(*(each.clone().requires_grad_() for each in levels))
    codewords = torch.cat([chosen.codewords[:, :2], best.unsqueeze(-1)], -1)
    expected = exact(H, taken(words, codewords), picked, targets).cost
    found = costs.gather(-1, best.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    ours, theirs = torch.autograd.grad(found.sum(), given), torch.autograd.grad(expected.sum(), picked)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_users_without_a_channel_spoil_no_other_instance():
    H, words, levels, targets = posed()
    alone = swept(Codebook.of(H, words), levels, targets, M, 4)
    H[1, 0] = 0
    levels = levels._replace(wanted_floor=torch.zeros_like(levels.wanted_floor))
    kept = swept(Codebook.of(H, words), levels, targets, M, 4)
    assert isinstance(alone, Chosen) and not kept.feasible[1] and kept.feasible[[0, 2, 3]].all()


def test_links_without_signal_meet_no_target():
    _H, _words, levels, targets = posed()
    asked = Question(torch.zeros(3, 3, 4, dtype=torch.complex128), levels._replace(wanted_floor=0 * targets), targets)
    _, met = powers(links(asked, receivers(asked, torch.ones_like(targets))))
    assert not met.any()
