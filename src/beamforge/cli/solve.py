"""``beamforge solve``: beams or powers for every instance of a channel file, solved in pieces."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import beamforge
from beamforge.cli.blocked import for_reachable_users
from beamforge.cli.execution import Execution, Traffic, executing
from beamforge.cli.output import progress, summarise
from beamforge.cli.request import Request, pairs, precision_of, problem_options
from beamforge.core.constraints import MeanConstraint, MeanJainAtLeast, jain_index
from beamforge.core.errors import ConfigError
from beamforge.core.evaluate import evaluate
from beamforge.core.instance import Instance
from beamforge.core.problem import Problem
from beamforge.core.settings import device_of
from beamforge.io.channel_writing import stream_rows
from beamforge.io.channels import ChannelFile
from beamforge.io.keys import INTEGERS
from beamforge.io.solutions import STATUS_NAMES, solution_rows
from beamforge.io.writers import Writer, check_writable, open_writer
from beamforge.registry import create, methods_for

SAMPLE_BYTES = 64 << 20
"""Bytes of channels and beams on which a parameter for the whole file is found."""


@click.command("solve")
@click.argument("channels", type=click.Path())
@click.option("--problem", required=True, help="Problem to solve; see `beamforge list problems`.")
@click.option("--method", help="Method; by default the recommended one, see `beamforge list methods`.")
@problem_options
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of random numbers.")
@click.option("--precision", type=click.Choice(["32", "64"]), help="Bits of a real number; by default the file's.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the method; repeatable.")
@executing
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.option("--out", required=True, type=click.Path(), help="Solutions, .npz, or .h5 for more than fits in memory.")
def command(
    channels: str,
    out: str,
    method: str | None,
    seed: int,
    device: str,
    precision: str | None,
    settings: tuple[str, ...],
    as_json: bool,
    decentralised: bool,
    message_bits: str | None,
    time_limit: float | None,
    **stated: Any,
) -> None:
    """Find beams or powers for every instance of CHANNELS (.npz, .h5 or .mat).

    The file is read and solved in pieces. An .h5 output is written as OUT.partial; after an interruption, the same
    command resumes. The status of every instance is converged, max_iterations, infeasible or numerical_failure.

    With --decentralised each base station is a process that knows its own channels alone. They may be on several
    machines: torchrun --nproc-per-node K -m beamforge solve ... --decentralised.
    """
    request = Request(**stated)
    execution = Execution(decentralised, int(message_bits) if message_bits else None, time_limit, request)
    if execution.writes:
        check_writable(Path(out))
    with request.open(channels) as source:
        if Path(out).exists() and os.path.samefile(channels, out):
            raise ConfigError(f"out must not be the channel file itself, got {out}")
        precise = precision_of(precision, source)
        job = Job(source, request, execution, method, pairs(settings), seed, device_of(device), precise)
        with execution.started(job.solver, source.sizes["K"], job.device) as solver, progress() as bar:
            if solver is None:
                return
            job.solver = solver
            checking = bar.add_task("checking", total=None)
            fingerprint = job.fingerprint()
            bar.update(checking, description="tuning")
            parameter = job.tune()
            bar.remove_task(checking)
            with open_writer(out, source.count, source.instance_bytes, fingerprint) as writer:
                solving = bar.add_task("solving", total=source.count, completed=writer.done)
                for first, count in source.chunks(writer.done):
                    job.solve(writer, first, count)
                    bar.update(solving, completed=writer.done)
                summary = job.summary(writer) | parameter
                writer.finish(
                    status_names=np.array(STATUS_NAMES),
                    seconds=writer.seconds,
                    problem=request.problem,
                    method=job.method,
                    version=beamforge.__version__,
                    meta=json.dumps(job.stated),
                    **job.streams,
                    **parameter,
                )
    summarise(summary | {"out": out}, as_json=as_json)


class Job:
    """One request on one channel file."""

    def __init__(
        self,
        source: ChannelFile,
        request: Request,
        execution: Execution,
        method: str | None,
        settings: dict[str, str],
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.source, self.request, self.seed, self.device, self.dtype = source, request, seed, device, dtype
        sample = source.read(0, 1, dtype=dtype, device=device)
        problem = request.build(sample.context)
        network, alone = sample.observation.network, execution.alone
        execution.check(network)
        self.solver = execution.set(create(problem, network, method, settings, decentralised=alone))
        self.method = method or methods_for(problem, network, decentralised=alone)[0]
        self.traffic = Traffic()
        self.untrained = 0  # instances outside the range that the weights were trained on
        each = any(source.axes.get(name, "").startswith("B") for name in INTEGERS)
        self.streams = {} if each else {name: rows[0] for name, rows in streams_of(sample).items()}
        self.unit = problem.maximise.unit
        self.whole = problem.find(MeanConstraint) is not None  # a constraint on the file as a whole
        self.fair = problem.find(MeanJainAtLeast) is not None
        self.stated = {
            **{name: value for name, value in vars(request).items() if value is not None and value is not False},
            "method": self.method,
            "settings": settings,
            "seed": seed,
            **execution.stated,
        }

    def fingerprint(self) -> str:
        """A hash of everything that the solution depends on; this also checks the whole file."""
        asked = [self.stated, str(self.dtype), self.device.type, beamforge.__version__, self.source.scan()]
        return hashlib.blake2b(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    @torch.no_grad()
    def tune(self) -> dict[str, float | int]:
        """Fit the method's parameter to the whole file, or to the first instances of a large file.

        Returns the parameter by name, if the method has one, and for a large file the number of instances that it was
        found on. A resumed run finds it again on the same instances.
        """
        if not self.whole:
            return {}
        name = getattr(self.solver, "parameter", "")
        given = getattr(self.solver, name, None)
        count = min(self.source.count, max(1, SAMPLE_BYTES // self.source.instance_bytes))
        sample = self.source.read(0, count, dtype=self.dtype, device=self.device)
        self.solver = self.solver.fitted(self.request.build(sample.context), sample)
        if not name:
            return {}
        parameter = {name: getattr(self.solver, name)}
        return parameter if given is not None or count == self.source.count else parameter | {"found_on": count}

    @torch.no_grad()
    def solve(self, writer: Writer, first: int, count: int) -> None:
        """Solve a piece and append it. All instances share the random numbers, so the size of pieces has no effect."""
        instance = self.source.read(first, count, dtype=self.dtype, device=self.device)
        problem = self.request.build(instance.context)
        if self.request.drop_blocked:
            before = time.perf_counter()
            rows = for_reachable_users(problem, instance, lambda part, some, *_: self.answer(part, some)[0])
            seconds = time.perf_counter() - before
        else:
            rows, seconds = self.answer(problem, instance)
        writer.append(rows | ({} if self.streams else streams_of(instance)), seconds)

    def answer(self, problem: Problem, instance: Instance) -> tuple[dict[str, np.ndarray], float]:
        """Rows of a solution file, and the seconds that the method took."""
        generator = torch.Generator(self.device).manual_seed(self.seed)
        before = time.perf_counter()
        solution = self.solver.solve(problem, instance, generator=generator)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - before
        self.traffic.count(solution)
        self.untrained += int(solution.info.get("outside_trained_range", torch.zeros(0)).sum())
        report = evaluate(problem, instance, solution.beams)
        return solution_rows(solution, report, powers=self.source.main == "G"), seconds

    def summary(self, writer: Writer) -> dict[str, Any]:
        """The printed summary; means are over the instances that have beams."""
        utility, status = writer.rows("utility"), Counter(writer.rows("status").tolist())
        solved = np.isfinite(utility)
        return {
            "problem": self.request.problem,
            "method": self.method,
            "count": writer.count,
            "read": self.source.read_as,
            "notes": self.notes(),
            "mean_utility": float(utility[solved].mean(dtype=np.float64)) if solved.any() else float("nan"),
            "unit": self.unit,
            "mean_jain": self.mean_jain(writer, solved) if self.fair else None,
            "mean_outage": self.mean_outage(writer, solved) if self.whole and not self.fair else None,
            "status": {name: status[code] for code, name in enumerate(STATUS_NAMES) if status[code]},
            "seconds": writer.seconds,
            "seconds_per_instance": writer.seconds / writer.count,
            **self.traffic.told,
            "scored_on": "H_estimate" if self.source.main == "H_estimate" else None,
        }

    def notes(self) -> list[str]:
        """Notes for the user on how the file was read, and a warning for instances unlike the training data."""
        F = self.source.sizes["F"]
        shared = [f"the {F} subcarriers are instances, each with 1/{F} of every power limit"] if F > 1 else []
        dropped = ["users without a channel are left out"] if self.request.drop_blocked else []
        range_of = f"warning: {self.untrained} instances are outside the range that {self.method} was trained on"
        return [*shared, *self.source.notes, *dropped, *([range_of] if self.untrained else [])]

    @staticmethod
    def mean_jain(writer: Writer, solved: np.ndarray) -> float:
        """Mean of Jain's index over the instances that have beams."""
        return float(jain_index(torch.from_numpy(writer.rows("rate")[solved])).double().mean())

    @staticmethod
    def mean_outage(writer: Writer, solved: np.ndarray) -> float:
        """Mean share of users that miss their target; all users of an instance without beams do."""
        return float(np.where(solved, writer.rows("outage"), 1).mean(dtype=np.float64))


def streams_of(instance: Instance) -> dict[str, np.ndarray]:
    """`stream_rows` as NumPy arrays."""
    return {name: value.cpu().numpy() for name, value in stream_rows(instance.truth).items()}
