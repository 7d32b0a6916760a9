"""Power control by learned steps compared with classical methods: rates on trained and other sizes, and times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from beamforge.bench.statistics import Estimate, percent_of_mean
from beamforge.bench.timing import interleaved, one_thread
from beamforge.classical.links.many_starts import ManyStarts
from beamforge.classical.links.mm_admm import MMADMM
from beamforge.classical.links.single_link_starts import climb, single_link_starts
from beamforge.classical.links.wmmse import LinkWMMSE, SharedPower
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.problem import Problem
from beamforge.learned.links.neural_sum_rate_shared import LEADERS, NeuralSumRateShared
from beamforge.registry import configure
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Table
from beamforge.scenarios.base import TEST_SEEDS, Scenario
from beamforge.scenarios.power_control import Strong, Weak

COUNT, QUICK = 100, 10
"""Instances per case."""

BATCH = 100
"""Instances of the timed batch, in single precision."""

SAMPLES = 8

SEARCH = 60
"""Steps from each start in the search for the best known utility."""

OURS = "neural-sum-rate-shared"
SLOW = "mm-admm"
ONE_SAMPLE = f"{OURS}, 10 steps"
SEVERAL_SAMPLES = f"{OURS}, {SAMPLES} samples, 10 steps"

Method = Callable[[Problem, Instance], Tensor]
"""Maps a bound problem and instances to beams."""


@dataclass(frozen=True)
class Case:
    """Instances, and the goals of methods in percent of the best known.

    slow  whether `SLOW` is included.
    """

    name: str
    source: Scenario
    wanted: Mapping[str, float] = field(default_factory=dict)
    slow: bool = False


CASES = (
    Case("strong, L = 4", Strong(4), {ONE_SAMPLE: 99.5, SEVERAL_SAMPLES: 99.9}, slow=True),
    Case("strong, L = 16", Strong(16), {ONE_SAMPLE: 98.5, SEVERAL_SAMPLES: 99.5}, slow=True),
    Case("strong, L = 64", Strong(64), {ONE_SAMPLE: 97.5, SEVERAL_SAMPLES: 99.0}, slow=True),
    Case("strong, L = 8", Strong(8), {ONE_SAMPLE: 98.5}),
    Case("strong, L = 32", Strong(32), {ONE_SAMPLE: 97.5}),
    Case("strong, L = 128, never trained", Strong(128), {ONE_SAMPLE: 96.5}),
    *(Case(f"strong, random weights, L = {L}", Strong(L, random_weights=True)) for L in (4, 16, 64)),
    *(Case(f"strong, coupling 1, L = {L}", Strong(L, least_coupling=1.0)) for L in (4, 16, 64)),
    *(Case(f"weak, L = {L}", Weak(L), {ONE_SAMPLE: 99.95}) for L in (4, 16, 64)),
    *(Case(f"weak, random weights, L = {L}", Weak(L, random_weights=True), {ONE_SAMPLE: 99.95}) for L in (4, 16, 64)),
)

TIMED_LINKS = (4, 16, 64)
"""Numbers of links of the instances that are timed."""

SPEEDUP = 20.0
"""Goal for the time of `SLOW` over ours."""


def neural_sum_rate_shared(options: Options) -> Iterator[Exhibit]:
    """Percent of the best utility known, and milliseconds for a batch."""
    count = QUICK if options.quick else COUNT
    methods = methods_to_compare(options)
    goals: list[Goal] = []
    with torch.no_grad(), one_thread():
        rows: list[Sequence[Any]] = []
        for case in CASES:
            options.report(case.name)
            instance = case.source.sample(count, seed=TEST_SEEDS[0], dtype=torch.complex128)
            percents = utility_percents(
                instance, {name: method for name, method in methods.items() if case.slow or name != SLOW}
            )
            rows += [[case.name, name, percent] for name, percent in percents.items()]
            goals += [Goal(f"{case.name}: {name}", percents[name], least) for name, least in case.wanted.items()]
            if case.slow:
                margin = percents[ONE_SAMPLE].value - max(
                    percents[name].value for name in ("wmmse from equal power", SLOW)
                )
                goals.append(Goal(f"{case.name}: points above the best classical method of one start", margin, 0.0))
        title = f"Percent of the best utility known ({count} instances a case)"
        yield Table("rates", title, ["Links", "Method", "Percent"], rows, heads=2)
        options.report("time")
        table, ratios = time_table(methods, 2 if options.quick else 5)
        yield table
    yield Goal.table([*goals, *ratios])


def methods_to_compare(options: Options) -> dict[str, Method]:
    """Methods by name."""

    def ours(**more: Any) -> Method:
        solver = configure(NeuralSumRateShared, {**options.settings, **more})
        return lambda problem, instance: solver.solve(problem, instance).W

    def solved(solver: LinkWMMSE | MMADMM) -> Method:
        return lambda problem, instance: solver.solve(problem, instance).W

    return {
        "equal power": lambda problem, instance: best_climb(problem, instance, 0, 0),
        "best link alone": best_link_alone,
        "wmmse from equal power": solved(LinkWMMSE(starts=1)),
        "wmmse, 4 starts": solved(LinkWMMSE(starts=4)),
        "wmmse, 16 starts": solved(LinkWMMSE(starts=16)),
        SLOW: solved(MMADMM()),
        **{
            f"stretched wmmse, {LEADERS + 1} single-link starts, {steps} steps": partial(
                best_climb, leaders=LEADERS, steps=steps
            )
            for steps in (5, 10, 20, 40)
        },
        **{f"{OURS}, {steps} steps": ours(steps=steps) for steps in (0, 3, 10)},
        SEVERAL_SAMPLES: ours(steps=10, samples=SAMPLES),
        f"{OURS}, untrained, 10 steps": ours(steps=10, checkpoint="random"),
    }


def best_climb(problem: Problem, instance: Instance, leaders: int, steps: int) -> Tensor:
    """The best result of `climb` from equal powers and from single-link starts."""
    data = SharedPower.of(problem, instance.observation.network)
    p, rates = climb(data, single_link_starts(data, leaders), steps)
    return data.beams(p.take_along_dim(rates[..., -1].argmax(-1)[:, None, None], 1).squeeze(1))


def best_link_alone(problem: Problem, instance: Instance) -> Tensor:
    """All power on the link that has the best rate when alone."""
    data = SharedPower.of(problem, instance.observation.network)
    best = (data.weights * torch.log1p(data.direct)).argmax(-1)
    return data.beams(torch.nn.functional.one_hot(best, data.direct.shape[-1]).to(data.direct))


def utility_percents(instance: Instance, methods: Mapping[str, Method]) -> dict[str, Estimate]:
    """Percent of the best utility of all methods, a hundred starts, and `climb` from every single-link start."""
    problem = build_problem("sum-rate", instance.context).bind(instance.truth)

    def utility(W: Tensor) -> Tensor:
        return problem.value(instance.truth, W)

    found = {name: utility(method(problem, instance)) for name, method in methods.items()}
    search = [ManyStarts().solve(problem, instance).W, best_climb(problem, instance, instance.truth.users, SEARCH)]
    best = torch.stack([*found.values(), *map(utility, search)]).amax(0).numpy()
    return {name: percent_of_mean(value.numpy(), best) for name, value in found.items()}


def time_table(methods: Mapping[str, Method], repeats: int) -> tuple[Table, list[Goal]]:
    """Milliseconds from gains to powers, utility in percent of the best of a hundred starts, and goals."""
    rows: list[Sequence[Any]] = []
    goals = []
    for links in TIMED_LINKS:
        seconds, percents = timed(Strong(links).sample(BATCH, seed=TEST_SEEDS[0]), methods, repeats)
        rows += [[f"strong, L = {links}", name, 1e3 * seconds[name], percents[name]] for name in seconds]
        goals.append(Goal(f"L = {links}: times faster than {SLOW}", seconds[SLOW] / seconds[ONE_SAMPLE], SPEEDUP))
    title = f"Time for {BATCH} instances, single precision, one thread (medians of {repeats})"
    return Table("time", title, ["Links", "Method", "Time (ms)", "Percent of global"], rows, heads=2), goals


def timed(instance: Instance, methods: Mapping[str, Method], repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds and percents, by name; `SLOW` is timed once."""
    problem = build_problem("sum-rate", instance.context).bind(instance.truth)
    methods = {**methods, "global": lambda problem, instance: ManyStarts().solve(problem, instance).W}
    found: dict[str, Tensor] = {}

    def run(name: str, repeat: int = 0) -> None:
        found[name] = problem.value(instance.truth, methods[name](problem, instance)).mean()

    began = time.perf_counter()
    run(SLOW)
    taken = time.perf_counter() - began
    seconds = interleaved({name: partial(run, name) for name in methods if name != SLOW}, repeats)
    return {**seconds, SLOW: taken}, {name: 100 * float(value / found["global"]) for name, value in found.items()}
