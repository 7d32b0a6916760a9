"""The checks: pairs of solutions that must agree, limits that must hold, and problems that must be refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from beamforge.checks.questions import BATCH, Question
from beamforge.core import batching
from beamforge.core.capability import Feature
from beamforge.core.constraints import Upper
from beamforge.core.errors import UnsupportedProblem
from beamforge.core.evaluate import evaluate
from beamforge.core.instance import Instance
from beamforge.core.network import Network, squared_magnitude
from beamforge.core.problem import Problem
from beamforge.core.reduction import selected
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.core.streams import NO_DATA, Streams
from beamforge.core.terms import Bound

TOLERANCE = 1e-4
"""Largest difference between equal solutions, as a share of a user's largest received power plus its noise."""


def batch_equals_loop(solver: Solver, question: Question, solution: Solution) -> None:
    """A batch of any leading dimensions gives the same beams as a Python loop over its instances."""
    shape = (2, BATCH // 2)
    folded = answer(solver, *batching.unflatten((question.problem, question.instance), shape))
    assert folded.W.shape == (*shape, *solution.W.shape[1:]), f"W has shape {tuple(folded.W.shape)}"
    assert_same(question.instance.truth, solution, batching.flatten(folded, 2))
    for i in range(BATCH):
        one = batching.tree_map(lambda leaf, i=i: leaf[i], (question.problem, question.instance))
        alone = answer(solver, *one)
        assert alone.W.ndim == 2, f"W of one instance has shape {tuple(alone.W.shape)}"
        assert_same(one[1].truth, batching.tree_map(lambda leaf, i=i: leaf[i], solution), alone)


def users_can_be_relabelled(solver: Solver, question: Question, solution: Solution) -> None:
    """Relabelling the users relabels the beams."""
    network = question.instance.truth
    order = torch.arange(network.users).roll(1)
    M = network.receive_antennas
    rows = (order.unsqueeze(-1) * M + torch.arange(M)).flatten()
    moved = network.transmitters == network.users
    moved = moved and bool((network.streams.transmitter == torch.arange(network.streams.count)).all())
    H, streams = network.H[..., rows, :], network.streams
    if moved:  # link k is transmitter k and user k
        H, columns = H[:, order], order
    elif streams.user is None:
        columns = torch.cat([order, torch.arange(network.users, streams.count)])
        streams = Streams(streams.transmitter[..., columns])
    else:  # the streams keep their order and carry the data of the relabelled users
        columns = torch.arange(streams.count)
        renamed = torch.where(streams.user < 0, NO_DATA, order.argsort()[streams.user.clamp_min(0)])
        streams = replace(streams, user=renamed)
    relabelled = Network(H, network.noise[..., order], streams, M)
    axes = {"users": order, **({"transmitters": order} if moved else {})}
    problem = Problem(
        selected(question.problem.maximise, axes), tuple(selected(limit, axes) for limit in question.problem.subject_to)
    )
    here = answer(solver, problem, Instance.perfect(relabelled))
    assert_same(relabelled, replace(solution, W=solution.W[..., columns]), here)


def units_do_not_matter(solver: Solver, question: Question, solution: Solution) -> None:
    """Scaling channels and noise together changes nothing."""
    network = question.instance.truth
    scaled = replace(network, H=network.H * 1e-6, noise=network.noise * 1e-12)
    assert_same(network, solution, answer(solver, question.problem, Instance.perfect(scaled)))


def phases_do_not_matter(solver: Solver, question: Question, solution: Solution) -> None:
    """Rotating the phase of a user's channel changes no received power."""
    network = question.instance.truth
    users = torch.arange(1, 1 + network.users, dtype=torch.float64).repeat_interleave(network.receive_antennas)
    turned = replace(network, H=network.H * torch.exp(1j * users**2).unsqueeze(-1))
    assert_same(turned, solution, answer(solver, question.problem, Instance.perfect(turned)))


def every_instance_is_answered(solver: Solver, question: Question, solution: Solution) -> None:
    """A feasible instance is solved, with a beam for every stream, in double and in single precision."""
    network = question.instance.truth
    expected = (BATCH, network.antennas, network.streams.count)
    for instance, found in ((question.instance, solution), in_single_precision(solver, question)[1:]):
        assert found.solved.all(), f"feasible instances end with status {found.status.tolist()}"
        assert found.W.shape == expected, f"W must be {expected} (B, N, D), got {tuple(found.W.shape)}"
        assert (found.W.dtype, found.W.device) == (instance.truth.H.dtype, instance.truth.H.device), (
            f"W is {found.W.dtype} on {found.W.device}"
        )


def limits_are_met(solver: Solver, question: Question, solution: Solution) -> None:
    """Every solved instance meets every constraint, in double and in single precision."""
    in_double = (question.problem, question.instance, solution)
    for problem, instance, found in (in_double, in_single_precision(solver, question)):
        report = evaluate(problem, instance, found.beams)
        broken = found.solved & ~report.feasible
        assert not broken.any(), f"instances {broken.nonzero().flatten().tolist()} break {dict(report.violation)}"


def all_limits_of_a_kind_are_met(solver: Solver, question: Question, solution: Solution) -> None:
    """With two upper limits of one kind, the stricter one is met too."""
    for limit in question.problem.subject_to:
        if isinstance(limit, Upper) and not any(hasattr(other, "target") for other in question.problem.subject_to):
            stricter = batching.tree_map(lambda leaf: leaf / 2, limit)
            problem = replace(question.problem, subject_to=(*question.problem.subject_to, stricter))
            found = answer(solver, problem, question.instance)
            report = evaluate(problem, question.instance, found.beams)
            assert report.feasible.all(), f"with a second {type(limit).__name__}: {dict(report.violation)}"


def the_truth_is_not_read(solver: Solver, question: Question, solution: Solution) -> None:
    """Beams depend on the observation only: true channels of NaN do not change them."""
    network = question.instance.truth
    poisoned = replace(network, H=torch.full_like(network.H, torch.nan))
    blind = Instance.estimated(poisoned, network, **question.instance.context)
    assert_same(network, solution, answer(solver, question.problem, blind))


def channels_matter(solver: Solver, question: Question, solution: Solution) -> None:
    """Different channels get different beams; not checked for single antennas, whose powers may be equal."""
    if question.instance.truth.antennas > 1:
        W = solution.W
        gap = (squared_magnitude(W) - squared_magnitude(W[:1])).abs().amax((-2, -1))[1:]
        assert (gap > 1e-9 * squared_magnitude(W).amax()).all(), "different channels get the same beams"


def unknown_terms_are_refused(solver: Solver, question: Question, solution: Solution) -> None:
    """An unknown utility or constraint is refused, even a subclass of a known one."""
    problem = question.problem
    problems = [replace(problem, maximise=unknown_subclass(problem.maximise))]
    for place, limit in enumerate(problem.subject_to):
        before, after = problem.subject_to[:place], problem.subject_to[place + 1 :]
        problems.append(replace(problem, subject_to=(*before, unknown_subclass(limit), *after)))
    for unknown in problems:
        assert not type(solver).supports(unknown, question.instance.truth), "supports() accepts an unknown subclass"
        assert refuses(solver, unknown, question.instance), "it solves a problem with an unknown subclass"


def unusual_streams_are_refused(solver: Solver, question: Question, solution: Solution) -> None:
    """A network with a feature that is not in the capabilities is refused, not solved without the feature."""
    network = question.instance.truth
    handled = {feature for capability in solver.capabilities for feature in capability.handles}
    transmitter = torch.cat([network.streams.transmitter, network.streams.transmitter[..., -1:]], -1)
    if network.streams.user is None and Feature.SENSING not in handled:
        extra = replace(network, streams=Streams(transmitter))
        assert refuses(solver, question.problem, Instance.perfect(extra)), "it ignores the sensing stream"
    if network.streams.user is None and Feature.SEVERAL_STREAMS not in handled:
        usual = torch.arange(network.users).expand(BATCH, -1)
        extra = replace(network, streams=Streams(transmitter, torch.cat([usual, usual[:, -1:]], -1)))
        assert refuses(solver, question.problem, Instance.perfect(extra)), "it ignores the second stream"


def same_generator_same_result(solver: Solver, question: Question, solution: Solution) -> None:
    """Equal seeds give equal beams, bit for bit, and the global random state stays as it was."""
    state = torch.random.get_rng_state()
    again = answer(solver, question.problem, question.instance)
    assert torch.equal(again.W, solution.W), "two runs with the same seed differ"
    assert torch.equal(state, torch.random.get_rng_state()), "the global random state changed"


def neighbours_are_independent(solver: Solver, question: Question, solution: Solution) -> None:
    """An instance of NaN does not affect the other instances of its batch."""
    network = question.instance.truth
    H = network.H.clone()
    H[0] = torch.nan
    here = answer(solver, question.problem, Instance.perfect(replace(network, H=H)))
    rest = slice(1, None)
    assert_same(batching.take(network, rest), batching.take(solution, rest), batching.take(here, rest))
    assert not here.solved[0], "the instance with NaN was not flagged"
    assert (here.W[0] == 0).all(), "the instance with NaN has beams"


def gradients_are_right(solver: Solver, question: Question, solution: Solution) -> None:
    """The derivative along a random direction of the channel agrees with finite differences, if there are gradients.

    Differences of an iterative solution have rounding errors at small steps and truncation errors at large ones; of
    several step sizes, the closest difference counts.
    """
    if not solver.differentiable:
        return
    network = question.instance.truth
    generator = torch.Generator().manual_seed(5)
    direction = torch.randn(network.H.shape, dtype=network.H.dtype, generator=generator)
    if network.antennas == 1:
        direction = direction.real * network.H  # stays a square root of a power gain
    rows, D = network.H.shape[-2], network.streams.count
    weight = torch.rand(BATCH, rows, D, dtype=torch.float64, generator=generator)

    def value(steps: Tensor) -> Tensor:
        """Weighted received powers [n, BATCH] after steps [n, BATCH] along the direction, found in one batch."""
        index = torch.arange(BATCH).repeat(len(steps))
        problem, at = batching.take((question.problem, network), index)
        moved = replace(at, H=at.H + steps.flatten()[:, None, None, None] * direction[index])
        W = answer(solver, problem, Instance.perfect(moved)).W
        return (squared_magnitude(at.apply(W)) * weight[index]).sum((-2, -1)).unflatten(0, steps.shape)

    zero = torch.zeros(1, BATCH, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(zero).sum(), zero)
    sizes = torch.tensor([1e-3, 1e-4, 1e-5], dtype=torch.float64).unsqueeze(-1).expand(-1, BATCH)
    moved = torch.cat([sizes, -sizes]).requires_grad_()  # an unrolled solver takes other steps without gradients
    above, below = value(moved).detach().chunk(2)
    expected = (above - below) / (2 * sizes)
    slope = slope.flatten()
    gap = ((slope - expected).abs() / expected.abs().clamp_min(1)).amin(0)
    worst = int(gap.argmax())
    assert gap[worst] <= 1e-2, f"derivative {slope[worst]:g}, by differences {expected[:, worst].tolist()}"


CHECKS: list[Callable[[Solver, Question, Solution], None]] = [
    every_instance_is_answered,
    limits_are_met,
    all_limits_of_a_kind_are_met,
    batch_equals_loop,
    users_can_be_relabelled,
    units_do_not_matter,
    phases_do_not_matter,
    the_truth_is_not_read,
    channels_matter,
    unknown_terms_are_refused,
    unusual_streams_are_refused,
    same_generator_same_result,
    neighbours_are_independent,
    gradients_are_right,
]
"""Every check, in order."""


# --- tools -----------------------------------------------------------------------------------------------------------
def answer(solver: Solver, problem: Problem, instance: Instance) -> Solution:
    """The solution with a new generator."""
    return solver.solve(problem, instance, generator=torch.Generator().manual_seed(0))


def in_single_precision(solver: Solver, question: Question) -> tuple[Problem, Instance, Solution]:
    """The problem and the instance in single precision, and their solution."""
    problem, instance = batching.tree_map(as_single, (question.problem, question.instance))
    return problem, instance, answer(solver, problem, instance)


def refuses(solver: Solver, problem: Problem, instance: Instance) -> bool:
    """Whether the method refuses a problem."""
    try:
        answer(solver, problem, instance)
    except UnsupportedProblem:
        return True
    return False


def assert_same(network: Network, one: Solution, other: Solution) -> None:
    """Assert equal statuses and, within `TOLERANCE`, equal received powers."""
    assert torch.equal(one.status, other.status), f"status {one.status.tolist()} against {other.status.tolist()}"
    if not (one.status != int(Status.NUMERICAL_FAILURE)).any():
        return
    a, b = (squared_magnitude(network.apply(solution.W)) for solution in (one, other))
    assert a.shape == b.shape, f"beams have shapes {tuple(one.W.shape)} and {tuple(other.W.shape)}"
    noise = network.noise.repeat_interleave(network.receive_antennas, -1)
    gap = ((a - b).abs().amax(-1) / (a.amax(-1) + noise)).amax()
    assert gap <= TOLERANCE, f"received powers differ by {gap:.1e} of the largest at a user"


def unknown_subclass(term: Bound) -> Bound:
    """The same utility or constraint as an instance of an unknown subclass."""
    kind: Any = dataclasses.dataclass(frozen=True)(type(f"Unknown{type(term).__name__}", (type(term),), {}))
    return kind(**{item.name: getattr(term, item.name) for item in dataclasses.fields(term)})


def as_single(leaf: Tensor) -> Tensor:
    """A tensor in single precision."""
    return leaf.to({torch.complex128: torch.complex64, torch.float64: torch.float32}.get(leaf.dtype, leaf.dtype))
