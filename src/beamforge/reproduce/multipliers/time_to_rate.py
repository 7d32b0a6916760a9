"""Time to nearly all of the converged rate: learned multipliers against every classical start and acceleration."""

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
from beamforge.reproduce.multipliers.methods import ANNEALED, RIDGES, Learned, Way, Wmmse
from beamforge.scenarios import Rayleigh
from beamforge.scenarios.base import TEST_SEEDS

SOURCE = Rayleigh(users=40, antennas=40, snr_db=20.0)
BATCH = 100
LIMIT = 64
"""Steps after which a way is given up."""

SHARES = {0.99: 0.4, 0.999: 0.25}
"""Of the converged rate, and the largest time wanted over that of the fastest classical way."""

ACCELERATIONS = ("none", "squarem", "anderson")
CURVE = (1, 2, 3, 5, 8, 12, 18, 30, 50)
"""Steps shown in the figure."""


class Track:
    """The batch on which ways are raced, the same for all."""

    def __init__(self, batch: int) -> None:
        self.instance = SOURCE.sample(batch, seed=TEST_SEEDS[0])
        self.problem = build_problem("sum-rate", self.instance.context).bind(self.instance.truth)

    def beams(self, way: Way, steps: int, repeat: int = 0) -> Tensor:
        """What is timed, over and over: from channels to beams."""
        return way.beams(self.problem, self.instance, steps)

    def run(self, way: Way, steps: int) -> float:
        """Mean rate after so many steps."""
        return float(evaluate(self.problem, self.instance, self.beams(way, steps)).utility.mean())

    def least(self, way: Way, rate: float) -> int | None:
        """The fewest steps to a mean rate; rates rise, so halve the interval."""
        if self.run(way, way.least) >= rate:
            return way.least
        low, high = way.least, LIMIT
        if self.run(way, high) < rate:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.run(way, middle) >= rate else (middle, high)
        return high


def race(learned: Learned, options: Options) -> tuple[list[Exhibit], list[Goal]]:
    """Seconds to shares of the converged rate, every way at its best start; and what is wanted of them."""
    track = Track(BATCH)
    converged = track.run(Wmmse("RZF"), 300)
    entered = {share: entrants(track, learned, share * converged) for share in SHARES}
    repeats = 3 if options.quick else 25
    tasks = {
        f"{share} {label(way)}": partial(track.beams, way, steps)
        for share, ways in entered.items()
        for way, steps in ways.items()
    }
    seconds = interleaved(tasks, repeats)
    rows: list[list[Any]] = []
    goals = []
    for share, ways in entered.items():
        percent = f"{100 * share:g}"
        taken = {way: seconds[f"{share} {label(way)}"] for way in ways}
        ours = taken.get(learned, math.inf)
        rows += [[percent, label(way), steps, 1e3 * taken[way], ours / taken[way]] for way, steps in ways.items()]
        for starts, said, wanted in ((RIDGES, "", SHARES[share]), ([ANNEALED], " from the annealed start", None)):
            theirs = [value for way, value in taken.items() if isinstance(way, Wmmse) and way.start in starts]
            ratio = ours / min(theirs, default=math.inf)
            goals.append(Goal(f"time to {percent} % over that of the fastest WMMSE{said}", ratio, wanted, at_most=True))
    title = f"Time to a share of the converged rate: 40×40, 20 dB, batch {BATCH}, one thread (medians of {repeats})"
    columns = ["Percent", "Method and start", "Steps", "Time (ms)", "multipliers / this"]
    table = Table("time", title, columns, rows, heads=2)
    return [table, *rate_and_time(track, learned, converged, 3 if options.quick else 15)], goals


def entrants(track: Track, learned: Learned, rate: float) -> dict[Way, int]:
    """Ways to a mean rate with the steps they need: ours, and each acceleration at its best start and annealed."""
    groups: list[list[Way]] = [[learned]]
    for acceleration in ACCELERATIONS:
        groups += [[Wmmse(start, acceleration) for start in RIDGES], [Wmmse(ANNEALED, acceleration)]]
    found: dict[Way, int] = {}
    for ways in groups:
        needed = {way: steps for way in ways if (steps := track.least(way, rate)) is not None}
        if needed:
            best = min(needed, key=needed.__getitem__)
            found[best] = needed[best]
    return found


def label(way: Way) -> str:
    """A way as it is called in tables."""
    if not isinstance(way, Wmmse):
        return "multipliers"
    return f"{'wmmse' if way.acceleration == 'none' else way.acceleration} from {way.start}"


def rate_and_time(track: Track, learned: Learned, converged: float, repeats: int) -> list[Exhibit]:
    """Rate and time after more and more steps."""
    ways: list[Way] = [learned, Wmmse("RZF"), Wmmse("30 × ridge"), Wmmse("30 × ridge", "squarem"), Wmmse(ANNEALED)]
    points = [(way, n) for way in ways for n in ((0, *CURVE) if way is learned else CURVE) if n >= way.least]
    tasks = {str(place): partial(track.beams, way, n) for place, (way, n) in enumerate(points)}
    seconds = interleaved(tasks, repeats)
    rows: list[list[Any]] = [
        [label(way), n, 1e3 * seconds[str(place)], 100 * track.run(way, n) / converged]
        for place, (way, n) in enumerate(points)
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
