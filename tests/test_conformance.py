"""Every registered method passes the conformance suite, and gives on every device what it gives on the CPU."""

import pytest
import torch

from beamforge.checks import check_solver, questions_for
from beamforge.checks.conformance import answer, same
from beamforge.core import batching
from beamforge.registry import METHODS

KINDS = sorted({kind for kinds in METHODS.values() for kind in kinds}, key=lambda kind: kind.__name__)
DEVICES = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_registered_method_conforms(kind):
    check_solver(kind())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_device_changes_nothing(kind, device):
    for question in questions_for(kind):
        problem, instance = batching.tree_map(lambda leaf: leaf.to(device), (question.problem, question.instance))
        there = answer(kind().to(device), problem, instance)
        assert there.W.device == instance.observation.network.H.device
        back = batching.tree_map(lambda leaf: leaf.cpu(), there)
        same(question.instance.observation.network, answer(kind(), question.problem, question.instance), back)
