"""The conformance suite: each kind of defect of a solver fails the check for it."""

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


class DefectiveRZF(RZF):
    """RZF with a `defect` in its beams."""

    def solve_batch(self, problem, observation, start, generator):
        solution = super().solve_batch(problem, observation, start, generator)
        return dataclasses.replace(solution, W=self.defect(solution.W, observation.network))


class MixesInstances(DefectiveRZF):
    def defect(self, W, network):
        return 0.5 * (W + W.mean(0, keepdim=True))


class HalvesTheFirstUser(DefectiveRZF):
    def defect(self, W, network):
        return torch.cat([W[..., :1] * 0.5, W[..., 1:]], -1)


class DependsOnUnits(DefectiveRZF):
    def defect(self, W, network):
        return W / (1 + network.noise.mean(-1))[:, None, None].sqrt() / 1.1


class DependsOnPhases(DefectiveRZF):
    def defect(self, W, network):
        return W * (1 - 0.1 * (network.H[:, 0, :, :1].mT.real > 0))


class Overspends(DefectiveRZF):
    def defect(self, W, network):
        return W * 1.01


class UsesTheGlobalGenerator(DefectiveRZF):
    def defect(self, W, network):
        return W * (1 - 0.5 * torch.rand(()))


class UsesAnUnseededGenerator(DefectiveRZF):
    def defect(self, W, network):
        return W * (1 - 0.5 * torch.rand((), generator=torch.Generator().manual_seed(torch.seed() % 1000)))


class ClearsOtherInstances(RZF):
    """If one instance of a batch fails, all instances lose their beams."""

    def solve(self, problem, instance, *, start=None, generator=None):
        solution = super().solve(problem, instance, start=start, generator=generator)
        if solution.status.ndim and not solution.solved.all():
            return dataclasses.replace(solution, W=torch.zeros_like(solution.W))
        return solution


class CutsGradients(DefectiveRZF):
    def defect(self, W, network):
        return W.detach() + 0 * W


class MarksAllInfeasible(RZF):
    """Reports every instance as infeasible."""

    def solve_batch(self, problem, observation, start, generator):
        solution = super().solve_batch(problem, observation, start, generator)
        return dataclasses.replace(solution, status=torch.full_like(solution.status, int(Status.INFEASIBLE)))


class DropsStreams(RZF):
    """Has sensing streams in its capabilities, and returns no beams for them."""

    capabilities = tuple(dataclasses.replace(each, handles=(Feature.SENSING,)) for each in RZF.capabilities)

    def solve_batch(self, problem, observation, start, generator):
        network = observation.network
        data = dataclasses.replace(network, streams=Streams(network.streams.transmitter[:, : network.users]))
        return super().solve_batch(problem, Observation(data), start, generator)


class IgnoresStreams(RZF):
    """Has no sensing streams in its capabilities, and ignores them."""

    @classmethod
    def supports(cls, problem, network):
        return super().supports(problem, dataclasses.replace(network, streams=without_sensing(network)))

    def solve_batch(self, problem, observation, start, generator):
        network = dataclasses.replace(observation.network, streams=without_sensing(observation.network))
        return super().solve_batch(problem, Observation(network), start, generator)


def without_sensing(network):
    return Streams(network.streams.transmitter[..., : network.users])


class ReadsTheTruth(RZF):
    """Uses the true channels instead of the observation."""

    def solve(self, problem, instance, *, start=None, generator=None):
        known = instance.truth if isinstance(instance, Instance) else instance
        return super().solve(problem, known, start=start, generator=generator)


class MatchesSubclasses(RZF):
    """Treats every subclass of a known utility as that utility."""

    @classmethod
    def supports(cls, problem, network):
        known = next(kind for kind in (SumRate, MinRate, MinSinr) if isinstance(problem.maximise, kind))
        return super().supports(dataclasses.replace(problem, maximise=known()), network)


class WrongForTheWeakestInABatch(DefectiveRZF):
    """In a batch, the user of the weakest channel gets half its power, a small error compared with strong users."""

    def defect(self, W, network):
        gain = network.H.abs().square().sum((1, 3))
        weakest = (gain == gain.min()) & (len(gain) > 1)
        return W * torch.where(weakest, 0.5**0.5, 1.0).unsqueeze(-2)


class TakesTheFirstLimit(RZF):
    """Of two limits of a kind, keeps only the first."""

    def solve(self, problem, instance, *, start=None, generator=None):
        first = {type(limit): limit for limit in reversed(problem.subject_to)}
        problem = dataclasses.replace(problem, subject_to=tuple(first.values()))
        return super().solve(problem, instance, start=start, generator=generator)


class IgnoresChannels(RZF):
    """Returns the same beams for all channels and users."""

    def solve_batch(self, problem, observation, start, generator):
        network = observation.network
        columns = torch.ones(*network.H.shape[:2], network.antennas, network.users, dtype=network.H.dtype)
        return Solution.closed_form(0.1 * columns[:, 0])


DEFECTS = [
    (MarksAllInfeasible, "every_instance_is_answered"),
    (DropsStreams, "every_instance_is_answered"),
    (Overspends, "limits_are_met"),
    (TakesTheFirstLimit, "all_limits_of_a_kind_are_met"),
    (MixesInstances, "batch_equals_loop"),
    (WrongForTheWeakestInABatch, "batch_equals_loop"),
    (HalvesTheFirstUser, "users_can_be_relabelled"),
    (DependsOnUnits, "units_do_not_matter"),
    (DependsOnPhases, "phases_do_not_matter"),
    (ReadsTheTruth, "the_truth_is_not_read"),
    (IgnoresChannels, "channels_matter"),
    (MatchesSubclasses, "unknown_terms_are_refused"),
    (IgnoresStreams, "unusual_streams_are_refused"),
    (UsesTheGlobalGenerator, "same_generator_same_result"),
    (UsesAnUnseededGenerator, "same_generator_same_result"),
    (ClearsOtherInstances, "neighbours_are_independent"),
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


def test_every_check_has_a_defect_that_fails_it():
    assert {check for _, check in DEFECTS} == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("name", METHODS)
def test_there_is_a_question_for_every_utility_of_a_method(name):
    """Each utility of its capabilities is among the questions of the checks."""
    for kind in METHODS[name]:
        asked = {type(question.problem.maximise) for question in questions_for(kind)}
        assert asked == {serves.utility for serves in kind.capabilities}
