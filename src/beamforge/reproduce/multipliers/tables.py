"""Learned multipliers compared with classical methods: rates by steps on many kinds of channels, and times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from beamforge.bench.statistics import Estimate, Values, percent_of_mean
from beamforge.bench.timing import one_thread
from beamforge.core.errors import ConfigError
from beamforge.core.evaluate import evaluate
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.network import Network
from beamforge.core.units import from_db
from beamforge.learned.multipliers.sum_rate import SumRateMultipliers
from beamforge.plot.style import line, png, styled
from beamforge.registry import configure
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Picture, Table
from beamforge.reproduce.multipliers.methods import ANNEALED, RIDGES, Learned, SteppedMethod, Wmmse
from beamforge.reproduce.multipliers.time_to_rate import times_to_shares
from beamforge.scenarios import Rayleigh, Recorded, Scenario, UMa
from beamforge.scenarios.base import TEST_SEEDS

STEPS = (0, 1, 2, 3, 5, 10, 50)
CONVERGED = 300
"""Plain steps from RZF whose rate is the reference, 100 %."""

COUNT, QUICK = 100, 20
"""Instances per case."""

SQUARE = {1: 100.5, 10: 101.0}
OVERLOADED = {1: 98.0, 3: 99.0, 10: 99.9}
EASIER = {1: 99.5, 5: 99.9}
"""Goals: percent of the reference by number of steps."""

PUBLISHED = {0: 12.12, 5: 22.06, 10: 35.5, 15: 52.0, 20: 71.0}
"""Goals on published channels: bit/s/Hz after ten steps, by SNR in dB."""

LEARNED = "multipliers"


@dataclass(frozen=True)
class Case:
    """Instances of a scenario and the goals for them.

    unseen  whether training has no channels of this kind; the goal is then that three learned steps equal ten from RZF.
    """

    name: str
    source: Scenario
    wanted: Mapping[int, float] = field(default_factory=dict)
    unseen: bool = False


def iid(users: int, antennas: int, snr_db: float, wanted: Mapping[int, float]) -> Case:
    """Independent Rayleigh fading."""
    return Case(f"i.i.d. {users}×{antennas}, {snr_db:g} dB", Rayleigh(users, antennas, snr_db), wanted)


CASES = (
    *(iid(size, size, 20.0, SQUARE) for size in (16, 28, 40, 64)),
    *(iid(users, antennas, 20.0, OVERLOADED) for users, antennas in ((20, 14), (40, 28), (56, 40))),
    *(iid(size, size, snr_db, EASIER) for size in (16, 40) for snr_db in (0.0, 10.0)),
    iid(20, 40, 20.0, EASIER),
    Case("path gains over 30 dB, 16×16, 20 dB", Rayleigh(16, 16, 20.0, gain_spread_db=30.0)),
    Case("correlation 0.9, 16×16, 20 dB", Rayleigh(16, 16, 20.0, correlation=0.9)),
    Case("Munich, ray-traced, 16×64", Recorded("munich.npz"), unseen=True),
    Case("TR 38.901 UMa, 16×32", UMa(users=16, rows=4, columns=8), unseen=True),
)
"""Users × antennas. Training has channels of all kinds but the last two; no instance is from training."""

LOWEST = 75.0
"""Least percentage that the figure shows."""

PICTURED = ("i.i.d. 40×40, 20 dB", "i.i.d. 40×28, 20 dB", "Munich, ray-traced, 16×64")


def multipliers(options: Options) -> Iterator[Exhibit]:
    """Percent of the rate of converged WMMSE from RZF after few steps, and the time to 99 and 99.9 % of it."""
    solver = configure(SumRateMultipliers, options.settings)
    assert isinstance(solver, SumRateMultipliers)
    learned = Learned(solver)
    published = None if options.peers is None else read_published(options.peers)
    goals: list[Goal] = []
    count = QUICK if options.quick else COUNT
    with torch.no_grad(), one_thread():
        rows: list[Sequence[Any]] = []
        for case in CASES:
            options.report(case.name)
            try:
                instance = case.source.sample(count, seed=TEST_SEEDS[0])
            except ConfigError as error:
                rows.append([case.name, f"left out: {error}", *[None] * len(STEPS)])
                continue
            percents, after_three = rate_percents(instance, learned)
            rows += [[case.name, name, *values] for name, values in percents.items()]
            ours = dict(zip(STEPS, percents[LEARNED], strict=True))
            goals += [Goal(f"{case.name}: percent after {n}", ours[n], least) for n, least in case.wanted.items()]
            if case.unseen:
                goals.append(Goal(f"{case.name}: after 3, percent of 10 from RZF", after_three, 100.0))
        title = f"Percent of the rate after {CONVERGED} plain steps from RZF, by steps taken ({count} instances a case)"
        by_steps = Table("steps", title, ["Channels", "Method", *map(str, STEPS)], rows, heads=2)
        yield by_steps
        yield Picture("rate-steps", png(rate_by_steps(by_steps)))

        if published is not None:
            options.report("published channels")
            table = on_published(published, learned)
            goals += [
                Goal(f"published channels, {row[0]} dB: rate after 10", row[-1], PUBLISHED[row[0]])
                for row in table.rows
            ]
            yield table

        options.report("time")
        exhibits, ratios = times_to_shares(learned, options)
        yield from exhibits
    yield Goal.table([*goals, *ratios])


def rate_percents(instance: Instance, learned: Learned) -> tuple[dict[str, list[Any]], Estimate]:
    """Percent by method for each of `STEPS`; and the rate after 3 learned steps in percent of 10 from RZF."""
    problem = build_problem("sum-rate", instance.context).bind(instance.truth)

    def rates(method: SteppedMethod, steps: int) -> Values:
        return evaluate(problem, instance, method.beams(problem, instance, steps)).utility.double().cpu().numpy()

    converged = rates(Wmmse("RZF"), CONVERGED)

    def percents(*methods: SteppedMethod) -> list[Any]:
        """Percent for the best of some starts, chosen for each number of steps."""
        found: list[Any] = []
        for steps in STEPS:
            able = [rates(method, steps) for method in methods if steps >= method.min_steps]
            found.append(percent_of_mean(max(able, key=np.mean), converged) if able else None)
        return found

    found = {
        LEARNED: percents(learned),
        "wmmse from RZF": percents(Wmmse("RZF")),
        "wmmse, best start": percents(*map(Wmmse, RIDGES)),
        "squarem, best start": percents(*(Wmmse(start, "squarem") for start in RIDGES)),
        "wmmse, annealed": percents(Wmmse(ANNEALED)),
    }
    return found, percent_of_mean(rates(learned, 3), rates(Wmmse("RZF"), 10))


def read_published(folder: Path) -> dict[str, np.ndarray]:
    """Channels `H` [B, 16, 16], levels `snr_db` [L] and `published_rnn_sum_rate` [L, B], the published rates."""
    try:
        with np.load(folder / "johnston_n16k16.npz", allow_pickle=False) as file:
            return {name: file[name] for name in ("H", "snr_db", "published_rnn_sum_rate")}
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f"peers must be a folder with johnston_n16k16.npz, got {folder} ({error})") from None


def on_published(published: Mapping[str, np.ndarray], learned: Learned) -> Table:
    """Mean rates on published channels, and those published for a learned optimiser."""
    H = torch.as_tensor(published["H"]).to(torch.complex64)
    methods: Sequence[tuple[SteppedMethod, int]] = [(Wmmse("RZF"), 10), (Wmmse("RZF"), CONVERGED), (learned, 10)]
    rows = []
    for level, theirs in zip(published["snr_db"].tolist(), published["published_rnn_sum_rate"], strict=True):
        instance = Instance.perfect(Network.broadcast(H, from_db(-level)), p_max=torch.ones(len(H)))
        problem = build_problem("sum-rate", instance.context).bind(instance.truth)
        ours = [
            float(evaluate(problem, instance, method.beams(problem, instance, n)).utility.mean())
            for method, n in methods
        ]
        rows.append([round(level), float(theirs.mean()), *ours])
    columns = ["SNR (dB)", "Published", "wmmse from RZF, 10", f"wmmse from RZF, {CONVERGED}", f"{LEARNED}, 10"]
    return Table("published", "Published 16×16 channels, mean sum rate (bit/s/Hz)", columns, rows)


@styled
def rate_by_steps(table: Table) -> Figure:
    """Percent of converged against steps, for a few of the cases."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(PICTURED))
    for ax, name in zip(panels, PICTURED, strict=True):
        for index, row in enumerate(row for row in table.rows if row[0] == name):
            points = [(n, cell.value) for n, cell in zip(STEPS, row[2:], strict=True) if isinstance(cell, Estimate)]
            if points:
                ax.plot(*zip(*points, strict=True), label=row[1] if ax is panels[0] else None, **line(index))
        ax.axhline(100, color="black", linewidth=0.8, zorder=0)
        ax.set_xscale("symlog", linthresh=1, linscale=0.5)
        ax.set_xticks(STEPS, map(str, STEPS))
        ax.minorticks_off()
        ax.set(title=name, xlabel="Steps", xlim=(-0.1, 1.1 * STEPS[-1]), ylim=(max(ax.get_ylim()[0], LOWEST), None))
    panels[0].set_ylabel("Rate (% of converged from RZF)")
    figure.legend(loc="outside upper center", ncols=5)
    return figure
