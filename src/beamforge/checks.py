"""What any method must satisfy, ours or a user's: `check_solver` is the public conformance suite.

Each check poses small random questions of the kinds a method says it serves and compares two answers that must agree.
Answers are compared by the powers ``|h_k^H w_d|^2`` that users receive, since a beam's phase is free.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from beamforge.core import batching
from beamforge.core.capability import Form
from beamforge.core.constraints import (
    Constraint,
    EqualPower,
    JainAtLeast,
    MeanJainAtLeast,
    PerAntennaPower,
    PerTransmitterPower,
    SinrAtLeast,
    TotalPower,
)
from beamforge.core.evaluate import evaluate
from beamforge.core.instance import Instance
from beamforge.core.network import Network, squared_magnitude
from beamforge.core.problem import Problem
from beamforge.core.solution import Solution, Status
from beamforge.core.solver import Solver
from beamforge.core.streams import Streams
from beamforge.core.terms import Bound

BATCH = 4


class Question(NamedTuple):
    """A small problem on a batch of small instances."""

    name: str
    problem: Problem
    instance: Instance


def check_solver(solver: Solver, questions: list[Question] | None = None) -> None:
    """Run every check on a solver; `AssertionError` names the check and the question that it fails.

    questions  what to ask; left out, one for each kind of question in `solver.capabilities`.

    A method that takes something from a batch as a whole is checked as it is once `tuned` to the question.

    >>> from beamforge.classical.linear import RZF
    >>> check_solver(RZF())
    """
    questions = questions_for(type(solver)) if questions is None else questions
    assert questions, f"{type(solver).__name__} serves no question"
    for question in questions:
        tuned = solver.fitted(question.problem, question.instance)
        for check in CHECKS:
            try:
                check(tuned, question)
            except AssertionError as failure:
                message = f"{type(solver).__name__} fails {check.__name__} on {question.name}: {failure}"
                raise AssertionError(message) from failure


def questions_for(kind: type[Solver], seed: int = 0) -> list[Question]:
    """A question for each utility, form and power limit that a method says it serves."""
    found: dict[str, Question] = {}
    for serves in kind.capabilities:
        for form in serves.forms:
            network = example_network(form, torch.Generator().manual_seed(seed), *kind.tried_on)
            for extra in (None, *serves.allows):
                limits = serves.needs if extra is None else (*serves.needs, extra)
                problem = Problem(serves.utility(), tuple(example_limit(limit, network) for limit in limits))
                if kind.supports(problem, network):
                    name = f"{serves.utility.__name__} with {[limit.__name__ for limit in limits]} on {form.value}"
                    found[name] = Question(name, problem.bind(network), Instance.perfect(network))
    return list(found.values())


def example_network(form: Form, generator: torch.Generator, users: int = 3, antennas: int = 4) -> Network:
    """A batch of small networks with unequal noise; power control has weak interference, so that targets can be met."""
    noise = torch.rand(BATCH, users, dtype=torch.float64, generator=generator) * 0.1 + 0.05
    if form is Form.POWER_CONTROL:
        G = torch.rand(BATCH, users, users, dtype=torch.float64, generator=generator)
        return Network.power_control(0.1 * G + torch.diag_embed(0.5 + G.diagonal(dim1=-2, dim2=-1)), noise)
    T = 1 if form is Form.BROADCAST else 2
    H = torch.randn(BATCH, T, users, antennas, dtype=torch.complex128, generator=generator)
    return Network.multicell(H, noise, torch.arange(users) % T)


def example_limit(kind: type[Constraint], network: Network) -> Constraint:
    """A limit of that kind that the example networks can meet."""
    if kind is PerAntennaPower:
        return PerAntennaPower(2.0 / network.antennas)
    powers: tuple[Constraint, ...] = (TotalPower(4.0), PerTransmitterPower(2.0), EqualPower(4.0))
    examples = (*powers, SinrAtLeast(0.8), JainAtLeast(0.935), MeanJainAtLeast(0.97))
    return next(example for example in examples if type(example) is kind)


# --- the checks ------------------------------------------------------------------------------------------------------
def batch_equals_loop(solver: Solver, question: Question) -> None:
    """Any leading dimensions give what a Python loop over single instances gives."""
    together = answer(solver, question.problem, question.instance)
    shape = (2, BATCH // 2)
    folded = answer(solver, *batching.unflatten((question.problem, question.instance), shape))
    assert folded.W.shape == (*shape, *together.W.shape[1:]), f"W has shape {tuple(folded.W.shape)}"
    same(question.instance.observation.network, together, batching.flatten(folded, 2))
    for i in range(BATCH):
        one = batching.tree_map(lambda leaf, i=i: leaf[i], (question.problem, question.instance))
        alone = answer(solver, *one)
        assert alone.W.ndim == 2, f"W of one instance has shape {tuple(alone.W.shape)}"
        same(one[1].observation.network, batching.tree_map(lambda leaf, i=i: leaf[i], together), alone)


def users_can_be_relabelled(solver: Solver, question: Question) -> None:
    """Relabelling the users relabels the beams."""
    network = question.instance.observation.network
    users = torch.arange(network.users)
    order = users.roll(1)
    moved = network.transmitters == network.users and bool((network.streams.transmitter == users).all())
    H = network.H[..., order, :]
    streams = Streams(network.streams.transmitter[..., order])
    if moved:
        H, streams = H[:, order], network.streams
    relabelled = Network(H, network.noise[..., order], streams)
    axes = {"users": order, **({"transmitters": order} if moved else {})}
    problem = Problem(
        relabel(question.problem.maximise, axes), tuple(relabel(limit, axes) for limit in question.problem.subject_to)
    )
    there = answer(solver, question.problem, question.instance)
    here = answer(solver, problem, Instance.perfect(relabelled))
    same(relabelled, dataclasses.replace(there, W=there.W[..., order]), here)


def units_do_not_matter(solver: Solver, question: Question) -> None:
    """Scaling channels and noise together changes nothing."""
    network = question.instance.observation.network
    scaled = Network(network.H * 1e-6, network.noise * 1e-12, network.streams)
    there = answer(solver, question.problem, question.instance)
    same(network, there, answer(solver, question.problem, Instance.perfect(scaled)))


def phases_do_not_matter(solver: Solver, question: Question) -> None:
    """Turning the phase of a user's channel changes no power."""
    network = question.instance.observation.network
    turn = torch.exp(1j * torch.arange(1, 1 + network.users, dtype=torch.float64) ** 2).unsqueeze(-1)
    turned = Network(network.H * turn, network.noise, network.streams)
    there = answer(solver, question.problem, question.instance)
    same(turned, there, answer(solver, question.problem, Instance.perfect(turned)))


