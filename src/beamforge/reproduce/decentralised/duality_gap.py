"""The duality gap of ITNet and DualNet in every cell, and the power of their beams before the projection."""

from __future__ import annotations

from typing import Any

import torch

from beamforge.learned.interference.itnet_dualnet import ITNetDualNet, MaxMinITNet, SumRateITNet
from beamforge.reproduce.decentralised.cells import MAX_MIN, SNRS_DB, SUM_RATE, USERS, Cell
from beamforge.reproduce.exhibits import Goal, Options, Table

METHODS: dict[str, type[ITNetDualNet]] = {SUM_RATE: SumRateITNet, MAX_MIN: MaxMinITNet}

LARGEST_GAP = 1.0
"""Mean size of the gap in percent of the rate, as the paper's Fig. 2 (b) shows it after alternating training."""


def duality_gaps(problem: str, count: int, options: Options) -> tuple[Table, list[Goal]]:
    """Gap (31) and its absolute value in percent of the rate (26); share of projected beams, and their excess power.

    The goal is for the sum rate, whose weights are trained alternately.
    """
    method = METHODS[problem]()
    rows: list[list[Any]] = []
    for users in USERS:
        for snr_db in SNRS_DB:
            options.report(f"duality gap, {problem}, {users} base stations, {snr_db} dB")
            instance = Cell(users, snr_db).sample(count)
            figures = {name: float(value) for name, value in method.loss(instance, torch.Generator())[1].items()}
            gaps = [100 * figures[name] / figures["rate_within"] for name in ("gap", "gap_size")]
            rows.append([users, snr_db, *gaps, *(100 * figures[name] for name in ("projected", "excess_power"))])
    columns = ["K", "SNR (dB)", "Gap (%)", "Size of gap (%)", "Projected beams (%)", "Excess power (%)"]
    table = Table(f"duality-gap-{problem}", f"itnet-dualnet, {problem}: duality gap and projection", columns, rows, 2)
    mean = sum(row[3] for row in rows) / len(rows)
    wanted = LARGEST_GAP if problem == SUM_RATE else None
    what = f"itnet-dualnet, {problem}: mean size of the duality gap, percent of the rate"
    return table, [Goal(what, mean, wanted, at_most=True)]
