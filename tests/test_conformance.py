"""Every registered method passes the conformance suite and gives the same beams on every device."""

import pytest
import torch

from beamforge.checks import check_solver, questions_for
from beamforge.checks.conformance import answer, as_single, assert_same
from beamforge.core import batching
from beamforge.registry import METHODS

KINDS = sorted({kind for kinds in METHODS.values() for kind in kinds}, key=lambda kind: kind.__name__)
CUDA = [f"cuda:{index}" for index in range(torch.cuda.device_count())]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_registered_method_conforms(kind):
    check_solver(kind())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_default_device_and_precision_do_not_matter(kind):
    """With "meta" as default device and another default precision, the solution is the same."""
    for question in questions_for(kind):
        solver = kind()
        expected = answer(solver, question.problem, question.instance)
        single = batching.tree_map(as_single, (question.problem, question.instance))
        torch.set_default_dtype(torch.float64)
        try:
            with torch.device("meta"):
                found = solver.solve(question.problem, question.instance)
            precision = solver.solve(*single).W.dtype
        finally:
            torch.set_default_dtype(torch.float32)
        assert_same(question.instance.truth, expected, found)
        assert precision == torch.complex64


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_solutions_on_a_device_are_those_of_the_cpu(kind, device):
    for question in questions_for(kind):
        problem, instance = batching.tree_map(lambda leaf: leaf.to(device), (question.problem, question.instance))
        there = answer(kind().to(device), problem, instance)
        assert there.W.device == instance.observation.network.H.device
        back = batching.tree_map(lambda leaf: leaf.cpu(), there)
        assert_same(question.instance.observation.network, answer(kind(), question.problem, question.instance), back)
