"""How near do base stations come that decide alone, by `multipliers`? One command prints every table.

    OMP_NUM_THREADS=1 python benchmarks/decentralised_multipliers.py [--problem sum-rate] [--cells 2 3 4 5 6]
        [--antennas 8] [--snr-db -5 0 5 10 15 20 25] [--rounds 1] [--count 3000] [--weighted] [--references FILE]
        [--times] [--checkpoint FILE]

A cell of a table is the mean utility over the held-out realisations, in percent of that of the reference: for the sum
rate centralised WMMSE started from zero forcing, tolerance 1e-6; for max-min the optimum by `duality`.

--references  a file in which the references' utilities are kept for the next call.
--times       instead: seconds for a batch of --count by the method and by the reference's fastest way, side by side.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from beamforge.bench.timing import Machine, interleaved
from beamforge.classical.duality.power_limited import PowerLimitedMaxMin
from beamforge.classical.linear import ZF
from beamforge.classical.sum_rate.wmmse import MulticellWMMSE
from beamforge.core.evaluate import evaluate
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.problem import Problem
from beamforge.core.solver import Solver
from beamforge.learned.interference.multipliers import MaxMinInterference, SumRateInterference
from beamforge.scenarios import Interference
from beamforge.scenarios.base import TEST_SEEDS

SEED = TEST_SEEDS[11]
METHODS = {"sum-rate": SumRateInterference, "max-min": MaxMinInterference}


def utility(problem: Problem, instance: Instance, W: Tensor) -> Tensor:
    """What beams are worth [B], by the one scorer."""
    return evaluate(problem.bind(instance.truth), instance, W).utility.double()


def reference(name: str, problem: Problem, instance: Instance) -> Tensor:
    """Beams of the strongest centralised method."""
    if name == "max-min":
        return PowerLimitedMaxMin().solve(problem, instance).W
    return MulticellWMMSE(tolerance=1e-6).solve(problem, instance, start=ZF().solve(problem, instance).W).W


def drawn(options: argparse.Namespace, K: int, N: int, snr_db: float) -> Instance:
    scenario = Interference(K, N, snr_db, random_weights=options.weighted)
    return scenario.sample(options.count, seed=SEED, dtype=torch.complex128)


def tables(options: argparse.Namespace, solver: Solver) -> None:
    """A table for every number of antennas: SNRs down, cells across."""
    known = torch.load(options.references) if options.references and options.references.exists() else {}
    for N in options.antennas:
        print(f"\n{options.problem}, N = {N}, {options.count} realisations, percent")
        print("SNR dB" + "".join(f"{f'K = {K}':>9}" for K in options.cells))
        for snr_db in options.snr_db:
            row = f"{snr_db:6.0f}"
            for K in options.cells:
                instance = drawn(options, K, N, snr_db)
                problem = build_problem(options.problem, instance.context)
                key = (options.problem, options.count, options.weighted, K, N, snr_db)
                if key not in known:
                    W = reference(options.problem, problem, instance)
                    known[key] = utility(problem, instance, W).mean().item()
                    if options.references:
                        torch.save(known, options.references)
                with torch.no_grad():
                    found = utility(problem, instance, solver.solve(problem, instance).W).mean().item()
                row += f"{100 * found / known[key]:9.2f}"
            print(row, flush=True)


def times(options: argparse.Namespace, solver: Solver) -> None:
    """Seconds for a batch in single precision, and how many times longer the centralised method takes."""
    print(Machine.here())
    print(f"\n{options.problem}, {options.count} realisations, N = {options.antennas[0]}")
    for K in options.cells:
        for snr_db in options.snr_db:
            instance = Interference(K, options.antennas[0], snr_db).sample(options.count, seed=SEED)
            problem = build_problem(options.problem, instance.context)
            wmmse = MulticellWMMSE(tolerance=1e-6, starts=1)
            central: Solver = PowerLimitedMaxMin() if options.problem == "max-min" else wmmse

            def run(
                method: Solver, problem: Problem = problem, instance: Instance = instance
            ) -> Callable[[int], object]:
                return lambda _: method.solve(problem, instance)

            with torch.no_grad():
                ours, theirs = interleaved({"ours": run(solver), "central": run(central)}, 3).values()
            print(f"K = {K}, {snr_db:4.0f} dB: {ours:7.3f} s, centralised {theirs:7.3f} s, {theirs / ours:6.1f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=sorted(METHODS), default="sum-rate")
    parser.add_argument("--cells", type=int, nargs="+", default=[2, 3, 4, 5, 6])
    parser.add_argument("--antennas", type=int, nargs="+", default=[8])
    parser.add_argument("--snr-db", type=float, nargs="+", default=[-5, 0, 5, 10, 15, 20, 25])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--weighted", action="store_true")
    parser.add_argument("--references", type=Path)
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--checkpoint", default="shipped")
    options = parser.parse_args()
    torch.set_num_threads(1)
    solver = METHODS[options.problem](rounds=options.rounds, checkpoint=options.checkpoint)
    (times if options.times else tables)(options, solver)


if __name__ == "__main__":
    main()
