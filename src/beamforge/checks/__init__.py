"""The public conformance suite `check_solver`, for methods of this library and of users.

Each check solves small random problems of the kinds in a method's capabilities and compares two solutions that must
agree, or poses a problem that must be refused. Solutions are compared by the received powers ``|h_k^H w_d|^2``, since
the phase of a beam is arbitrary.
"""

from __future__ import annotations

from beamforge.checks.conformance import CHECKS
from beamforge.checks.questions import Question, questions_for
from beamforge.core.solver import Solver

__all__ = ["CHECKS", "Question", "check_solver", "questions_for"]


def check_solver(solver: Solver, questions: list[Question] | None = None) -> None:
    """Run every check on a solver; `AssertionError` names the check and the question that failed.

    questions  problems to solve; left out, one for each kind of problem in `solver.capabilities`.

    A method with parameters that depend on the whole batch is checked with those `fitted` to the question.

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
