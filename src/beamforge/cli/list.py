"""``beamforge list``: problems, methods, scenarios, recipes and models by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import product
from typing import Any

import click
import torch

from beamforge.core.named_problems import PROBLEMS, build_problem
from beamforge.core.network import Network
from beamforge.io.weights import card, extra, names
from beamforge.registry import METHODS
from beamforge.scenarios import SCENARIOS, summary
from beamforge.training.recipe import shipped as recipes

EXTRA = " (in the extra weights)"
"""Note on trained weights that do not come with the package itself."""


@click.command("list")
@click.argument("kind", type=click.Choice(["problems", "methods", "scenarios", "recipes", "models"]), required=False)
def command(kind: str | None) -> None:
    """List the problems, methods, scenarios, recipes or models; all of them by default."""
    tables = {
        "problems": {name: (builder.__doc__ or "").partition("\n")[0] for name, builder in PROBLEMS.items()},
        "methods": {name: supported(name) for name in METHODS},
        "scenarios": {name: summary(name) for name in SCENARIOS},
        "recipes": {name: description(files("beamforge") / "recipes" / f"{name}.toml") for name in recipes()},
        "models": {name: description(card(name)) + (EXTRA if name in extra().train else "") for name in names()},
    }
    for name in [kind] if kind else tables:
        if not kind:
            print(f"{name}:" if tables[name] else f"{name}: none")
        width = max(map(len, tables[name]), default=0)
        for entry, told in tables[name].items():
            print(f"{'' if kind else '  '}{entry:{width}}  {told}".replace("`", "").rstrip())


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
