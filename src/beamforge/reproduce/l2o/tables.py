"""The transformer that learns to optimise beside the classical methods: every size by one set of weights, and time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from beamforge.bench.statistics import Estimate, Values, percent_of_mean
from beamforge.bench.timing import interleaved, one_thread
from beamforge.classical.linear import RZF
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.core.evaluate import evaluate
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.problem import Problem
from beamforge.core.solver import Solver
from beamforge.learned.l2o.ascent import ascend, lmmse
from beamforge.learned.l2o.graph_transformer import GraphTransformer
from beamforge.learned.l2o.hpe_transformer import HPETransformer
from beamforge.learned.l2o.masked_transformer import DEDICATED, MTSAO, STRIDE, DTSAOLift, MTSAOLift
from beamforge.learned.l2o.whitening import whitened
from beamforge.registry import configure
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Table
from beamforge.reproduce.multipliers.methods import Wmmse
from beamforge.scenarios import Rayleigh
from beamforge.scenarios.base import TEST_SEEDS

COUNT, QUICK = 100, 10
"""Instances a size."""

CONVERGED = 300
"""Plain steps of WMMSE from RZF whose rate is 100 %."""

SNR_DB = 20.0
TRAINED, UNSEEN = (4, 8, 12, 16), (5, 7, 11, 13)
"""Numbers of users and of antennas."""

LIGHT, HEAVY, LEAST = 99.0, 97.0, 95.0
"""Percent wanted on the mean where K <= N, where K > N, and of every size."""

NEAR = 1.0
"""Points that a size never trained may be below the mean of the trained ones around it."""

STEPS = (0, 1, 2, 4, 8)
"""Ascent steps after a layer."""

PRINTED_STEPS = 100
"""Ascent steps of the paper in use: 10 layers, 10 steps each."""

LENGTHS = (1e-2, 1e-3, 3e-4, STRIDE, 2e-5)
"""Of Euclidean steps: the printed one, and shorter ones."""

LEVELS_DB = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0)

SEVERAL = ((16, 16), (16, 8), (8, 16))
"""Users and antennas where steps and SNR vary."""

OURS, PLAIN, ALONE = "mt-sao-lift", "mt-sao", "ascent alone"

Way = Callable[[Problem, Instance], Tensor]
"""From a bound problem and instances to beams."""


def l2o_transformer(options: Options) -> Iterator[Exhibit]:
    """Percent of the rate to which WMMSE converges from RZF, by size, ascent steps and SNR; and milliseconds."""
    count = QUICK if options.quick else COUNT
    ways = contestants(options)
    with torch.no_grad(), one_thread():
        found: dict[tuple[int, int], dict[str, Estimate]] = {}
        for size in [*product(TRAINED, TRAINED), *product(UNSEEN, UNSEEN)]:
            options.report(f"{size[0]} users, {size[1]} antennas")
            found[size] = percents(sampled(size, SNR_DB, count), ways)
        for name, sizes in (("sizes", TRAINED), ("unseen", UNSEEN)):
            seen = "trained" if sizes is TRAINED else "never trained"
            title = f"Percent of {CONVERGED} plain steps of WMMSE from RZF, {SNR_DB:g} dB, sizes {seen} ({count} each)"
            rows = [[f"{K} users", f"{N} antennas", *found[K, N].values()] for K, N in product(sizes, sizes)]
            yield Table(name, title, ["K", "N", *ways], rows, heads=2)
        options.report("one size")
        yield dedicated(ways[OURS], count)
        options.report("steps of gradient ascent")
        yield by_length(count)
        options.report("ascent steps")
        yield by_steps(options, count)
        options.report("SNR")
        yield by_level(ways[OURS], count)
        options.report("time")
        yield race(ways, count, 2 if options.quick else 5)
    yield Goal.table(goals({size: row[OURS] for size, row in found.items()}))


def contestants(options: Options) -> dict[str, Way]:
    """Ways to beams, by name; the ascent alone is that of untrained layers, which change no beam."""
    ours = configure(MTSAOLift, options.settings)
    assert isinstance(ours, MTSAOLift)
    alone = MTSAOLift(checkpoint="random", ascent_steps=ours.ascent_steps, layers=len(ours.layers), size=ours.size)
    methods: dict[str, Solver] = {
        OURS: ours,
        PLAIN: MTSAO(),
        ALONE: alone,
        "hpe-transformer": HPETransformer(),
        "graph-transformer": GraphTransformer(),
        "wmmse": ReducedWMMSE(),
        "rzf": RZF(),
    }
    return {name: partial(solved, method) for name, method in methods.items()}


def solved(method: Solver, problem: Problem, instance: Instance) -> Tensor:
    """Beams of a method."""
    return method.solve(problem, instance).W


def sampled(size: tuple[int, int], snr_db: float, count: int) -> Instance:
    """Held-out instances of a number of users and of antennas."""
    return Rayleigh(*size, snr_db).sample(count, seed=TEST_SEEDS[0])


def percents(instance: Instance, ways: Mapping[str, Way]) -> dict[str, Estimate]:
    """Of the rate of converged WMMSE, by name."""
    problem = build_problem("sum-rate", instance.context).bind(instance.truth)

    def rates(way: Way) -> Values:
        return evaluate(problem, instance, way(problem, instance)).utility.double().cpu().numpy()

    converged = rates(lambda problem, instance: Wmmse("RZF").beams(problem, instance, CONVERGED))
    return {name: percent_of_mean(rates(way), converged) for name, way in ways.items()}


def by_steps(options: Options, count: int) -> Table:
    """Percents by ascent steps after a layer, whatever the weights were trained with."""
    ways = {f"Q = {n}": contestants_with(options, n) for n in STEPS}
    rows = [[f"{K}×{N}", *percents(sampled((K, N), SNR_DB, count), ways).values()] for K, N in SEVERAL]
    return Table("ascent-steps", f"Percent by ascent steps after a layer of {OURS}", ["K×N", *ways], rows)


def dedicated(ours: Way, count: int) -> Table:
    """Percents of the network for every size beside one that was trained for this size alone (Fig. 6)."""
    ways: dict[str, Way] = {OURS: ours, "dt-sao-lift": partial(solved, DTSAOLift())}
    rows = [[f"{DEDICATED}×{DEDICATED}", *percents(sampled((DEDICATED, DEDICATED), SNR_DB, count), ways).values()]]
    return Table("dedicated", "Percent of one network for every size, and of one for this size", ["K×N", *ways], rows)


def by_length(count: int) -> Table:
    """Percents of the printed number of Euclidean steps from RZF and nothing else, by their length (Eq. 8)."""

    def climbed(length: float, problem: Problem, instance: Instance) -> Tensor:
        H = whitened(instance.truth, instance.context["p_max"])
        there = torch.ones_like(H.real[..., 0])
        return ascend(H, lmmse(H, there > 0), there, PRINTED_STEPS, torch.tensor(length))

    ways = {f"{length:.1e}": partial(climbed, length) for length in LENGTHS}
    rows = [[f"{K}×{N}", *percents(sampled((K, N), SNR_DB, count), ways).values()] for K, N in SEVERAL]
    title = f"Percent after {PRINTED_STEPS} steps of Euclidean ascent from RZF, by the length of a step"
    return Table("lengths", title, ["K×N", *ways], rows)


def contestants_with(options: Options, steps: int) -> Way:
    """The transformer with another number of ascent steps."""
    return partial(solved, configure(MTSAOLift, {**options.settings, "ascent_steps": steps}))


def by_level(ours: Way, count: int) -> Table:
    """Percents by SNR."""
    rows: list[Sequence[Any]] = []
    for K, N in SEVERAL:
        rows.append([f"{K}×{N}", *(percents(sampled((K, N), level, count), {OURS: ours})[OURS] for level in LEVELS_DB)])
    return Table("snr", f"Percent by SNR of {OURS}", ["K×N", *(f"{level:g} dB" for level in LEVELS_DB)], rows)


def race(ways: Mapping[str, Way], count: int, repeats: int) -> Table:
    """Milliseconds for a batch of 16×16, from channels to beams."""
    instance = sampled((16, 16), SNR_DB, count)
    problem = build_problem("sum-rate", instance.context).bind(instance.truth)
    few = {f"wmmse from RZF, {n} steps": n for n in (10, 20, CONVERGED)}

    def plain(steps: int, problem: Problem, instance: Instance) -> Tensor:
        return Wmmse("RZF").beams(problem, instance, steps)

    every: dict[str, Way] = {**ways, **{name: partial(plain, n) for name, n in few.items()}}

    def run(way: Way, index: int) -> None:
        way(problem, instance)

    seconds = interleaved({name: partial(run, way) for name, way in every.items()}, repeats)
    shares = percents(instance, every)
    rows = [[name, 1e3 * seconds[name], shares[name]] for name in every]
    return Table("time", f"Time for {count} instances, 16×16, one thread", ["Method", "Time (ms)", "Percent"], rows)


def goals(found: Mapping[tuple[int, int], Estimate]) -> list[Goal]:
    """What is wanted of every size by one set of weights."""

    def value(size: tuple[int, int]) -> float:
        return found[size].value

    wanted = [Goal(f"{K}×{N}: percent", found[K, N], LIGHT if K <= N else HEAVY) for K, N in product(TRAINED, TRAINED)]
    wanted.append(Goal("the least of all sizes", min(map(value, found)), LEAST))
    for K, N in product(UNSEEN, UNSEEN):
        around = [value(size) for size in product(neighbours(K), neighbours(N))]
        wanted.append(Goal(f"{K}×{N}: points over the sizes around it", value((K, N)) - sum(around) / 4, -NEAR))
    return wanted


def neighbours(count: int) -> tuple[int, int]:
    """The trained numbers of users, or of antennas, on either side of one.

    >>> neighbours(5), neighbours(13)
    ((4, 8), (12, 16))
    """
    above = min(number for number in TRAINED if number > count)
    return above - 4, above
