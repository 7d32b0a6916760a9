"""Figs. 4 and 5 of the paper: sum rate and minimum rate against the number of base stations, and against the SNR."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from beamforge.bench.statistics import Values
from beamforge.plot.style import line, styled
from beamforge.reproduce.decentralised.cells import MAX_MIN, SNRS_DB, SUM_RATE, USERS

Reached = Mapping[str, Mapping[tuple[int, int], Mapping[str, Values]]]

LABELS = {SUM_RATE: "Mean sum rate (bit/s/Hz)", MAX_MIN: "Mean minimum rate (bit/s/Hz)"}


@styled
def against_users(reached: Reached) -> Figure:
    """Fig. 4: K from 2 to 6 at 0 dB."""
    return panels(reached, [(0, users) for users in USERS], USERS, "Base stations K (0 dB)")


@styled
def against_snr(reached: Reached) -> Figure:
    """Fig. 5: SNR from -5 to 25 dB with six base stations."""
    return panels(reached, [(snr_db, USERS[-1]) for snr_db in SNRS_DB], SNRS_DB, f"SNR (dB), K = {USERS[-1]}")


def panels(reached: Reached, cells: list[tuple[int, int]], x: tuple[int, ...], label: str) -> Figure:
    """A panel for each problem."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    for ax, problem in zip(figure.subplots(1, 2), (SUM_RATE, MAX_MIN), strict=True):
        curves(ax, reached[problem], cells, x)
        ax.set(xlabel=label, ylabel=LABELS[problem])
        ax.set_xticks(x)
    return figure


def curves(ax: Axes, reached: Mapping[tuple[int, int], Mapping[str, Values]], cells: list, x: tuple[int, ...]) -> None:
    """The mean of every method in some cells."""
    for index, method in enumerate(reached[cells[0]]):
        ax.plot(x, [reached[cell][method].mean() for cell in cells], label=method, **line(index))
    ax.legend()


FIGURES: Mapping[str, Callable[[Reached], Figure]] = {
    "figure-4-base-stations": against_users,
    "figure-5-snr": against_snr,
}
"""By file name."""
