"""``beamforge list``: what there is by name, and the settings of a method."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import product
from typing import Any

import click
import torch

from beamforge.bench.suites import SUITES
from beamforge.core.errors import ConfigError, unknown
from beamforge.core.named_problems import PROBLEMS, build_problem
from beamforge.core.network import Network
from beamforge.io.weights import card, extra, names
from beamforge.registry import METHODS
from beamforge.reproduce import PAPERS
from beamforge.scenarios import SCENARIOS, summary
from beamforge.training.recipe import shipped as recipes

EXTRA = " (in the extra weights)"
"""Note on trained weights that do not come with the package itself."""


KINDS = ("problems", "methods", "scenarios", "suites", "papers", "recipes", "models")


@click.command("list")
@click.argument("kind", type=click.Choice(KINDS), required=False)
@click.argument("name", required=False)
def command(kind: str | None, name: str | None) -> None:
    """List the problems, methods, scenarios, suites, papers, recipes or models; all of them by default.

    `beamforge list methods NAME` shows the settings of a method, with meaning and default.
    """
    if name is not None:
        if kind != "methods":
            raise ConfigError(f"NAME must be left out with {kind}, got {name}")
        settings_of(name)
        return
    for each in [kind] if kind else KINDS:
        entries = entries_of(each)
        if not kind:
            print(f"{each}:" if entries else f"{each}: none")
        width = max(map(len, entries), default=0)
        for entry, told in entries.items():
            print(f"{'' if kind else '  '}{entry:{width}}  {told}".replace("`", "").rstrip())


def entries_of(kind: str) -> dict[str, str]:
    """Names of a kind, and a description of each."""
    if kind == "problems":
        return {name: (builder.__doc__ or "").partition("\n")[0] for name, builder in PROBLEMS.items()}
    if kind == "methods":
        return {name: supported(name) for name in METHODS}
    if kind == "scenarios":
        return {name: summary(name) for name in SCENARIOS}
    if kind == "suites":
        return {name: suite.description for name, suite in SUITES.items()}
    if kind == "papers":
        return {name: (paper.__doc__ or "").partition("\n")[0] for name, paper in PAPERS.items()}
    if kind == "recipes":
        return {name: description(files("beamforge") / "recipes" / f"{name}.toml") for name in recipes()}
    return {name: description(card(name)) + (EXTRA if name in extra().train else "") for name in names()}


def settings_of(method: str) -> None:
    """Print what a method serves, and the settings of its solvers."""
    if method not in METHODS:
        raise ConfigError(unknown("method", method, METHODS))
    paragraph = textwrap.TextWrapper(80, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False)
    print(f"{method}: {supported(method)}".rstrip())
    for kind in METHODS[method]:
        about = (inspect.getdoc(kind) or kind.__name__).partition("\n")[0]
        print(f"\n{kind.__name__}: {about}".replace("`", ""))
        told = meanings(kind)
        for name, parameter in inspect.signature(kind.__init__).parameters.items():
            if name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                default = "" if parameter.default is parameter.empty else f" (default {parameter.default})"
                words = f"--set {name}=  {told.get(name, '')}{default}".replace("`", "")
                print(paragraph.fill(words))


ENTRY = re.compile(r"^(\w+(?:, \w+)*)  +(\S.*)\n?((?:^ +\S.*\n?)*)", re.MULTILINE)
"""Names and their meaning in a docstring, with its further lines indented."""


def meanings(kind: type) -> dict[str, str]:
    """Meanings of the settings of a solver class, from lines "name  meaning" of its docstring and of its bases'.

    >>> from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
    >>> meanings(ReducedWMMSE)["starts"]
    'how many of these; a start given to solve replaces them all.'
    """
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        document = inspect.cleandoc(vars(base).get("__doc__") or "")
        for settings, first, rest in ENTRY.findall(document):
            words = " ".join(f"{first} {rest}".split()).replace("`", "")
            found |= dict.fromkeys(settings.split(", "), words)
    return found


STATED: Mapping[str, dict[str, Any]] = {
    "fair-sum-rate": {"jain": 0.9},
    "isac": {"target_angles": torch.zeros(1), "target_gain": torch.ones(1), "sensing_snr_target": 1.0},
}
"""Numbers that problems with one total power need."""


WITHOUT_LIMIT: Mapping[str, dict[str, Any]] = {
    "min-power": {"sinr_target": 1.0},
    "hybrid-min-power": {"sinr_target": 1.0, "outage": 0.1},
}
"""Numbers of problems that need no power limit."""


def supported(method: str) -> str:
    """The problems and forms of network that a method supports, found by its `supports`."""
    found: dict[str, list[str]] = {}
    for kind, problem in product(METHODS[method], PROBLEMS):
        for form, (network, limit) in networks(*kind.tried_on).items():
            if problem in STATED and limit != "p_max":
                continue  # these problems have one total power
            stated = [{limit: 1.0, "sinr_target": 1.0}, {limit: 1.0, "weights": 1.0, "sinr_target": 1.0}]
            stated += [WITHOUT_LIMIT.get(problem, {limit: 1.0})]
            questions = [build_problem(problem, STATED.get(problem, {}) | context) for context in stated]
            if any(kind.supports(question, network) for question in questions):
                found.setdefault(problem, []).append(form)
    for kinds in found.values():
        if "multicell" in kinds:  # which says it
            kinds[:] = [form for form in kinds if form != "interference"]
    asks = sorted({kind.scope for kind in METHODS[method] if kind.scope})
    said = (f"{problem} ({', '.join(sorted({*found[problem]}))})" for problem in PROBLEMS if problem in found)
    return "; ".join([*said, *asks])


def networks(users: int, antennas: int) -> dict[str, tuple[Network, str]]:
    """A network of each form, and the usual power limit of this form."""
    one = torch.ones(1, users, antennas, dtype=torch.complex128)
    pairs = one.expand(users, users, antennas)
    return {
        "broadcast": (Network.broadcast(one, 1.0), "p_max"),
        "multicell": (Network.multicell(pairs, 1.0, torch.arange(users).flip(0)), "p_max_transmitter"),
        "interference": (Network.interference(pairs, 1.0), "p_max_transmitter"),
        "power-control": (Network.power_control(torch.ones(1, users, users), 1.0), "p_max"),
    }


def description(file: Traversable) -> str:
    """The description of a file in a comment or a heading on its first line."""
    if not file.is_file():
        return ""
    with file.open("rb") as lines:
        first = lines.readline(200).decode()
    told = first.strip("# \n") if first.startswith("#") else ""
    return told.partition(", ")[2] if told.startswith("Weights of ") else told
