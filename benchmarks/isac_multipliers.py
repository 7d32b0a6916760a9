"""How near do learned multipliers come to `isac-wmmse`, and in what time? One command prints every table.

    OMP_NUM_THREADS=1 python benchmarks/isac_multipliers.py [--sizes 16 32] [--snr-db 0 5 10 15 20] [--targets 5]
        [--sensing-snr-db 5] [--steps 0 1 2 3] [--count 100] [--checkpoint FILE]

For each size, users and antennas, and SNR: the mean sum rate over feasible held-out instances in percent of that of
converged `isac-wmmse`; in percent of the same instance's, the least; seconds for the batch, side by side on one thread;
and the largest share by which a solution reported as feasible violates a constraint, by an independent NumPy score.
"""

from __future__ import annotations

import argparse
import time

import torch

from beamforge.bench.statistics import percent_of_mean
from beamforge.bench.timing import Machine, one_thread
from beamforge.classical.isac.wmmse import SensingWMMSE
from beamforge.core.instance import Instance
from beamforge.core.named_problems import build_problem
from beamforge.core.solution import Solution
from beamforge.core.solver import Solver
from beamforge.learned.isac.multipliers import SensingMultipliers
from beamforge.reproduce.isac.score import score
from beamforge.scenarios import Isac
from beamforge.scenarios.base import TEST_SEEDS

SEED = TEST_SEEDS[13]


def timed(method: Solver, instance: Instance) -> tuple[Solution, float]:
    """A solution and the seconds that it took."""
    problem = build_problem("isac", instance.context)
    start = time.perf_counter()
    solution = method.solve(problem, instance)
    return solution, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--snr-db", type=float, nargs="+", default=[0, 5, 10, 15, 20])
    parser.add_argument("--targets", type=int, default=5)
    parser.add_argument("--sensing-snr-db", type=float, default=5)
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--checkpoint", default="shipped")
    options = parser.parse_args()
    print(Machine.here())
    print(f"{options.targets} targets, sensing SNR {options.sensing_snr_db:g} dB, {options.count} instances")
    print("size  SNR dB  steps  feasible  percent         least   seconds  isac-wmmse   ratio  violation  handed over")
    for size in options.sizes:
        warm = Isac(size, size, options.targets).sample(4, seed=SEED, first=options.count, dtype=torch.complex128)
        for method in (SensingWMMSE(), SensingMultipliers(checkpoint=options.checkpoint)):
            timed(method, warm)
        for snr_db in options.snr_db:
            scenario = Isac(size, size, options.targets, snr_db, options.sensing_snr_db)
            instance = scenario.sample(options.count, seed=SEED, dtype=torch.complex128)
            best, best_seconds = timed(SensingWMMSE(), instance)
            best_rate, best_violation = score(instance, best.W.resolve_conj().numpy())
            for steps in options.steps:
                found, seconds = timed(SensingMultipliers(steps, options.checkpoint), instance)
                rate, violation = score(instance, found.W.resolve_conj().numpy())
                both = (found.solved & best.solved).numpy()
                percent = percent_of_mean(rate[both], best_rate[both])
                worst = 100 * (rate[both] / best_rate[both]).min()
                broken = max(violation[found.solved.numpy()].max(), best_violation[best.solved.numpy()].max())
                print(
                    f"{size:4d} {snr_db:7g} {steps:6d} {100 * found.solved.double().mean():8.0f}%"
                    f" {percent.value:8.2f} ± {percent.half:4.2f} {worst:7.2f} {seconds:9.3f} {best_seconds:11.2f}"
                    f" {best_seconds / seconds:7.1f} {broken:10.1e} {int(found.info['handed_over'].sum()):6d}",
                    flush=True,
                )


if __name__ == "__main__":
    with one_thread(), torch.no_grad():
        main()
