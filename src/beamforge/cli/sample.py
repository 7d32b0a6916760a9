"""``beamforge sample``: draws instances of a scenario into a channel file, in pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import torch

import beamforge
from beamforge.cli.output import progress, summarise
from beamforge.cli.request import pairs
from beamforge.io.channel_writing import channel_arrays, shared_arrays
from beamforge.io.channels import CHUNK_BYTES
from beamforge.io.writers import check_writable, open_writer
from beamforge.scenarios import scenario as make


@click.command("sample")
@click.argument("scenario")
@click.option("--count", required=True, type=click.IntRange(1), metavar="B", help="Number of instances.")
@click.option("--seed", required=True, type=click.IntRange(0), metavar="S", help="Instance i depends on S and i alone.")
@click.option("--precision", type=click.Choice(["32", "64"]), default="32", show_default=True, help="Bits of a number.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A field of the scenario; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.option("--out", required=True, type=click.Path(), help="Channels, .npz, or .h5 for more than fits in memory.")
def command(
    scenario: str, count: int, seed: int, precision: str, settings: tuple[str, ...], as_json: bool, out: str
) -> None:
    """Draw instances of SCENARIO; see `beamforge list scenarios`."""
    check_writable(Path(out))
    source = make(scenario, **pairs(settings))
    dtype = {"32": torch.complex64, "64": torch.complex128}[precision]

    def draw(first: int, size: int) -> dict[str, Any]:
        return channel_arrays(source.sample(size, seed, first, dtype=dtype))

    rows = draw(0, min(2, count))
    shared = shared_arrays(rows)
    row_bytes = sum(value[0].nbytes for value in rows.values())
    step = max(1, CHUNK_BYTES // row_bytes)
    about = {**source.describe(), "seed": seed, "count": count, "units": "linear", "version": beamforge.__version__}
    with progress() as bar, open_writer(out, count, row_bytes) as writer:
        task = bar.add_task("sampling", total=count)
        for first in range(0, count, step):
            rows = draw(first, min(step, count - first))
            assert all((rows[name] == value).all() for name, value in shared.items()), "not shared by all"
            writer.append({name: value for name, value in rows.items() if name not in shared})
            bar.update(task, completed=writer.done)
        writer.finish(**shared, meta=json.dumps(about))
    summarise({"scenario": scenario, "count": count, "seed": seed, "out": out}, as_json=as_json)
