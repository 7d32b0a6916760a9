"""The barrier and its continuation against finite differences."""

from __future__ import annotations

import pytest
import torch

from beamforge.learned.isac.barrier import barrier


@pytest.mark.parametrize("edge", [0.01, 0.1, 0.5])
def test_derivatives_are_those_of_finite_differences_on_both_sides_of_the_edge(edge):
    margin = torch.cat([torch.linspace(-1, 3 * edge, 101), torch.linspace(3 * edge, 20, 50)]).double()
    margin = margin[(margin - edge).abs() > 1e-5]
    step = 1e-6 * edge
    found, above, below = (barrier(margin + move, edge) for move in (0, step, -step))
    torch.testing.assert_close(found.slope, (above.value - below.value) / (2 * step), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.curvature, (below.slope - above.slope) / (2 * step), rtol=1e-5, atol=1e-5)


def test_it_is_the_logarithm_above_the_edge_and_continuous_at_it():
    margin = torch.tensor([0.1, 0.3, 4.0], dtype=torch.float64)
    found = barrier(margin, 0.1)
    torch.testing.assert_close(found.value, margin.log())
    torch.testing.assert_close(found.slope, 1 / margin)
    torch.testing.assert_close(found.curvature, margin**-2)
    near = [torch.cat(barrier(torch.tensor([0.1 + move], dtype=torch.float64), 0.1)) for move in (1e-9, -1e-9)]
    torch.testing.assert_close(*near, rtol=1e-6, atol=1e-6)


def test_it_is_finite_increasing_and_concave_down_to_no_power_at_all():
    found = barrier(torch.linspace(-1, 5, 601, dtype=torch.float64))
    assert all(each.isfinite().all() for each in found)
    assert (found.value.diff() > 0).all() and (found.slope.diff() <= 0).all() and (found.curvature > 0).all()
