"""Groups of links that are alike: optima known by hand, whatever the order of the links, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from links import solve, strong

from beamforge.classical.links.branch_and_bound import LinkBranchAndBound
from beamforge.classical.links.many_starts import ManyStarts
from beamforge.classical.links.mm_admm import MMADMM
from beamforge.classical.links.quasi_inverse import QuasiInverse
from beamforge.classical.links.sca import SuccessiveGP
from beamforge.classical.links.starts import handed_out, patterns, spread
from beamforge.classical.links.wmmse import LinkWMMSE, SharedPower
from beamforge.classical.sum_rate.fastfp import FastFP

METHODS = [LinkWMMSE, MMADMM, SuccessiveGP, QuasiInverse, FastFP, ManyStarts]
each_method = pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)

NOISE = 0.01


def groups(sizes, inner=1.0, between=0.0):
    """Gains [1, L, L], own gains one: `inner` to links of the same group, `between` to others."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    G = np.where(group[:, None] == group, inner, between)
    return np.where(np.eye(len(G), dtype=bool), 1.0, G)[None]


def rate(G, p):
    """Sum rate in bit/s/Hz, link by link."""
    L = len(p)
    heard = [sum(G[k, j] * p[j] for j in range(L) if j != k) + NOISE for k in range(L)]
    return sum(np.log2(1 + G[k, k] * p[k] / heard[k]) for k in range(L))


@each_method
@pytest.mark.parametrize(
    ("sizes", "inner", "between"),
    [
        ((3, 3), 1.0, 0.0),
        ((3, 3), 1.0, 0.01),
        ((3, 3), 0.5, 0.01),
        ((2, 2, 2, 2), 1.0, 0.01),
        ((4, 3, 2), 1.0, 0.02),
        ((5,), 1.0, 0.0),
    ],
)
def test_one_link_of_each_group_sends(kind, sizes, inner, between):
    """n groups then are n links with a power of 1/n each: ``n log2(1 + (1/n) / (between (n - 1)/n + noise))``."""
    G, n = groups(sizes, inner, between), len(sizes)
    _, p = solve(kind, G, NOISE, 1.0)
    by_hand = n * np.log2(1 + (1 / n) / (between * (n - 1) / n + NOISE))
    assert rate(G[0], p[0]) == pytest.approx(by_hand, rel=1e-5)
    assert rate(G[0], p[0]) > 1.2 * rate(G[0], np.full(len(p[0]), 1 / len(p[0])))
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    np.testing.assert_allclose(np.add.reduceat(p[0], first), 1 / n, atol=1e-3)


@pytest.mark.parametrize("kind", [LinkWMMSE, LinkBranchAndBound], ids=["wmmse", "global"])
def test_where_groups_disturb_each_other_one_link_sends(kind):
    G = groups((3, 3), 1.0, 0.1)
    _, p = solve(kind, G, NOISE, 1.0)
    alone, two = np.log2(101), 2 * np.log2(1 + 0.5 / (0.05 + NOISE))
    assert alone > two
    assert rate(G[0], p[0]) == pytest.approx(alone, rel=1e-6)


@each_method
def test_links_alike_that_hardly_disturb_each_other_send_together(kind):
    G = groups((3, 3), 0.02, 0.01)
    _, p = solve(kind, G, NOISE, 1.0)
    np.testing.assert_allclose(p[0], 1 / 6, atol=1e-3)


@each_method
def test_the_order_of_the_links_and_small_differences_do_not_matter(kind):
    generator = np.random.default_rng(0)
    G = groups((3, 2, 2), 1.0, 0.01)[0]
    order = generator.permutation(7)
    near = [G * (1 + size * generator.standard_normal(G.shape)) for size in (1e-9, 1e-6, 1e-4)]
    _, p = solve(kind, np.stack([G, G[order][:, order], *near]), NOISE, 1.0)
    by_hand = 3 * np.log2(1 + (1 / 3) / (0.02 / 3 + NOISE))
    np.testing.assert_allclose([rate(G[order][:, order] if b == 1 else G, p[b]) for b in range(5)], by_hand, rtol=2e-3)


def test_starts_change_only_in_instances_with_links_alike():
    G, weights = strong(3, 6, seed=7)
    G, weights = np.concatenate([G, groups((3, 3))]), np.concatenate([weights, np.ones((1, 6))])
    G, weights = torch.as_tensor(G) / NOISE, torch.as_tensor(weights)
    own = G.diagonal(dim1=-2, dim2=-1)
    data = SharedPower(G - torch.diag_embed(own), own, weights, torch.ones(4, dtype=torch.float64))
    plain, apart = handed_out(data, patterns(data, 12, None)), spread(data, 12)
    assert torch.equal(apart[:3], plain[:3])
    torch.testing.assert_close(apart.sum(-1), torch.ones(4, 12, dtype=torch.float64))
    for start in apart[3]:
        assert len(start[:3].unique()) > 1 and len(start[3:].unique()) > 1
        assert start[:3].max() >= 2 * start[:3].median() and start[3:].max() >= 2 * start[3:].median()
