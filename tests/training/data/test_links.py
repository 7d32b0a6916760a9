"""Training data `Links`: distributions of weak and strong instances, and their shares."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from beamforge.core import batching
from beamforge.core.errors import ConfigError
from beamforge.core.network import own
from beamforge.training.data.links import Links
from beamforge.training.recipe import Recipe
from beamforge.training.stream import Stream


def batch(count=400, step=0, **fields):
    return Stream.training(Links(**fields), seed=1, batch=count, dtype=torch.complex128).batch_at(step)


def cross(instance):
    G = instance.truth.gains
    return G[:, ~torch.eye(G.shape[-1], dtype=torch.bool)]


def test_weak_instances_are_those_of_the_scenario():
    instance = batch(links=(4, 4), strong_share=0.0, weighted_share=0.0)
    direct = own(instance.truth.gains)
    assert stats.kstest(direct.flatten() - 1, "uniform").pvalue > 1e-3
    assert stats.kstest(cross(instance).flatten() * 40, "uniform").pvalue > 1e-3
    assert (instance.context["weights"] == 0.25).all() and (instance.context["p_max"] == 2).all()
    assert (instance.truth.noise == 0.05).all()


def test_strong_instances_have_one_coupling_each():
    instance = batch(links=(16, 16), strong_share=1.0, coupling=(0.2, 0.4))
    assert stats.kstest(own(instance.truth.gains).flatten(), "expon").pvalue > 1e-3
    coupling = cross(instance).mean(-1)
    assert stats.kstest(coupling, "uniform", (0.2, 0.2)).statistic < 0.1
    fixed = batch(links=(16, 16), strong_share=1.0, coupling=(1.0, 1.0))
    assert stats.kstest(cross(fixed).flatten(), "expon").pvalue > 1e-3


def test_shares_are_kept():
    instance = batch(2000, links=(8, 8), strong_share=0.3, weighted_share=0.2)
    strong = (cross(instance) > 0.1 / 8).any(-1)
    weighted = (instance.context["weights"] != 0.125).any(-1)
    assert stats.binomtest(int(strong.sum()), 2000, 0.3).pvalue > 1e-3
    assert stats.binomtest(int(weighted.sum()), 2000, 0.2).pvalue > 1e-3
    torch.testing.assert_close(instance.context["weights"].sum(-1), torch.ones(2000, dtype=torch.float64))
    first = instance.context["weights"][weighted, 0]
    assert stats.kstest(first, stats.beta(1, 7).cdf).pvalue > 1e-3  # a marginal of Dirichlet(1)


def test_sizes_change_from_batch_to_batch_within_their_range():
    sizes = [batch(1, step, links=(4, 64)).truth.users for step in range(300)]
    assert min(sizes) == 4 and max(sizes) > 58 and max(sizes) <= 64
    assert 100 < sum(size < 16 for size in sizes) < 200  # half of them: log-uniform


def test_some_rows_equal_those_of_the_whole_batch():
    stream = Stream.training(Links(), seed=2, batch=6)
    whole, part = stream.batch_at(3), stream.batch_at(3, slice(2, 4))
    for one, other in zip(batching.leaves(whole), batching.leaves(part), strict=True):
        assert torch.equal(one[2:4], other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("links", (0, 4)),
        ("links", (5, 4)),
        ("coupling", (-0.1, 1.0)),
        ("coupling", (0.5, 0.1)),
        ("coupling", (0.0, float("inf"))),
        ("strong_share", 1.5),
        ("weighted_share", -0.1),
    ],
)
def test_fields_out_of_range_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        Links(**{field: value})


def test_a_recipe_can_name_it():
    recipe = Recipe.parse('[model]\nname = "x"\n[data]\nsource = "links"\nlinks = 16\nstrong_share = 0\n')
    assert recipe.data == Links(links=(16, 16), strong_share=0.0)
    assert Recipe.parse(recipe.text()) == recipe