def limits_are_met(solver: Solver, question: Question) -> None:
    """Every solved instance meets every constraint, in double and in single precision."""
    single = batching.tree_map(as_single, (question.problem, question.instance))
    for problem, instance in ((question.problem, question.instance), single):
        solution = answer(solver, problem, instance)
        report = evaluate(problem, instance, solution.W)
        broken = solution.solved & ~report.feasible
        assert not broken.any(), f"instances {broken.nonzero().flatten().tolist()} break {dict(report.violation)}"
        assert (solution.status != Status.NUMERICAL_FAILURE).all(), f"status {solution.status.tolist()}"


def same_generator_same_result(solver: Solver, question: Question) -> None:
    """Equal seeds give equal beams, bit for bit, and the global random state stays as it was."""
    state = torch.random.get_rng_state()
    one, other = (answer(solver, question.problem, question.instance) for _ in range(2))
    assert torch.equal(one.W, other.W), "two runs with the same seed differ"
    assert torch.equal(state, torch.random.get_rng_state()), "the global random state changed"


def neighbours_are_independent(solver: Solver, question: Question) -> None:
    """A neighbour full of NaN spoils only itself."""
    there = answer(solver, question.problem, question.instance)
    network = question.instance.observation.network
    H = network.H.clone()
    H[0] = torch.nan
    spoilt = Instance.perfect(Network(H, network.noise, network.streams))
    here = answer(solver, question.problem, spoilt)
    rest = slice(1, None)
    same(batching.take(network, rest), batching.take(there, rest), batching.take(here, rest))
    assert not here.solved[0], "the instance with NaN was not flagged"
    assert (here.W[0] == 0).all(), "the instance with NaN has beams"


