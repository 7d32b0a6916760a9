"""Time to 99 and 99.9 % of the converged rate: learned multipliers and WMMSE with all starts and accelerations."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from beamforge.bench.timing import interleaved
from beamforge.core.evaluate import evaluate
from beamforge.core.named_problems import build_problem
from beamforge.plot.style import line, png, styled
from beamforge.reproduce.exhibits import Exhibit, Goal, Options, Picture, Table
from beamforge.reproduce.multipliers.methods import ANNEALED, RIDGES, Learned, SteppedMethod, Wmmse
from beamforge.scenarios import Rayleigh
from beamforge.scenarios.base import TEST_SEEDS

SOURCE = Rayleigh(users=40, antennas=40, snr_db=20.0)
BATCH = 100
MAX_STEPS = 64
"""Steps after which a method is left out."""

SHARES = {0.99: 0.4, 0.999: 0.25}
"""Shares of the converged rate, and the goal for our time over that of the fastest classical method."""

ACCELERATIONS = ("none", "squarem", "anderson")
CURVE = (1, 2, 3, 5, 8, 12, 18, 30, 50)
"""Steps shown in the figure."""


class TimedBatch:
    """The batch on which all methods are timed."""

    def __init__(self, batch: int) -> None:
        self.instance = SOURCE.sample(batch, seed=TEST_SEEDS[0])
        self.problem = build_problem("sum-rate", self.instance.context).bind(self.instance.truth)

    def beams(self, method: SteppedMethod, steps: int, repeat: int = 0) -> Tensor:
        """The timed work: from channels to beams."""
        return method.beams(self.problem, self.instance, steps)

    def run(self, method: SteppedMethod, steps: int) -> float:
        """Mean rate after a number of steps."""
        return float(evaluate(self.problem, self.instance, self.beams(method, steps)).utility.mean())

    def fewest_steps(self, method: SteppedMethod, rate: float) -> int | None:
        """The fewest steps to a mean rate, by bisection, since rates rise; None above `MAX_STEPS`."""
        if self.run(method, method.min_steps) >= rate:
            return method.min_steps
        low, high = method.min_steps, MAX_STEPS
        if self.run(method, high) < rate:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.run(method, middle) >= rate else (middle, high)
        return high


def times_to_shares(learned: Learned, options: Options) -> tuple[list[Exhibit], list[Goal]]:
    """Times to shares of the converged rate, each method at its best start; and the goals."""
    timed = TimedBatch(BATCH)
    converged = timed.run(Wmmse("RZF"), 300)
    methods_by_share = {share: fastest_methods(timed, learned, share * converged) for share in SHARES}
    repeats = 3 if options.quick else 25
    tasks = {
        f"{share} {label(method)}": partial(timed.beams, method, steps)
        for share, methods in methods_by_share.items()
        for method, steps in methods.items()
    }
    seconds = interleaved(tasks, repeats)
    rows: list[list[Any]] = []
    goals = []
    for share, methods in methods_by_share.items():
        percent = f"{100 * share:g}"
        taken = {method: seconds[f"{share} {label(method)}"] for method in methods}
        ours = taken.get(learned, math.inf)
        rows += [
            [percent, label(method), steps, 1e3 * taken[method], ours / taken[method]]
            for method, steps in methods.items()
        ]
        for starts, said, wanted in ((RIDGES, "", SHARES[share]), ([ANNEALED], " from the annealed start", None)):
            theirs = [value for method, value in taken.items() if isinstance(method, Wmmse) and method.start in starts]
            ratio = ours / min(theirs, default=math.inf)
            goals.append(Goal(f"time to {percent} % over that of the fastest WMMSE{said}", ratio, wanted, at_most=True))
    title = f"Time to a share of the converged rate: 40×40, 20 dB, batch {BATCH}, one thread (medians of {repeats})"
    columns = ["Percent", "Method and start", "Steps", "Time (ms)", "multipliers / this"]
    table = Table("time", title, columns, rows, heads=2)
    return [table, *rate_and_time(timed, learned, converged, 3 if options.quick else 15)], goals


def fastest_methods(timed: TimedBatch, learned: Learned, rate: float) -> dict[SteppedMethod, int]:
    """Methods with the steps to a mean rate: ours, and each acceleration at its best start and annealed."""
    groups: list[list[SteppedMethod]] = [[learned]]
    for acceleration in ACCELERATIONS:
        groups += [[Wmmse(start, acceleration) for start in RIDGES], [Wmmse(ANNEALED, acceleration)]]
    found: dict[SteppedMethod, int] = {}
    for methods in groups:
        needed = {method: steps for method in methods if (steps := timed.fewest_steps(method, rate)) is not None}
        if needed:
            best = min(needed, key=needed.__getitem__)
            found[best] = needed[best]
    return found


def label(method: SteppedMethod) -> str:
    """Name of a method in tables."""
    if not isinstance(method, Wmmse):
        return "multipliers"
    return f"{'wmmse' if method.acceleration == 'none' else method.acceleration} from {method.start}"


def rate_and_time(timed: TimedBatch, learned: Learned, converged: float, repeats: int) -> list[Exhibit]:
    """Rate and time by number of steps."""
    methods: list[SteppedMethod] = [
        learned,
        Wmmse("RZF"),
        Wmmse("30 × ridge"),
        Wmmse("30 × ridge", "squarem"),
        Wmmse(ANNEALED),
    ]
    points = [
        (method, n)
        for method in methods
        for n in ((0, *CURVE) if method is learned else CURVE)
        if n >= method.min_steps
    ]
    tasks = {str(place): partial(timed.beams, method, n) for place, (method, n) in enumerate(points)}
    seconds = interleaved(tasks, repeats)
    rows: list[list[Any]] = [
        [label(method), n, 1e3 * seconds[str(place)], 100 * timed.run(method, n) / converged]
        for place, (method, n) in enumerate(points)
    ]
    columns = ["Method and start", "Steps", "Time (ms)", "Percent"]
    table = Table("rate-time", "Rate against time, same batch", columns, rows)
    return [table, Picture("rate-time", png(rate_by_time(table)))]


@styled
def rate_by_time(table: Table) -> Figure:
    """Percent of converged against milliseconds, a marker for each number of steps."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    ax = figure.subplots()
    for index, name in enumerate(dict.fromkeys(row[0] for row in table.rows)):
        ms, percent = zip(*(row[2:] for row in table.rows if row[0] == name), strict=True)
        ax.plot(ms, percent, label=name, **line(index))
    ax.axhline(100, color="black", linewidth=0.8, zorder=0)
    ax.set(xscale="log", xlabel="Time for the batch (ms)", ylabel="Rate (% of converged from RZF)")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside upper center", ncols=3)
    return figure
