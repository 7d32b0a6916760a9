"""What any method must satisfy, ours or a user's: `check_solver` is the public conformance suite.

Each check poses small random questions of the kinds a method says it serves and compares two answers that must agree,
or asks what must be refused. Answers are compared by the powers ``|h_k^H w_d|^2`` that users receive, since a beam's
phase is free.
"""

from __future__ import annotations

from beamforge.checks.conformance import CHECKS
from beamforge.checks.questions import Question, questions_for
from beamforge.core.solver import Solver

__all__ = ["CHECKS", "Question", "check_solver", "questions_for"]


def check_solver(solver: Solver, questions: list[Question] | None = None) -> None:
    """Run every check on a solver; `AssertionError` names the check and the question that it fails.

    questions  what to ask; left out, one for each kind of question in `solver.capabilities`.

    A method with parameters that it takes from a batch as a whole is checked with those `fitted` to the question.

    >>> from beamforge.classical.linear import RZF
    >>> check_solver(RZF())
    """
    questions = questions_for(type(solver)) if questions is None else questions
    assert questions, f"{type(solver).__name__} serves no question"
    for question in questions:
        fitted = solver.fitted(question.problem, question.instance)
        for check in CHECKS:
            try:
                check(fitted, question)
            except AssertionError as failure:
                message = f"{type(solver).__name__} fails {check.__name__} on {question.name}: {failure}"
                raise AssertionError(message) from failure
