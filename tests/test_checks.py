"""The conformance suite itself: a solver broken in one way is caught by the check that is there for it."""

import dataclasses

import pytest
import torch

from beamforge.checks import CHECKS, check_solver, questions_for
from beamforge.classical.linear import RZF
from beamforge.core.capability import Feature
from beamforge.core.instance import Instance
from beamforge.core.observation import Observation
from beamforge.core.solution import Solution, Status
from beamforge.core.streams import Streams
from beamforge.core.utilities import MinRate, MinSinr, SumRate
from beamforge.registry import METHODS


class Broken(RZF):
    """RZF with one defect, put in by `spoil`."""

    def solve_batch(self, problem, observation, start, generator):
        solution = super().solve_batch(problem, observation, start, generator)
        return dataclasses.replace(solution, W=self.spoil(solution.W, observation.network))


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


class MarksAllInfeasible(RZF):
    """No answer is never a wrong one."""

    def solve_batch(self, problem, observation, start, generator):
        solution = super().solve_batch(problem, observation, start, generator)
        return dataclasses.replace(solution, status=torch.full_like(solution.status, int(Status.INFEASIBLE)))


class DropsStreams(RZF):
    """Says that it can handle sensing streams, and answers without them."""

    capabilities = tuple(dataclasses.replace(each, handles=(Feature.SENSING,)) for each in RZF.capabilities)

    def solve_batch(self, problem, observation, start, generator):
        network = observation.network
        data = dataclasses.replace(network, streams=Streams(network.streams.transmitter[:, : network.users]))
        return super().solve_batch(problem, Observation(data), start, generator)


class IgnoresStreams(RZF):
    """Says nothing of sensing streams, and answers as if they were not there."""

    @classmethod
    def supports(cls, problem, network):
        return super().supports(problem, dataclasses.replace(network, streams=usual(network)))

    def solve_batch(self, problem, observation, start, generator):
        network = dataclasses.replace(observation.network, streams=usual(observation.network))
        return super().solve_batch(problem, Observation(network), start, generator)


def usual(network):
    return Streams(network.streams.transmitter[..., : network.users])


class ReadsTheTruth(RZF):
    """Goes round the door, to the channels that it should not know."""

    def solve(self, problem, instance, *, start=None, generator=None):
        known = instance.truth if isinstance(instance, Instance) else instance
        return super().solve(problem, known, start=start, generator=generator)


class MatchesSubclasses(RZF):
    """Takes every utility that looks like one that it knows for that one."""

    @classmethod
    def supports(cls, problem, network):
        known = next(kind for kind in (SumRate, MinRate, MinSinr) if isinstance(problem.maximise, kind))
        return super().supports(dataclasses.replace(problem, maximise=known()), network)


class WrongForTheWeakestInABatch(Broken):
    """In a batch, the user of the weakest channel of all gets half its power: a trifle beside the strong ones."""

    def spoil(self, W, network):
        gain = network.H.abs().square().sum((1, 3))
        weakest = (gain == gain.min()) & (len(gain) > 1)
        return W * torch.where(weakest, 0.5**0.5, 1.0).unsqueeze(-2)


class TakesTheFirstLimit(RZF):
    """Of two limits of a kind, keeps the one that comes first."""

    def solve(self, problem, instance, *, start=None, generator=None):
        first = {type(limit): limit for limit in reversed(problem.subject_to)}
        problem = dataclasses.replace(problem, subject_to=tuple(first.values()))
        return super().solve(problem, instance, start=start, generator=generator)


class AlwaysTheSame(RZF):
    """One answer for all channels: the same beams for all users."""

    def solve_batch(self, problem, observation, start, generator):
        network = observation.network
        columns = torch.ones(*network.H.shape[:2], network.antennas, network.users, dtype=network.H.dtype)
        return Solution.closed_form(0.1 * columns[:, 0])


DEFECTS = [
    (MarksAllInfeasible, "every_instance_is_answered"),
    (DropsStreams, "every_instance_is_answered"),
    (Overspends, "limits_are_met"),
    (TakesTheFirstLimit, "all_limits_of_a_kind_are_met"),
    (Averages, "batch_equals_loop"),
    (WrongForTheWeakestInABatch, "batch_equals_loop"),
    (FavoursTheFirst, "users_can_be_relabelled"),
    (ForgetsUnits, "units_do_not_matter"),
    (SeesPhases, "phases_do_not_matter"),
    (ReadsTheTruth, "the_truth_is_not_read"),
    (AlwaysTheSame, "channels_matter"),
    (MatchesSubclasses, "unknown_terms_are_refused"),
    (IgnoresStreams, "unusual_streams_are_refused"),
    (RollsGlobalDice, "same_generator_same_result"),
    (RollsAnUnseededDie, "same_generator_same_result"),
    (SpoilsNeighbours, "neighbours_are_independent"),
    (CutsGradients, "gradients_are_right"),
]


@pytest.mark.parametrize(("kind", "check"), DEFECTS)
def test_a_defect_is_caught_by_its_check(kind, check):
    asked = questions_for(kind)
    found = next(c for c in CHECKS if c.__name__ == check)
    failed = []
    for question in asked:
        try:
            found(kind(), question)
        except AssertionError:
            failed.append(question)
    assert failed
    with pytest.raises(AssertionError, match=kind.__name__):
        check_solver(kind(), failed[:1])


def test_every_check_has_a_defect_that_proves_it():
    assert {check for _, check in DEFECTS} == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("name", METHODS)
def test_every_kind_of_question_a_method_claims_can_be_asked(name):
    """Each utility it says it serves is among the questions the checks would ask it."""
    for kind in METHODS[name]:
        asked = {type(question.problem.maximise) for question in questions_for(kind)}
        assert asked == {serves.utility for serves in kind.capabilities}