def gradients_are_right(solver: Solver, question: Question) -> None:
    """The derivative along a random direction of the channel agrees with finite differences, where it is offered.

    Differences of a solution that is iterated to a tolerance are rough at small steps and curved at large ones; that of
    several widths which comes closest is the one that is judged.
    """
    if not solver.differentiable:
        return
    network = question.instance.observation.network
    generator = torch.Generator().manual_seed(5)
    direction = torch.randn(network.H.shape, dtype=network.H.dtype, generator=generator)
    if network.antennas == 1:
        direction = direction.real * network.H  # stays a square root of a power gain
    weight = torch.rand(BATCH, network.users, network.users, dtype=torch.float64, generator=generator)

    def value(step: Tensor) -> Tensor:
        moved = Network(network.H + step * direction, network.noise, network.streams)
        W = answer(solver, question.problem, Instance.perfect(moved)).W
        return (squared_magnitude(network.apply(W)) * weight).sum((-2, -1))

    step = torch.zeros(BATCH, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(step).sum(), step)
    expected = torch.stack([(value(step + h) - value(step - h)).detach() / (2 * h) for h in (1e-3, 1e-4, 1e-5)])
    slope = slope.flatten()
    gap = ((slope - expected).abs() / expected.abs().clamp_min(1)).amin(0)
    worst = int(gap.argmax())
    assert gap[worst] <= 1e-2, f"derivative {slope[worst]:g}, by differences {expected[:, worst].tolist()}"


CHECKS: list[Callable[[Solver, Question], None]] = [
    batch_equals_loop,
    users_can_be_relabelled,
    units_do_not_matter,
    phases_do_not_matter,
    limits_are_met,
    same_generator_same_result,
    neighbours_are_independent,
    gradients_are_right,
]
"""Every check, in order."""


# --- tools -----------------------------------------------------------------------------------------------------------
def answer(solver: Solver, problem: Problem, instance: Instance) -> Solution:
    """One solution, with a fresh generator."""
    return solver.solve(problem, instance, generator=torch.Generator().manual_seed(0))


def same(network: Network, one: Solution, other: Solution) -> None:
    """Both solutions end alike and put the same power at every user, to a ten-thousandth of the largest."""
    assert torch.equal(one.status, other.status), f"status {one.status.tolist()} against {other.status.tolist()}"
    a, b = (squared_magnitude(network.apply(solution.W)) for solution in (one, other))
    gap = (a - b).abs().amax() / a.abs().amax().clamp_min(torch.finfo(a.dtype).tiny)
    assert gap <= 1e-4, f"received powers differ by {gap:.1e} of the largest"


def relabel(term: Bound, axes: dict[str, Tensor]) -> Bound:
    """A bound term with the entries of its axes in another order."""
    changed: dict[str, Tensor] = {}
    for item in dataclasses.fields(term):
        names, value = item.metadata["axes"], getattr(term, item.name)
        for place, name in enumerate(names):
            if name in axes:
                value = value.index_select(place - len(names), axes[name])
        changed[item.name] = value
    return dataclasses.replace(term, **changed)


def as_single(leaf: Tensor) -> Tensor:
    """A tensor in single precision."""
    return leaf.to({torch.complex128: torch.complex64, torch.float64: torch.float32}.get(leaf.dtype, leaf.dtype))
