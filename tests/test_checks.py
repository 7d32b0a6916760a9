"""The conformance suite itself: a solver broken in one way is caught by the check that is there for it."""

import dataclasses

import pytest
import torch

from beamforge.checks import CHECKS, check_solver, questions_for
from beamforge.classical.linear import RZF
from beamforge.registry import METHODS


class Broken(RZF):
    """RZF with one defect, put in by `spoil`."""

    def solve_batch(self, problem, instance, start, generator):
        solution = super().solve_batch(problem, instance, start, generator)
        return dataclasses.replace(solution, W=self.spoil(solution.W, instance.observation.network))


class Averages(Broken):
    def spoil(self, W, network):
        return 0.5 * (W + W.mean(0, keepdim=True))


class FavoursTheFirst(Broken):
    def spoil(self, W, network):
        return torch.cat([W[..., :1] * 0.5, W[..., 1:]], -1)


class ForgetsUnits(Broken):
    def spoil(self, W, network):
        return W / (1 + network.noise.mean(-1))[:, None, None].sqrt() / 1.1


class SeesPhases(Broken):
    def spoil(self, W, network):
        return W * (1 - 0.1 * (network.H[:, 0, :, :1].mT.real > 0))


class Overspends(Broken):
    def spoil(self, W, network):
        return W * 1.01


class RollsGlobalDice(Broken):
    def spoil(self, W, network):
        return W * (1 - 0.5 * torch.rand(()))


class RollsAnUnseededDie(Broken):
    def spoil(self, W, network):
        return W * (1 - 0.5 * torch.rand((), generator=torch.Generator().manual_seed(torch.seed() % 1000)))


class SpoilsNeighbours(RZF):
    """Hands a failure on: whoever stands beside a flagged instance loses its beams."""

    def solve(self, problem, instance, *, start=None, generator=None):
        solution = super().solve(problem, instance, start=start, generator=generator)
        if solution.status.ndim and not solution.solved.all():
            return dataclasses.replace(solution, W=torch.zeros_like(solution.W))
        return solution


class CutsGradients(Broken):
    def spoil(self, W, network):
        return W.detach() + 0 * W


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Averages, "batch_equals_loop"),
        (FavoursTheFirst, "users_can_be_relabelled"),
        (ForgetsUnits, "units_do_not_matter"),
        (SeesPhases, "phases_do_not_matter"),
        (Overspends, "limits_are_met"),
        (RollsGlobalDice, "same_generator_same_result"),
        (RollsAnUnseededDie, "same_generator_same_result"),
        (SpoilsNeighbours, "neighbours_are_independent"),
        (CutsGradients, "gradients_are_right"),
    ],
)
def test_a_defect_is_caught_by_its_check(kind, check):
    question = questions_for(kind)[0]
    found = next(c for c in CHECKS if c.__name__ == check)
    with pytest.raises(AssertionError):
        found(kind(), question)
    with pytest.raises(AssertionError, match=kind.__name__):
        check_solver(kind(), [question])


def test_every_check_has_a_defect_that_proves_it():
    proven = {mark.args[1][i][1] for mark in test_a_defect_is_caught_by_its_check.pytestmark for i in range(9)}
    assert proven == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("name", METHODS)
def test_every_kind_of_question_a_method_claims_can_be_asked(name):
    """Each utility it says it serves is among the questions the checks would ask it."""
    for kind in METHODS[name]:
        asked = {type(question.problem.maximise) for question in questions_for(kind)}
        assert asked == {serves.utility for serves in kind.capabilities}
