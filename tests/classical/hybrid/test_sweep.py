"""Bounds and Newton steps on Gram matrices, and the cheapest of many candidates, against the digital kernel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamforge.classical.hybrid.digital import digital_beams
from beamforge.classical.hybrid.gram import newton_step
from beamforge.classical.hybrid.sweep import Race, RankOne, lower_bounds, sweep
from tests.oracles import channels

B, K, C = 6, 3, 20


def example(chains=4, seed=0):
    """Base Gram matrices of `chains` chains, candidates for one more, and targets."""
    seen = torch.from_numpy(channels(B, K, chains, seed=seed))
    added = torch.from_numpy(channels(B, K, C, seed=seed + 1))
    targets = torch.from_numpy(np.random.default_rng(seed + 2).uniform(0.5, 3, (B, K)))
    return seen, added, targets


def costs(seen, added, targets):
    """Least powers [B, C] by the digital kernel, infinite where infeasible."""
    h = torch.cat([seen.unsqueeze(1).expand(-1, C, -1, -1), added.permute(0, 2, 1).unsqueeze(-1)], -1).conj()
    G = h.unsqueeze(-1) * h.conj().unsqueeze(-2)
    return digital_beams(G, G, torch.eye(h.shape[-1]).to(G), targets.unsqueeze(1).expand(-1, C, -1)).cost


@pytest.mark.parametrize("chains", [1, 2, 4])
def test_the_cheapest_candidate(chains):
    """With fewer chains than users some candidates are infeasible."""
    seen, added, targets = example(chains)
    expected = costs(seen, added, targets)
    for q in (4 * targets, 0.01 * targets, 100 * targets):
        found = sweep(seen @ seen.mH, added, targets, q, torch.full((B,), torch.inf).double())
        known = torch.isfinite(expected).any(1)
        assert torch.equal(torch.isfinite(found.cost), known)
        assert torch.equal(found.candidate[known], expected.argmin(1)[known])
        np.testing.assert_allclose(found.cost[known], expected.amin(1)[known], rtol=1e-8)
    below = sweep(seen @ seen.mH, added, targets, found.q, 0.9 * found.cost)
    assert (below.cost[known] >= expected.amin(1)[known] * (1 - 1e-9)).all()


def test_bounds_contain_the_least_power():
    seen, added, targets = example()
    base, expected = seen @ seen.mH, costs(*example())
    for scale in (0.1, 1.0, 5.0):
        q = scale * torch.from_numpy(np.random.default_rng(1).uniform(0.5, 2, (B, K)))
        bound = lower_bounds(base, added, targets, q)
        assert (bound <= expected * (1 + 1e-9)).all()
        gram = RankOne(base, added)[torch.arange(B).repeat_interleave(C), torch.arange(C).repeat(B)]
        step = newton_step(gram, targets.repeat_interleave(C, 0), q.repeat_interleave(C, 0))
        np.testing.assert_allclose(step.lower.reshape(B, C), bound, rtol=1e-9)
        upper = torch.where(step.reached, step.q.sum(1), torch.inf).reshape(B, C)
        assert (upper >= expected * (1 - 1e-9)).all()
    assert (bound / expected).mean() > 0.5


def test_race_of_explicit_matrices():
    seen, added, targets = example(2)
    expected = costs(seen, added, targets)
    h = torch.cat([seen.unsqueeze(1).expand(-1, C, -1, -1), added.permute(0, 2, 1).unsqueeze(-1)], -1)
    gram = h @ h.mH
    rows = torch.arange(B * C)
    found = Race(gram, targets).run(rows, 4 * targets, torch.full((B,), torch.inf).double())
    assert torch.equal(found.candidate, expected.argmin(1))
    none = Race(gram, targets).run(rows[:0], 4 * targets, torch.ones(B).double())
    assert none.cost.isinf().all()


def test_candidates_of_nan_are_never_chosen():
    seen, added, targets = example()
    best = costs(seen, added, targets).argsort(1)
    added[torch.arange(B), :, best[:, 0]] = torch.nan
    found = sweep(seen @ seen.mH, added, targets, targets, torch.full((B,), torch.inf).double())
    assert torch.equal(found.candidate, best[:, 1])
    lost = sweep(seen @ seen.mH, added * torch.nan, targets, targets, torch.full((B,), torch.inf).double())
    assert lost.cost.isinf().all()
