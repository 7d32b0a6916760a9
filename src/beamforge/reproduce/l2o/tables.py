"""The transformer that learns to optimise, compared with other methods: sizes, ascent steps, SNR and time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from beamforge.bench.statistics import Estimate, Values, percent_of_mean
from beamforge.bench.timing import interleaved, one_thread
from beamforge.classical.bounds import bound
from beamforge.classical.linear import RZF
from beamforge.classical.sum_rate.reduced_wmmse import ReducedWMMSE
from beamforge.core.evaluate import evaluate
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.problem import Problem
from beamforge.core.solver import Solver
from beamforge.learned.l2o.ascent import ascend, lmmse
from beamforge.learned.l2o.bicnn import BiCNN
from beamforge.learned.l2o.graph_transformer import GraphTransformer
from beamforge.learned.l2o.hpe_transformer import HPETransformer
from beamforge.learned.l2o.masked_transformer import DEDICATED, MTSAO, STRIDE, DTSAOLift, MTSAOLift
from beamforge.learned.l2o.rnn_optimizer import RNNOptimizer
from beamforge.learned.l2o.whitening import whitened
from beamforge.plot.style import png
from beamforge.registry import configure
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Picture, Table
from beamforge.reproduce.l2o import figures
from beamforge.reproduce.multipliers.methods import Wmmse
from beamforge.scenarios import Rayleigh
from beamforge.scenarios.base import TEST_SEEDS

COUNT, QUICK = 100, 10
"""Instances per size."""

CONVERGED = 300
"""Plain WMMSE steps from RZF; their rate is 100 %."""

SNR_DB = 20.0
TRAINED, UNSEEN = (4, 8, 12, 16), (5, 7, 11, 13)
"""Numbers of users and of antennas."""

LIGHT, HEAVY, LEAST = 99.0, 97.0, 95.0
"""Goals in percent: mean for K <= N and for K > N, and least of all sizes."""

NEAR = 1.0
"""Largest difference in points of a size not in training to the mean of the trained sizes around it."""

STEPS = (0, 1, 2, 4, 8)
"""Ascent steps per layer."""

PRINTED_STEPS = 100
"""Ascent steps of the paper at inference: 10 layers with 10 steps each."""

LENGTHS = (1e-2, 1e-3, 3e-4, STRIDE, 2e-5)
"""Lengths of Euclidean steps: the printed one, and shorter ones."""

LEVELS_DB = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0)

SEVERAL = ((16, 16), (16, 8), (8, 16))
"""Users and antennas of the tables by ascent steps and by SNR."""

OURS, PLAIN, ALONE = "mt-sao-lift", "mt-sao", "ascent alone"

Beamformer = Callable[[Problem, Instance], Tensor]
"""Maps a bound problem and instances to beams."""

BOUND = "capacity (DPC)"
"""Sum capacity of the broadcast channel, by dirty-paper coding: no linear beams exceed it."""


def l2o_transformer(options: Options) -> Iterator[Exhibit]:
    """Percent of the converged rate of WMMSE from RZF, by size, ascent steps and SNR; and milliseconds."""
    count = QUICK if options.quick else COUNT
    methods = methods_for(options)
    with torch.no_grad(), one_thread():
        found: dict[tuple[int, int], dict[str, Estimate]] = {}
        for size in [*product(TRAINED, TRAINED), *product(UNSEEN, UNSEEN)]:
            options.report(f"{size[0]} users, {size[1]} antennas")
            found[size] = percents(sampled(size, SNR_DB, count), methods)
        for name, sizes in (("sizes", TRAINED), ("unseen", UNSEEN)):
            seen = "in training" if sizes is TRAINED else "not in training"
            title = (
                f"Percent of {CONVERGED} plain steps of WMMSE from RZF, {SNR_DB:g} dB, sizes {seen} ({count} per size)"
            )
            rows = [[f"{K} users", f"{N} antennas", *found[K, N].values()] for K, N in product(sizes, sizes)]
            yield Table(name, title, ["K", "N", *methods, BOUND], rows, heads=2)
        options.report("one size")
        yield dedicated(methods[OURS], count)
        options.report("steps of gradient ascent")
        yield by_length(count)
        options.report("ascent steps")
        yield (steps := by_steps(options, count))
        options.report("SNR")
        yield (levels := by_level(methods[OURS], count))
        yield Picture("figures-4-5", png(figures.by_column(steps, levels)))
        yield Picture("figures-7-8", png(figures.by_size(found, TRAINED, (OURS, PLAIN))))
        options.report("time")
        yield running_time(methods, count, 2 if options.quick else 5)
    yield Goal.table(goals({size: row[OURS] for size, row in found.items()}))


def methods_for(options: Options) -> dict[str, Beamformer]:
    """All methods by name; "ascent alone" has untrained layers, which change no beam."""
    ours = configure(MTSAOLift, options.settings)
    assert isinstance(ours, MTSAOLift)
    alone = MTSAOLift(checkpoint="random", ascent_steps=ours.ascent_steps, layers=len(ours.layers), size=ours.size)
    solvers: dict[str, Solver] = {
        OURS: ours,
        PLAIN: MTSAO(),
        ALONE: alone,
        "hpe-transformer": HPETransformer(),
        "graph-transformer": GraphTransformer(),
        "rnn-optimizer": RNNOptimizer(),
        "bicnn": BiCNN(),
        "wmmse": ReducedWMMSE(),
        "rzf": RZF(),
    }
    return {name: partial(solved, solver) for name, solver in solvers.items()}


def solved(solver: Solver, problem: Problem, instance: Instance) -> Tensor:
    """Beams of a solver."""
    return solver.solve(problem, instance).W


def sampled(size: tuple[int, int], snr_db: float, count: int) -> Instance:
    """Held-out instances for a number of users and antennas."""
    return Rayleigh(*size, snr_db).sample(count, seed=TEST_SEEDS[0])


def percents(instance: Instance, methods: Mapping[str, Beamformer]) -> dict[str, Estimate]:
    """Percent of the converged rate of WMMSE by method, and the bound."""
    problem = build_problem("sum-rate", instance.context).bind(instance.truth)

    def rates(method: Beamformer) -> Values:
        return evaluate(problem, instance, method(problem, instance)).utility.double().cpu().numpy()

    converged = rates(lambda problem, instance: Wmmse("RZF").beams(problem, instance, CONVERGED))
    found = {name: percent_of_mean(rates(method), converged) for name, method in methods.items()}
    capacity = bound(problem, instance.truth).double().cpu().numpy()
    return found | {BOUND: percent_of_mean(capacity, converged)}


def by_steps(options: Options, count: int) -> Table:
    """Percent by ascent steps per layer; the weights are the same."""
    methods = {f"Q = {n}": with_steps(options, n) for n in STEPS}
    rows = [[f"{K}×{N}", *percents(sampled((K, N), SNR_DB, count), methods).values()] for K, N in SEVERAL]
    return Table("ascent-steps", f"{OURS}: percent by ascent steps per layer", ["K×N", *methods, BOUND], rows)


def dedicated(ours: Beamformer, count: int) -> Table:
    """Percent of the network for all sizes and of one that is trained for a single size (Fig. 6)."""
    methods: dict[str, Beamformer] = {OURS: ours, "dt-sao-lift": partial(solved, DTSAOLift())}
    rows = [[f"{DEDICATED}×{DEDICATED}", *percents(sampled((DEDICATED, DEDICATED), SNR_DB, count), methods).values()]]
    return Table(
        "dedicated", "Percent of a network for all sizes, and of one for this size", ["K×N", *methods, BOUND], rows
    )


def by_length(count: int) -> Table:
    """Percent after the printed number of Euclidean ascent steps from RZF, by step length (Eq. 8)."""

    def climbed(length: float, problem: Problem, instance: Instance) -> Tensor:
        H = whitened(instance.truth, instance.context["p_max"])
        there = torch.ones_like(H.real[..., 0])
        return ascend(H, lmmse(H, there > 0), there, PRINTED_STEPS, torch.tensor(length))

    methods = {f"{length:.1e}": partial(climbed, length) for length in LENGTHS}
    rows = [[f"{K}×{N}", *percents(sampled((K, N), SNR_DB, count), methods).values()] for K, N in SEVERAL]
    title = f"Percent after {PRINTED_STEPS} steps of Euclidean ascent from RZF, by step length"
    return Table("lengths", title, ["K×N", *methods, BOUND], rows)


def with_steps(options: Options, steps: int) -> Beamformer:
    """The transformer with another number of ascent steps."""
    return partial(solved, configure(MTSAOLift, {**options.settings, "ascent_steps": steps}))


def by_level(ours: Beamformer, count: int) -> Table:
    """Percent by SNR."""
    rows: list[Sequence[Any]] = []
    for K, N in SEVERAL:
        rows.append([f"{K}×{N}", *(percents(sampled((K, N), level, count), {OURS: ours})[OURS] for level in LEVELS_DB)])
    return Table("snr", f"{OURS}: percent by SNR", ["K×N", *(f"{level:g} dB" for level in LEVELS_DB)], rows)


def running_time(methods: Mapping[str, Beamformer], count: int, repeats: int) -> Table:
    """Milliseconds for a batch with 16 users and 16 antennas, from channels to beams."""
    instance = sampled((16, 16), SNR_DB, count)
    problem = build_problem("sum-rate", instance.context).bind(instance.truth)
    few = {f"wmmse from RZF, {n} steps": n for n in (10, 20, CONVERGED)}

    def plain(steps: int, problem: Problem, instance: Instance) -> Tensor:
        return Wmmse("RZF").beams(problem, instance, steps)

    every: dict[str, Beamformer] = {**methods, **{name: partial(plain, n) for name, n in few.items()}}

    def run(method: Beamformer, index: int) -> None:
        method(problem, instance)

    seconds = interleaved({name: partial(run, method) for name, method in every.items()}, repeats)
    shares = percents(instance, every)
    rows = [[name, 1e3 * seconds[name], shares[name]] for name in every]
    return Table("time", f"Time for {count} instances, 16×16, one thread", ["Method", "Time (ms)", "Percent"], rows)


def goals(found: Mapping[tuple[int, int], Estimate]) -> list[Goal]:
    """The goals for every size."""

    def value(size: tuple[int, int]) -> float:
        return found[size].value

    listed = [Goal(f"{K}×{N}: percent", found[K, N], LIGHT if K <= N else HEAVY) for K, N in product(TRAINED, TRAINED)]
    listed.append(Goal("the least of all sizes", min(map(value, found)), LEAST))
    for K, N in product(UNSEEN, UNSEEN):
        around = [value(size) for size in product(neighbours(K), neighbours(N))]
        listed.append(Goal(f"{K}×{N}: points over the sizes around it", value((K, N)) - sum(around) / 4, -NEAR))
    return listed


def neighbours(count: int) -> tuple[int, int]:
    """The trained numbers of users, or of antennas, below and above a number.

    >>> neighbours(5), neighbours(13)
    ((4, 8), (12, 16))
    """
    above = min(number for number in TRAINED if number > count)
    return above - 4, above
