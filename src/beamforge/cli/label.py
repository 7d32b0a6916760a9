"""``beamforge label``: instances of a scenario of links with the best known powers, as training data."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import beamforge
from beamforge.cli.output import progress, summarise
from beamforge.cli.request import pairs
from beamforge.io.channel_writing import channel_arrays
from beamforge.io.writers import check_writable, open_writer
from beamforge.learned.links.labels import Certificate, label
from beamforge.scenarios import scenario as make

PIECE = 16
"""Instances labelled at once, independent of the number of processes."""


@click.command("label")
@click.argument("scenario")
@click.option("--count", required=True, type=click.IntRange(1), metavar="B", help="Number of instances.")
@click.option("--seed", required=True, type=click.IntRange(0), metavar="S", help="Instance i depends on S and i alone.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Processes; by default one for each processor.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A field of the scenario; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.option("--out", required=True, type=click.Path(), help="Channels and labels, .npz, or .h5 to be resumable.")
def command(
    scenario: str, count: int, seed: int, jobs: int | None, settings: tuple[str, ...], as_json: bool, out: str
) -> None:
    """Draw instances of SCENARIO (weak, strong, three-links) and find the powers of the largest sum rate for each.

    OUT is a channel file with powers p, their utility, and the certificate of optimality of each instance: 2
    quasi-inverse, 1 branch and bound, 0 none (the best of many starts). An .h5 output is written as OUT.partial; after
    an interruption, the same command resumes.
    """
    check_writable(Path(out))
    source, overrides = make(scenario, **pairs(settings)), pairs(settings)
    about = {**source.describe(), "seed": seed, "count": count, "units": "linear", "version": beamforge.__version__}
    first = Piece(scenario, overrides, seed, 0, 1).label()
    row_bytes = sum(value.nbytes for value in first.values())
    fingerprint = hashlib.blake2b(json.dumps(about, sort_keys=True).encode()).hexdigest()
    with progress() as bar, open_writer(out, count, row_bytes, fingerprint) as writer:
        task = bar.add_task("labelling", total=count, completed=writer.done)
        places = range(writer.done, count, PIECE)
        pieces = [Piece(scenario, overrides, seed, place, min(PIECE, count - place)) for place in places]
        before = time.perf_counter()
        with labelled(pieces, min(jobs or os.cpu_count() or 1, max(1, len(pieces)))) as found:
            for rows in found:
                now = time.perf_counter()
                writer.append(rows, now - before)
                before = now
                bar.update(task, completed=writer.done)
        certificates = np.bincount(writer.rows("certificate"), minlength=len(Certificate))
        summary = {
            "scenario": scenario,
            "count": count,
            "seed": seed,
            "mean_utility": float(writer.rows("utility").mean()),
            "unit": "bit/s/Hz",
            "certificates": {kind.words: int(certificates[kind]) for kind in Certificate if certificates[kind]},
            "seconds": writer.seconds,
            "out": out,
        }
        writer.finish(meta=json.dumps(about))
    summarise(summary, as_json=as_json)


@dataclass(frozen=True)
class Piece:
    """Instances first..first+count-1 of a scenario."""

    scenario: str
    overrides: dict[str, str]
    seed: int
    first: int
    count: int

    def label(self) -> dict[str, np.ndarray]:
        """The arrays of these instances by the keys of a channel file, and their labels."""
        source = make(self.scenario, **self.overrides)
        instance = source.sample(self.count, self.seed, self.first, dtype=torch.complex128)
        found = label(instance)
        labels = {name: value.numpy() for name, value in found._asdict().items()}
        return channel_arrays(instance) | labels | {"certificate": labels["certificate"].astype(np.int8)}


@contextmanager
def labelled(pieces: list[Piece], jobs: int) -> Iterator[Iterator[dict[str, np.ndarray]]]:
    """The labelled pieces in order, computed by `jobs` processes."""
    if jobs == 1:
        yield map(Piece.label, pieces)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=set_up_worker) as pool:
        try:
            yield pool.map(Piece.label, pieces)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def set_up_worker() -> None:
    """Set up a worker process: one thread for its computations, and exit when the parent process ends."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def exit_with_parent() -> Any:
        parent.join()
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
