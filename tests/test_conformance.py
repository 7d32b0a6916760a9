"""Every registered method passes the conformance suite, and gives on every device what it gives on the CPU."""

import pytest
import torch

from beamforge.checks import check_solver, questions_for
from beamforge.checks.conformance import answer, as_single, same
from beamforge.core import batching
from beamforge.registry import METHODS

KINDS = sorted({kind for kinds in METHODS.values() for kind in kinds}, key=lambda kind: kind.__name__)
CUDA = [f"cuda:{index}" for index in range(torch.cuda.device_count())]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_registered_method_conforms(kind):
    check_solver(kind())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_nothing_is_made_on_a_default_device_or_of_a_default_precision(kind):
    """With a default device that holds no numbers and another default precision, the answer is the same."""
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
        same(question.instance.truth, expected, found)
        assert precision == torch.complex64


@pytest.mark.parametrize("device", CUDA)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_device_changes_nothing(kind, device):
    for question in questions_for(kind):
        problem, instance = batching.tree_map(lambda leaf: leaf.to(device), (question.problem, question.instance))
        there = answer(kind().to(device), problem, instance)
        assert there.W.device == instance.observation.network.H.device
        back = batching.tree_map(lambda leaf: leaf.cpu(), there)
        same(question.instance.observation.network, answer(kind(), question.problem, question.instance), back)
